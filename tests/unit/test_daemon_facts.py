"""How fresh the facts are that decisions rest on."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon.facts import Facts, knows_less, peer_view
from colod.daemon.parts import Parts
from colod.failover import record as records
from colod.failover.effects import State
from colod.failover.record import OwnershipRecord
from colod.failover.view import Answer, Contact, Copy, Fence, Journal, View
from colod.model import Disks, Epoch, GuestName, HostName, PairingId, Protection, Role
from colod.toolstack.port import Domain
from colod.v1 import peer_pb2
from colod.witness.base import Stored
from tests.unit.fake_parts import limits_with, parts_with

ALPHA, BETA = HostName("alpha"), HostName("beta")
TERMS = Protection(guest=GuestName("g1"), primary=ALPHA, secondary=BETA, disks=Disks.NONE)
JOURNAL = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY)
FIRST = records.create(ALPHA, BETA, attempt="a")
STORED = Stored(FIRST, 1)


class SlowDomains:
    """Xen on a host whose `xl list` takes longer than an answer of the witness is fresh."""

    async def by_name(self, *, since: float) -> Mapping[str, Domain]:
        """List nothing, slowly."""
        await asyncio.sleep(1.1)
        return {}


class NoDomains:
    """Xen on a host without guests."""

    async def by_name(self, *, since: float) -> Mapping[str, Domain]:
        """List nothing."""
        return {}


class Heartbeat:
    """A peer that was last heard at `heard_at`, if ever, and said `said`."""

    def __init__(
        self, heard_at: float | None = None, said: peer_pb2.ProtectionView | None = None
    ) -> None:
        """Have heard that."""
        self.networks = (SimpleNamespace(name="beta", heard_at=heard_at),)
        self.said = said

    def answer(self, guest: str, *, asked_after: float) -> peer_pb2.ProtectionView | None:
        """Repeat it."""
        return self.said


def slow_parts() -> Parts:
    """Return the ports of a slow host whose peer was never heard."""
    return parts_of(SlowDomains(), Heartbeat())


def parts_of(
    domains: SlowDomains | NoDomains,
    heartbeat: Heartbeat,
    *,
    peer: HostName = BETA,
    is_paused: bool = False,
    backoff_max_s: float = 5.0,
    suspect_after_s: float = 5.0,
) -> Parts:
    """Return ports that know this."""
    limits = limits_with(suspect_after_s=suspect_after_s, resync_backoff_max_s=backoff_max_s)
    return parts_with(
        peer=peer,
        limits=limits,
        heartbeat=heartbeat,
        domains=domains,
        automation=SimpleNamespace(is_paused=is_paused),
    )


class Pairings:
    """A primary's pairings, as its journal tells of them."""

    def __init__(self, journal: Journal) -> None:
        """Go on from `journal`, as a daemon that has just started."""
        parts = parts_of(NoDomains(), Heartbeat(), backoff_max_s=300.0)
        self.journal, self.facts = journal, Facts(parts, journal)

    def note(self, **entry: object) -> None:
        """Have the journal's entry replaced."""
        was, self.journal = self.journal, replace(self.journal, **cast("Any", entry))
        self.facts.journaled(was, self.journal)

    def fails(self) -> int:
        """Begin a pairing that ends before PAIRED; return how long it is to the next attempt."""
        self.note(pairing=PairingId("e" * 32))
        return self.ends()

    def succeeds(self) -> None:
        """Begin one that comes to be PAIRED."""
        self.note(pairing=PairingId("f" * 32))
        self.note(record=PAIRED)

    def ends(self) -> int:
        """Leave the pairing; return how long it is to the next attempt."""
        self.note(record=FIRST)
        self.note(pairing=None)
        return round(self.facts.resync_wait_s)


def test_the_wait_before_the_next_pairing_doubles_with_each_that_breaks_in_its_first_copy() -> None:
    pairings = Pairings(replace(JOURNAL, record=FIRST))
    assert [pairings.fails() for _ in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]


