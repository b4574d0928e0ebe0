"""When a proof that the other host is off is asked for again, and for which takeover it counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colod.daemon.proof import RETRY_MAX_S, RETRY_S, Proof
from colod.failover.effects import Do, State
from colod.failover.rules import decide
from colod.failover.view import Answer, Copy, Fence, Journal, View
from colod.model import Disks, Generation, Role
from tests.unit.failover_transcripts.situation import BETA, TAKEN, TERMS

THIS, LATER = Generation(3), Generation(7)


def test_a_proof_counts_for_the_takeover_that_it_was_won_for_and_no_other() -> None:
    proof = Proof()
    assert proof.of(THIS, 0.0, may_ask_again=True) is Fence.NEEDED
    proof.won(THIS)
    assert proof.of(THIS, 1e6, may_ask_again=True) is Fence.CONFIRMED
    assert proof.of(LATER, 1e6, may_ask_again=True) is Fence.NEEDED


def waits_s(proof: Proof, now: float) -> float:
    """Return after how many seconds it is asked for again."""
    waited_s = 0.0
    while proof.of(THIS, now + waited_s, may_ask_again=True) is Fence.UNCONFIRMED:
        waited_s += 1.0
    return waited_s


def test_what_proved_nothing_is_asked_again_at_a_rate_that_falls_to_a_limit() -> None:
    proof, waits = Proof(), []
    for now in range(0, 7000, 1000):
        proof.missed(THIS, "the board does not answer", now, may_change=True)
        waits.append(waits_s(proof, now))
    assert waits == [RETRY_S, 60.0, 120.0, 240.0, *[RETRY_MAX_S] * 3]
    proof.missed(LATER, "nor now", 9000.0, may_change=True)
    assert proof.of(LATER, 9000.0 + RETRY_S, may_ask_again=True) is Fence.DUE_AGAIN


def test_it_is_not_asked_again_where_this_host_may_not_or_only_a_person_can_answer() -> None:
    proof = Proof()
    proof.missed(THIS, "the board does not answer", 0.0, may_change=True)
    assert proof.of(THIS, 1e6, may_ask_again=False) is Fence.UNCONFIRMED
    assert "asked again every 30 to 300 s" in proof.trouble_of(THIS)
    assert proof.trouble_of(LATER) == ""
    proof.missed(THIS, "ask a person", 0.0, may_change=False)
    assert proof.of(THIS, 1e6, may_ask_again=True) is Fence.UNCONFIRMED
    assert proof.trouble_of(THIS) == "ask a person"


def test_a_word_has_it_asked_for_at_once() -> None:
    proof = Proof()
    proof.missed(THIS, "the board does not answer", 0.0, may_change=True)
    proof.again()
    assert proof.of(THIS, 0.0, may_ask_again=True) is Fence.NEEDED


def test_what_agents_write_without_end_is_cut() -> None:
    proof = Proof()
    proof.missed(THIS, "no " * 10_000, 0.0, may_change=True)
    assert len(proof.trouble_of(THIS)) < 500


WAITING = View(
    journal=Journal(
        protection=replace(TERMS, disks=Disks.SHARED), host=BETA, role=Role.SECONDARY, record=TAKEN
    ),
    boot="",
    new_id="1" * 32,
    answer=Answer.UNREACHABLE,
    guest=Copy.PAUSED,
    fence_trouble="the board does not answer",
)


@pytest.mark.parametrize(
    ("fence", "state", "does"),
    [
        (Fence.NEEDED, State.FENCING, Do.FENCE_PEER),
        (Fence.UNCONFIRMED, State.MANUAL_HOLD, None),
        (Fence.DUE_AGAIN, State.MANUAL_HOLD, Do.FENCE_PEER),
    ],
)
def test_while_it_is_tried_again_the_hold_is_shown_with_its_cause(
    fence: Fence, state: State, does: Do | None
) -> None:
    decision = decide(replace(WAITING, fence=fence))
    assert (decision.state, decision.effect) == (state, does)
    assert ("the board does not answer" in decision.cause) is (state is State.MANUAL_HOLD)
    assert ("fence-confirm" in decision.advice) is (state is State.MANUAL_HOLD)
