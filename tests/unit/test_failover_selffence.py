"""When a host is left to its watchdog: only when it can neither ask nor stop its guest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.failover import record as records
from colod.failover.record import NO_GENERATION, OwnershipRecord
from colod.failover.selffence import Guarded, Order, Risk, judge, risk_of
from colod.failover.view import Journal, Link, Pending, View
from colod.model import Disks, Epoch, Generation, GuestName, HostName, PairingId, Protection, Role

ALPHA, BETA, GUEST = HostName("alpha"), HostName("beta"), GuestName("g1")
TERMS = Protection(guest=GUEST, primary=ALPHA, secondary=BETA, disks=Disks.NONE)
ALONE = records.create(ALPHA, BETA, attempt="1")
PAIRED = records.pair(ALONE, PairingId("0" * 32), Epoch(2), attempt="2")
TAKEN = records.take_over(PAIRED, PairingId("0" * 32), attempt="3")
NOW, FRESH_S = 1000.0, 5.0


def journal(record: OwnershipRecord | None, role: Role = Role.PRIMARY) -> Journal:
    return Journal(protection=TERMS, host=ALPHA, role=role, record=record)


def risk(
    entry: Journal, view: View | None = None, *, is_stopped: bool = False, theirs: int = 0
) -> Risk:
    return risk_of(entry, view, is_stopped=is_stopped, peer_generation=Generation(theirs))


def guest(
    risk: Risk = Risk.PAIRED,
    *,
    looked: bool = True,
    stopped: bool = False,
    peer: float | None = None,
    witness: float | None = None,
) -> Guarded:
    return Guarded(
        guest=GUEST,
        risk=risk,
        has_looked=looked,
        is_stopped=stopped,
        peer_heard_at=peer,
        witness_said_at=witness,
    )


def order(*guests: Guarded, armed: bool = True) -> Order:
    return judge(guests, is_armed=armed, now=NOW, fresh_s=FRESH_S).order


def test_only_the_owner_of_a_pair_and_who_lost_it_are_at_risk() -> None:
    assert risk(journal(None)) is Risk.NONE
    assert risk(journal(ALONE)) is Risk.NONE
    assert risk(journal(PAIRED)) is Risk.PAIRED
    assert risk(journal(TAKEN)) is Risk.LOST
    assert risk(journal(TAKEN), is_stopped=True) is Risk.NONE
    assert risk(journal(PAIRED, Role.SECONDARY)) is Risk.NONE


def test_a_pair_that_may_have_been_written_counts_as_one() -> None:
    pending = Pending(new=PAIRED, record=ALONE, revision=1)
    assert risk(replace(journal(ALONE), pending=pending)) is Risk.PAIRED
    leaving = Pending(new=records.go_alone(PAIRED, attempt="4"), record=PAIRED, revision=2)
    assert risk(replace(journal(PAIRED), pending=leaving)) is Risk.PAIRED


def test_a_pair_that_is_about_to_be_written_counts_as_one() -> None:
    entry = replace(journal(ALONE), pairing=PairingId("0" * 32))
    due = View(journal=entry, boot="b", new_id="", link=Link.FOLLOWING, acked_epoch=2)
    assert risk(entry, due) is Risk.PAIRED
    assert risk(entry, replace(due, acked_epoch=1)) is Risk.NONE
    assert risk(entry, replace(due, unarmed="not yet")) is Risk.PAIRED
    assert not replace(due, unarmed="not yet").is_promotable_epoch_acked


def test_a_peer_that_runs_the_guest_by_a_newer_record_has_it() -> None:
    """So a host whose xl hangs learns it, although it decides nothing."""
    newer = PAIRED.generation + 1
    assert risk(journal(PAIRED), theirs=newer) is Risk.LOST
    assert risk(journal(PAIRED), theirs=newer, is_stopped=True) is Risk.NONE
    assert risk(journal(PAIRED), theirs=PAIRED.generation) is Risk.PAIRED
    assert PAIRED.generation > NO_GENERATION


def test_without_a_guest_at_risk_it_is_disarmed() -> None:
    assert order() is Order.DISARM
    assert order(guest(Risk.NONE), armed=False) is Order.DISARM


@pytest.mark.parametrize("armed", [True, False])
@pytest.mark.parametrize(
    "signs",
    [
        pytest.param({"peer": NOW - 1}, id="witness lost, peer live"),
        pytest.param({"witness": NOW - 1}, id="peer lost, witness live"),
        pytest.param({"peer": NOW - FRESH_S}, id="just heard"),
    ],
)
def test_a_host_with_any_evidence_is_fed(signs: dict[str, float], armed: bool) -> None:
    assert order(guest(**signs), armed=armed) is Order.FEED  # type: ignore[arg-type]


def test_a_host_that_has_stopped_its_guest_is_fed_and_arms_none_for_it() -> None:
    assert order(guest(stopped=True), armed=True) is Order.FEED
    assert order(guest(stopped=True), armed=False) is Order.WAIT
    assert order(guest(stopped=True), guest(peer=NOW), armed=False) is Order.FEED


@pytest.mark.parametrize("armed", [True, False])
def test_a_host_that_can_neither_ask_nor_stop_is_starved(armed: bool) -> None:
    old = NOW - FRESH_S - 0.1
    assert order(guest(), armed=armed) is Order.STARVE
    assert order(guest(peer=old, witness=old), armed=armed) is Order.STARVE


def test_a_guest_that_was_lost_must_be_seen_stopped_whoever_answers() -> None:
    assert order(guest(Risk.LOST, peer=NOW, witness=NOW)) is Order.STARVE


def test_one_guest_without_evidence_starves_a_host_of_many() -> None:
    verdict = judge(
        [guest(peer=NOW), replace(guest(), guest=GuestName("g2")), guest(Risk.NONE)],
        is_armed=True,
        now=NOW,
        fresh_s=FRESH_S,
    )
    assert verdict.order is Order.STARVE
    assert "g2" in verdict.why
    assert "g1" not in verdict.why


def test_a_daemon_that_has_just_begun_goes_on_with_an_armed_one_and_arms_none() -> None:
    assert order(guest(looked=False, peer=NOW), armed=True) is Order.FEED
    assert order(guest(looked=False, peer=NOW), armed=False) is Order.WAIT
    assert order(guest(looked=False), armed=True) is Order.WAIT


signs = st.none() | st.floats(NOW - 20, NOW)
guarded = st.builds(
    Guarded,
    guest=st.just(GUEST),
    risk=st.sampled_from(Risk),
    has_looked=st.booleans(),
    is_stopped=st.booleans(),
    peer_heard_at=signs,
    witness_said_at=signs,
)


@given(st.lists(guarded, max_size=4), st.booleans())
def test_it_is_fed_exactly_on_evidence_of_every_guest_at_risk(
    guests: list[Guarded], armed: bool
) -> None:
    """The rule in other words, so that neither is changed alone."""
    found = order(*guests, armed=armed)
    risky = [each for each in guests if each.risk is not Risk.NONE]

    def is_safe(each: Guarded) -> bool:
        heard = [at for at in (each.peer_heard_at, each.witness_said_at) if at is not None]
        is_heard = bool(heard) and NOW - max(heard) <= FRESH_S
        return each.is_stopped or (each.risk is Risk.PAIRED and is_heard)

    all_looked = all(each.has_looked for each in risky)
    assert (found is Order.DISARM) == (not risky)
    if risky:
        may_arm = all_looked and any(not each.is_stopped for each in risky)
        may_feed = all(is_safe(each) for each in risky) and (armed or may_arm)
        assert (found is Order.FEED) == may_feed
        assert found is not Order.STARVE or all_looked