def test_a_pairing_that_came_to_be_paired_ends_the_failures_before_it() -> None:
    pairings = Pairings(replace(JOURNAL, record=FIRST))
    for _ in range(8):
        pairings.fails()
    pairings.succeeds()
    assert pairings.ends() == 5  # the secondary was restarted, a month later
    assert pairings.fails() == 5
    assert pairings.fails() == 10


def test_a_daemon_that_finds_its_guest_paired_counts_no_failure_when_that_ends() -> None:
    pairings = Pairings(replace(JOURNAL, record=PAIRED, pairing=PAIRED.pairing))
    assert pairings.ends() == 5
    assert pairings.fails() == 5


async def test_an_answer_is_used_even_where_looking_takes_longer_than_it_is_fresh() -> None:
    """Otherwise a slow dom0 asks the witness for ever and decides nothing."""
    facts = Facts(slow_parts(), JOURNAL)
    first = await facts.look(JOURNAL, None, State.ARBITRATING)
    assert first.answer is Answer.STALE
    facts.answered(Answer.READ, STORED)
    second = await facts.look(JOURNAL, None, State.ARBITRATING)
    assert second.answer is Answer.READ
    assert second.record == STORED.record


async def test_an_answer_grows_old() -> None:
    facts = Facts(slow_parts(), JOURNAL)
    await facts.look(JOURNAL, None, State.ARBITRATING)
    facts.answered(Answer.READ, STORED)
    await facts.look(JOURNAL, None, State.ARBITRATING)
    later = await facts.look(JOURNAL, None, State.ARBITRATING)
    assert later.answer is Answer.STALE


async def test_a_witness_that_hangs_is_not_well_while_it_is_asked_once_more() -> None:
    facts = Facts(slow_parts(), JOURNAL)
    assert facts.last_answer is Answer.STALE
    facts.answered(Answer.UNREACHABLE)
    facts._asked_at -= 60.0
    await facts.look(JOURNAL, None, State.ALONE)
    assert (facts.answer, facts.last_answer) == (Answer.STALE, Answer.UNREACHABLE)


async def test_a_gate_that_a_session_left_counts_as_closed_until_it_is_opened() -> None:
    """The pairing may be forgotten before its gate is: the guest would stay mute for ever."""
    left = replace(JOURNAL, pairing=None, gate='{"kind": "plug", "interfaces": ["vif1.0"]}')
    view = await Facts(slow_parts(), left).look(left, None, State.ALONE)
    assert view.gate_closed
    opened = await Facts(slow_parts(), JOURNAL).look(JOURNAL, None, State.ALONE)
    assert not opened.gate_closed


PAIRED = records.pair(FIRST, PairingId("f" * 32), Epoch(2), attempt="b")
TAKEN = records.take_over(PAIRED, PairingId("f" * 32), attempt="c")
LOSER = replace(JOURNAL, record=TAKEN, boot="b")
WINNER = replace(JOURNAL, host=BETA, role=Role.SECONDARY, record=TAKEN)


@pytest.mark.parametrize(
    ("journal", "boot", "guest", "keeps"),
    [
        (LOSER, "b", Copy.PAUSED, True),
        (LOSER, "b", Copy.SUSPENDED, True),
        (LOSER, "b", Copy.ABSENT, False),
        (LOSER, "b", Copy.DOWN, False),
        (LOSER, "after a reboot", Copy.PAUSED, False),
        (replace(LOSER, record=PAIRED), "b", Copy.PAUSED, False),
        (WINNER, "b", Copy.PAUSED, False),
    ],
)
def test_only_a_loser_with_the_copy_that_it_had_says_that_it_keeps_it(
    journal: Journal, boot: str, guest: Copy, keeps: bool
) -> None:
    view = View(journal=journal, boot=boot, new_id="", guest=guest)
    assert peer_view(journal, State.LOST_RACE, view).keeps_copy is keeps


