"""What every kind of witness must do; each kind's test module runs it on that kind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count

import pytest

from colod.errors import IllegalTransition
from colod.failover.record import (
    OwnershipRecord,
    activate,
    create,
    force,
    go_alone,
    hand_back,
    hand_over,
    pair,
    take_over,
)
from colod.model import Epoch, GuestName, HostName, PairingId
from colod.witness.base import Lost, Outcome, Stored, Unknown, Witness, Won
from colod.witness.settle import settle

GUEST = GuestName("web")
A = HostName("alpha")
B = HostName("beta")
PAIRING = PairingId("0123456789abcdef" * 2)
_attempts = count(1)


def attempt() -> str:
    """Return an attempt id that no other write of this run has."""
    return f"attempt-{next(_attempts)}"


@dataclass
class Hosts:
    """The same witness as both hosts of a protection see it."""

    a: Witness
    b: Witness


def won(outcome: Outcome) -> Stored:
    """Return what is stored after a write that must have been won."""
    assert isinstance(outcome, Won), outcome
    return outcome.stored


async def write(
    witness: Witness, expected: Stored, new: OwnershipRecord | None, guest: GuestName = GUEST
) -> Stored:
    """Make a change that must be won, and return what is stored then."""
    return won(await witness.compare_and_swap(guest, expected, new))


async def created(hosts: Hosts) -> Stored:
    """Create the protection by `A`."""
    expected = await hosts.a.read(GUEST)
    first = create(A, B, attempt=attempt(), after=expected.last_generation)
    return await write(hosts.a, expected, first)


async def paired(hosts: Hosts) -> Stored:
    """Create the protection by `A`, and pair it."""
    stored = await created(hosts)
    assert stored.record is not None
    return await write(hosts.a, stored, pair(stored.record, PAIRING, Epoch(2), attempt=attempt()))


def record_of(stored: Stored) -> OwnershipRecord:
    """Return the record that must be there."""
    assert stored.record is not None
    return stored.record


class WitnessContract:
    """The tests; a subclass gives the fixture `hosts`."""

    async def test_a_guest_that_was_never_protected_has_no_record_and_revision_0(
        self, hosts: Hosts
    ) -> None:
        assert await hosts.a.read(GUEST) == Stored(None, 0)

    async def test_a_created_record_is_read_by_both_hosts_as_the_writer_saw_it(
        self, hosts: Hosts
    ) -> None:
        stored = await created(hosts)
        assert await hosts.a.read(GUEST) == stored == await hosts.b.read(GUEST)

    async def test_records_of_different_guests_do_not_touch(self, hosts: Hosts) -> None:
        stored = await created(hosts)
        other = GuestName("web.2")
        assert await hosts.a.read(other) == Stored(None, 0)
        await write(hosts.a, Stored(None, 0), create(A, B, attempt=attempt()), other)
        assert await hosts.a.read(GUEST) == stored

    async def test_the_revision_grows_with_every_change(self, hosts: Hosts) -> None:
        first = await created(hosts)
        second = await write(
            hosts.a, first, pair(record_of(first), PAIRING, Epoch(2), attempt=attempt())
        )
        third = await write(hosts.a, second, hand_over(record_of(second), attempt=attempt()))
        fourth = await write(hosts.b, third, hand_back(record_of(third), attempt=attempt()))
        fifth = await write(hosts.a, fourth, activate(record_of(fourth), attempt=attempt()))
        revisions = [one.revision for one in (first, second, third, fourth, fifth)]
        assert revisions == sorted(set(revisions))
        assert revisions[0] > 0

    @pytest.mark.parametrize("turn", range(5))
    async def test_of_two_hosts_that_race_from_one_revision_exactly_one_wins(
        self, hosts: Hosts, turn: int
    ) -> None:
        stored = await paired(hosts)
        alone = go_alone(record_of(stored), attempt=attempt())
        taken = take_over(record_of(stored), PAIRING, attempt=attempt())
        racers = [
            hosts.a.compare_and_swap(GUEST, stored, alone),
            hosts.b.compare_and_swap(GUEST, stored, taken),
        ]
        if turn % 2:
            to_a, to_b = await asyncio.gather(*racers)
        else:
            to_b, to_a = await asyncio.gather(*reversed(racers))
        # A kind may leave a loser in doubt while the race goes on, but not once it is over.
        if isinstance(to_a, Unknown):
            to_a = await settle(hosts.a, GUEST, stored, alone)
        if isinstance(to_b, Unknown):
            to_b = await settle(hosts.b, GUEST, stored, taken)
        outcomes = (to_a, to_b)
        winners = [one for one in outcomes if isinstance(one, Won)]
        losers = [one for one in outcomes if isinstance(one, Lost)]
        assert len(winners) == len(losers) == 1
        assert losers[0].stored == winners[0].stored == await hosts.a.read(GUEST)
        assert await hosts.b.read(GUEST) == winners[0].stored
        assert winners[0].stored.record == (alone if isinstance(to_a, Won) else taken)

    async def test_a_loser_is_told_what_stands_in_its_way(self, hosts: Hosts) -> None:
        stored = await paired(hosts)
        after = await write(
            hosts.b, stored, take_over(record_of(stored), PAIRING, attempt=attempt())
        )
        late = go_alone(record_of(stored), attempt=attempt())
        assert await hosts.a.compare_and_swap(GUEST, stored, late) == Lost(after)

    async def test_the_same_write_sent_twice_is_won_once_and_changes_once(
        self, hosts: Hosts
    ) -> None:
        stored = await paired(hosts)
        alone = go_alone(record_of(stored), attempt=attempt())
        after = await write(hosts.a, stored, alone)
        assert await hosts.a.compare_and_swap(GUEST, stored, alone) == Won(after)
        assert await hosts.b.read(GUEST) == after

    async def test_the_same_state_with_another_attempt_is_not_taken_for_ours(
        self, hosts: Hosts
    ) -> None:
        stored = await paired(hosts)
        after = await write(hosts.a, stored, go_alone(record_of(stored), attempt=attempt()))
        again = go_alone(record_of(stored), attempt=attempt())
        assert await hosts.a.compare_and_swap(GUEST, stored, again) == Lost(after)

    async def test_a_deleted_record_keeps_its_revision_and_its_generation_growing(
        self, hosts: Hosts
    ) -> None:
        stored = await created(hosts)
        gone = await write(hosts.a, stored, None)
        assert gone.record is None
        assert gone.revision > stored.revision
        assert gone.last_generation == record_of(stored).generation
        assert await hosts.b.read(GUEST) == gone
        again = await created(hosts)
        assert again.revision > gone.revision
        assert record_of(again).generation == record_of(stored).generation + 1

    async def test_a_compare_on_absence_sees_a_create_and_a_delete_in_between(
        self, hosts: Hosts
    ) -> None:
        absent = await hosts.b.read(GUEST)
        gone = await write(hosts.a, await created(hosts), None)
        late = create(B, A, attempt=attempt())
        assert await hosts.b.compare_and_swap(GUEST, absent, late) == Lost(gone)

    async def test_a_deletion_sent_twice_is_won(self, hosts: Hosts) -> None:
        stored = await created(hosts)
        gone = await write(hosts.a, stored, None)
        assert await hosts.a.compare_and_swap(GUEST, stored, None) == Won(gone)

    async def test_an_illegal_change_is_refused_before_anything_is_sent(self, hosts: Hosts) -> None:
        stored = await created(hosts)
        with pytest.raises(IllegalTransition):
            await hosts.b.compare_and_swap(GUEST, stored, None)
        restarted = create(A, B, attempt=attempt())
        gone = await write(hosts.a, stored, None)
        with pytest.raises(IllegalTransition):
            await hosts.a.compare_and_swap(GUEST, gone, restarted)
        assert await hosts.a.read(GUEST) == gone

    async def test_an_operators_reason_is_kept_and_the_forced_owner_can_activate(
        self, hosts: Hosts
    ) -> None:
        stored = await created(hosts)
        reason = "rack 4 burnt down; Jürgen saw it \U0001f525"
        forced = force(record_of(stored), B, attempt=attempt(), reason=reason)
        after = await write(hosts.b, stored, forced)
        assert record_of(await hosts.a.read(GUEST)).forced == reason
        active = await write(hosts.b, after, activate(record_of(after), attempt=attempt()))
        assert record_of(active).activated

    async def test_settle_confirms_a_write_that_landed(self, hosts: Hosts) -> None:
        stored = await paired(hosts)
        alone = go_alone(record_of(stored), attempt=attempt())
        after = await write(hosts.a, stored, alone)
        assert await settle(hosts.a, GUEST, stored, alone) == Won(after)

    async def test_settle_denies_a_write_that_another_one_overtook(self, hosts: Hosts) -> None:
        stored = await paired(hosts)
        taken = take_over(record_of(stored), PAIRING, attempt=attempt())
        after = await write(hosts.b, stored, taken)
        alone = go_alone(record_of(stored), attempt=attempt())
        assert await settle(hosts.a, GUEST, stored, alone) == Lost(after)

    async def test_settle_sends_a_write_that_never_arrived(self, hosts: Hosts) -> None:
        stored = await paired(hosts)
        alone = go_alone(record_of(stored), attempt=attempt())
        after = won(await settle(hosts.a, GUEST, stored, alone))
        assert after.record == alone
