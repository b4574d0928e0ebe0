"""What colod says and does in each situation, and what every decision must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from colod.errors import InvariantBroken
from colod.failover.effects import Do, State, Swap
from colod.failover.rules import RULES, decide
from colod.failover.rules.table import AnyOf, Not, Predicate, Then, name_of
from colod.failover.view import Answer, Copy
from colod.model import Mode
from tests.unit.failover_transcripts import TRANSCRIPTS
from tests.unit.failover_transcripts.situation import (
    FOLLOWS,
    IN_PAIR,
    LATER,
    LOST,
    NEW_ID,
    PAIRED,
    REPLICA,
    Transcript,
    primary,
    secondary,
)

# States in which colod waits for something that it cannot bring about itself.
WAITING = (State.MANUAL_HOLD, State.GUEST_SHUTDOWN)


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda each: each.what.replace(" ", "-"))
def test_a_situation_is_decided_as_written_down(transcript: Transcript) -> None:
    assert transcript.deviation() == ""


def test_every_row_has_a_situation() -> None:
    assert {each.rule for each in TRANSCRIPTS} == {rule.name for rule in RULES}


def test_no_two_rows_have_the_same_name() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))


def test_every_waiting_state_has_a_cause_and_a_stated_way_out() -> None:
    for transcript in TRANSCRIPTS:
        decision = decide(transcript.view)
        if decision.state in WAITING and decision.effect is None:
            assert decision.cause or decision.state is State.GUEST_SHUTDOWN, transcript.what
            assert decision.advice, transcript.what


def test_every_row_that_only_shows_something_and_waits_says_why() -> None:
    quiet = (State.PAIRING, State.SYNCING, State.REPLICATING, State.PROTECTED, State.ALONE)
    for transcript in TRANSCRIPTS:
        decision = decide(transcript.view)
        if decision.effect is None and decision.journal is None and decision.state not in quiet:
            assert decision.cause or decision.advice, transcript.what


def test_a_write_is_journaled_as_pending_before_it_is_sent() -> None:
    for transcript in TRANSCRIPTS:
        decision = decide(transcript.view)
        if isinstance(decision.effect, Swap):
            pending = decision.journal.pending if decision.journal else None
            assert pending is not None
            assert pending.new == decision.effect.new
            assert pending.record == transcript.view.journal.record


def test_a_write_carries_the_decisions_own_attempt_id() -> None:
    decision = decide(primary(LATER, IN_PAIR, **FOLLOWS))
    assert isinstance(decision.effect, Swap)
    assert decision.effect.new is not None
    assert decision.effect.new.attempt == NEW_ID


def test_nothing_irrevocable_is_decided_without_a_confirmed_answer() -> None:
    irrevocable = (Do.DESTROY_GUEST, Do.QUARANTINE_GUEST, Do.DISCARD_REPLICA, Do.ERASE)
    for transcript in TRANSCRIPTS:
        view = transcript.view
        decision = decide(view)
        promotes = view.is_mine and not view.is_activated
        if decision.effect in irrevocable and not promotes and view.journal.record is not None:
            assert view.answer == "read", transcript.what


def test_a_table_in_which_no_row_fits_is_our_defect() -> None:
    with pytest.raises(InvariantBroken):
        decide(primary(LATER), RULES[:2])


def test_a_decision_changes_no_journal_that_needs_no_change() -> None:
    held = primary(PAIRED, {"held": True} | IN_PAIR)
    assert decide(held).effect is Do.HOLD_GUEST
    assert decide(held).journal is None


def test_facts_are_named_as_they_are_combined() -> None:
    def rains(_: object) -> bool:
        return True

    def snows(_: object) -> bool:
        return False

    assert name_of(Not(AnyOf((rains, Not(snows))))) == "not (rains or not snows)"
    assert AnyOf((rains, snows))(primary(LATER))
    assert not AnyOf((snows,))(primary(LATER))
    assert Not(snows)(primary(LATER))


def test_every_fact_is_said_in_words() -> None:
    for rule in RULES:
        assert isinstance(rule.then, Then)
        for fact in rule.when:
            for plain in _plain(fact):
                assert plain.__doc__, name_of(plain)


def _plain(fact: Predicate) -> list[Predicate]:
    if isinstance(fact, Not):
        return _plain(fact.fact)
    if isinstance(fact, AnyOf):
        return [plain for each in fact.facts for plain in _plain(each)]
    return [fact]


@pytest.mark.parametrize("facts", [{"draining": True}, {"takeover_automatic": False}])
def test_who_waits_for_an_operator_says_that_the_witness_is_away_too(facts: dict[str, Any]) -> None:
    """Else the advice, to take over, would lead in a circle."""
    view = secondary(PAIRED, IN_PAIR, **REPLICA, **LOST, **facts)
    assert "witness" not in decide(view).cause
    assert "the witness does not answer" in decide(replace(view, answer=Answer.UNREACHABLE)).cause


@pytest.mark.parametrize(
    ("mode", "domid", "is_stranger"),
    [(Mode.REMUS, 7, True), (Mode.COLO, 7, False), (Mode.COLO, 8, True), (Mode.COLO, 0, True)],
)
def test_what_was_running_is_no_replica_but_the_copy_that_xl_made_in_colo(
    mode: Mode, domid: int, is_stranger: bool
) -> None:
    view = secondary(PAIRED, {**IN_PAIR, "held": True, "held_domid": 7}, guest=Copy.PAUSED)
    terms = replace(view.journal.protection, mode=mode)
    entry = replace(view.journal, protection=terms, replica_domid=domid)
    assert replace(view, journal=entry, guest_domid=7).guest_is_stranger is is_stranger