WON = replace(WINNER, role=Role.PRIMARY, record=records.activate(TAKEN, attempt="d"))


@pytest.mark.parametrize(
    ("journal", "guest", "has"),
    [
        (WON, Copy.RUNNING, True),
        (WON, Copy.SUSPENDED, True),
        (WON, Copy.PAUSED, True),
        (WON, Copy.DOWN, False),
        (WON, Copy.ABSENT, False),
        (replace(WON, role=Role.SECONDARY), Copy.RUNNING, False),
        (replace(WON, record=TAKEN), Copy.RUNNING, False),
        (LOSER, Copy.RUNNING, False),
    ],
)
def test_only_an_owner_that_was_seen_running_the_guest_says_that_it_has_it(
    journal: Journal, guest: Copy, has: bool
) -> None:
    view = View(journal=journal, boot="b", new_id="", guest=guest)
    assert peer_view(journal, State.ALONE, view).has_guest is has
    assert not peer_view(journal, State.ALONE, None).has_guest


def test_a_daemon_that_has_not_looked_yet_says_of_no_copy_that_it_keeps_it() -> None:
    assert not peer_view(LOSER, State.STOPPED, None).keeps_copy


@pytest.mark.parametrize(
    ("age_s", "generation", "says", "believed"),
    [
        (0.0, TAKEN.generation, True, True),
        (0.0, TAKEN.generation, False, False),
        (0.0, TAKEN.generation - 1, True, False),
        (60.0, TAKEN.generation, True, False),
    ],
)
async def test_the_peer_keeps_its_copy_if_it_says_so_now_and_under_this_generation(
    age_s: float, generation: int, says: bool, believed: bool
) -> None:
    said = peer_pb2.ProtectionView(guest="g1", generation=generation, keeps_copy=says)
    parts = parts_of(NoDomains(), Heartbeat(time.monotonic() - age_s, said), peer=ALPHA)
    view = await Facts(parts, WINNER).look(WINNER, None, State.PROMOTING)
    assert view.peer_keeps_copy is believed


class DatedHeartbeat(Heartbeat):
    """A peer that was asked once, and did not know the guest."""

    def __init__(self) -> None:
        """Have been asked just now."""
        super().__init__(time.monotonic(), peer_pb2.ProtectionView(guest=JOURNAL.protection.guest))
        self.asked_at = time.monotonic()

    def answer(self, guest: str, *, asked_after: float) -> peer_pb2.ProtectionView | None:
        """Repeat it, unless it is too old."""
        return self.said if self.asked_at > asked_after else None


async def test_what_the_peer_said_before_it_joined_is_no_giving_up() -> None:
    journal = replace(JOURNAL, pairing=None)
    paired = replace(journal, pairing=PairingId("e" * 32))
    heartbeat = DatedHeartbeat()
    facts = Facts(parts_of(NoDomains(), heartbeat), journal)
    facts.journaled(journal, paired)
    heartbeat.asked_at = time.monotonic()
    assert (await facts.look(paired, None, State.PAIRING)).peer_gave_up
    facts.peer_joined()
    assert not (await facts.look(paired, None, State.PAIRING)).peer_gave_up
    heartbeat.asked_at = time.monotonic()
    assert (await facts.look(paired, None, State.SYNCING)).peer_gave_up


async def test_what_another_host_than_the_protections_says_is_not_taken_for_its_word() -> None:
    """The configuration may name a new peer: it knows nothing of what the old one has."""
    said = peer_pb2.ProtectionView(guest="g1", generation=TAKEN.generation, keeps_copy=True)
    gamma = HostName("gamma")
    parts = parts_of(NoDomains(), Heartbeat(time.monotonic(), said), peer=gamma)
    view = await Facts(parts, WINNER).look(WINNER, None, State.PROMOTING)
    assert not view.peer_is_configured
    assert not view.peer_keeps_copy
    assert view.contact is not Contact.UP


@pytest.mark.parametrize(
    ("heard_s", "is_paused", "fence"),
    [
        (60.0, False, Fence.DUE_AGAIN),
        (60.0, True, Fence.UNCONFIRMED),
        (0.0, False, Fence.UNCONFIRMED),
    ],
    ids=["lost", "automation is paused", "heard again"],
)
async def test_only_a_lost_host_is_fenced_again_and_not_while_operators_work(
    heard_s: float, is_paused: bool, fence: Fence
) -> None:
    """A host that is back would be switched off with all its other guests."""
    heartbeat = Heartbeat(time.monotonic() - heard_s)
    parts = parts_of(NoDomains(), heartbeat, peer=ALPHA, is_paused=is_paused, suspect_after_s=0.0)
    journal = replace(WINNER, protection=replace(TERMS, disks=Disks.SHARED))
    facts = Facts(parts, journal)
    facts.proof.missed(journal.generation, "no answer", time.monotonic() - 60.0, may_change=True)
    assert (await facts.look(journal, None, State.MANUAL_HOLD)).fence is fence


@pytest.mark.parametrize(
    ("ours", "generation", "state", "expected"),
    [
        (records.activate(TAKEN, attempt="9"), TAKEN.generation - 1, "PROTECTED", True),
        (records.activate(TAKEN, attempt="9"), TAKEN.generation, "LOST_RACE", True),
        (TAKEN, TAKEN.generation, "LOST_RACE", False),
        (records.activate(TAKEN, attempt="9"), TAKEN.generation, "QUARANTINED", False),
        (records.activate(TAKEN, attempt="9"), TAKEN.generation + 1, "LOST_RACE", False),
    ],
)
def test_who_waits_for_an_activation_that_was_written_lacks_the_record(
    ours: OwnershipRecord, generation: int, state: str, *, expected: bool
) -> None:
    journal = replace(WINNER, record=ours)
    theirs = peer_pb2.ProtectionView(guest="web", generation=generation, state=state)
    assert knows_less(journal, theirs) is expected


def test_time_alone_makes_no_other_view() -> None:
    """What is done again over the same facts is done slowly."""
    view = View(journal=JOURNAL, boot="b", new_id="")
    assert replace(view, uptime_s=2.0) == replace(view, uptime_s=3.0)


class CountedDomains:
    """Xen on a host without guests; keeps the time from which on a listing had to be."""

    def __init__(self) -> None:
        """Have been asked nothing."""
        self.since: list[float] = []

    async def by_name(self, *, since: float) -> Mapping[str, Domain]:
        """List nothing."""
        self.since.append(since)
        return {}


async def test_after_the_witness_was_asked_alone_the_listing_before_will_do() -> None:
    domains = CountedDomains()
    facts = Facts(parts_of(cast("Any", domains), Heartbeat()), JOURNAL)
    began = time.monotonic()
    await facts.look(JOURNAL, None, State.ALONE)
    facts.asked()
    await facts.look(JOURNAL, None, State.ALONE)
    await facts.look(JOURNAL, None, State.ALONE)  # nobody says why: so anything may have happened
    facts.acted()
    await facts.look(JOURNAL, None, State.ALONE)
    facts.asked()
    facts.acted()
    await facts.look(JOURNAL, None, State.ALONE)
    assert [since >= began for since in domains.since] == [True, False, True, True, True]


async def test_not_where_the_session_or_the_journal_is_another_one_by_then() -> None:
    domains = CountedDomains()
    facts = Facts(parts_of(cast("Any", domains), Heartbeat()), JOURNAL)
    began = time.monotonic()
    await facts.look(JOURNAL, None, State.ALONE)
    facts.asked()
    await facts.look(replace(JOURNAL, reason="x"), None, State.ALONE)
    assert all(since >= began for since in domains.since)
