"""The witness `manual`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from colod.errors import PeerUnreachable, WitnessError
from colod.failover.record import (
    OwnershipRecord,
    activate,
    force,
    go_alone,
    hand_over,
    pair,
    take_over,
)
from colod.model import Epoch, GuestName, HostName
from colod.witness.base import Lost, Stored, Unknown, Won
from colod.witness.manual import ManualWitness
from colod.witness.settle import settle
from tests.unit.witness_contract import (
    GUEST,
    PAIRING,
    A,
    B,
    Hosts,
    WitnessContract,
    attempt,
    created,
    paired,
    record_of,
    write,
)


class Link:
    """The control channel between both hosts; a test can cut it, each way of it alone."""

    def __init__(self, directory: Path) -> None:
        self.copies: dict[HostName, ManualWitness] = {}
        self.requests_lost: set[HostName] = set()
        self.answers_lost: set[HostName] = set()
        for host in (A, B):
            (directory / host).mkdir()
            self.copies[host] = ManualWitness(directory / host, host=host, timeout_s=10)
        self.copies[A].attach(self._offer(A, B))
        self.copies[B].attach(self._offer(B, A))

    def cut(self) -> None:
        self.requests_lost = {A, B}

    def mend(self) -> None:
        self.requests_lost, self.answers_lost = set(), set()

    def _offer(
        self, sender: HostName, receiver: HostName
    ) -> Callable[[GuestName, Stored], Awaitable[bool]]:
        async def offer(guest: GuestName, stored: Stored) -> bool:
            if sender in self.requests_lost:
                raise PeerUnreachable("cut")
            answer = await self.copies[receiver].accept(guest, stored, sender=sender)
            if sender in self.answers_lost:
                raise PeerUnreachable("answer lost")
            return answer

        return offer


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(tmp_path)


@pytest.fixture
def hosts(link: Link) -> Hosts:
    return Hosts(link.copies[A], link.copies[B])


class TestContract(WitnessContract):
    """While both hosts can talk, the manual witness does what every witness must."""


async def test_without_the_other_host_neither_goes_alone_nor_takes_over(
    link: Link, hosts: Hosts
) -> None:
    stored = await paired(hosts)
    link.cut()
    alone = go_alone(record_of(stored), attempt=attempt())
    taken = take_over(record_of(stored), PAIRING, attempt=attempt())
    for witness, new in ((hosts.a, alone), (hosts.b, taken)):
        outcome = await witness.compare_and_swap(GUEST, stored, new)
        assert isinstance(outcome, Unknown)
        assert "operator's word" in outcome.reason
        assert await witness.read(GUEST) == stored


@pytest.mark.parametrize("survivor", [A, B])
async def test_an_operators_word_lets_the_host_it_was_given_on_go_on(
    link: Link, hosts: Hosts, survivor: HostName
) -> None:
    stored = await paired(hosts)
    link.cut()
    new = (
        go_alone(record_of(stored), attempt=attempt())
        if survivor == A
        else take_over(record_of(stored), PAIRING, attempt=attempt())
    )
    witness = link.copies[survivor]
    assert isinstance(await witness.compare_and_swap(GUEST, stored, new), Unknown)
    await witness.confirm(GUEST, "I pulled its plug")
    assert isinstance(await settle(witness, GUEST, stored, new), Won)
    assert (await witness.read(GUEST)).record == new


async def test_a_word_does_not_count_on_the_other_host(link: Link, hosts: Hosts) -> None:
    stored = await paired(hosts)
    link.cut()
    await link.copies[A].confirm(GUEST, "beta is off")
    taken = take_over(record_of(stored), PAIRING, attempt=attempt())
    assert isinstance(await hosts.b.compare_and_swap(GUEST, stored, taken), Unknown)


async def test_a_word_counts_once_and_for_the_record_it_was_given_on(
    link: Link, hosts: Hosts
) -> None:
    stored = await paired(hosts)
    link.cut()
    await link.copies[A].confirm(GUEST, "beta is off")
    alone = await write(hosts.a, stored, go_alone(record_of(stored), attempt=attempt()))
    link.mend()
    again = await write(
        hosts.a, alone, pair(record_of(alone), PAIRING, Epoch(2), attempt=attempt())
    )
    link.cut()
    late = go_alone(record_of(again), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, again, late), Unknown)


async def test_a_word_that_a_crash_left_behind_does_not_count_for_a_later_record(
    link: Link, hosts: Hosts, tmp_path: Path
) -> None:
    stored = await paired(hosts)
    await link.copies[A].confirm(GUEST, "beta is off")
    left_behind = (tmp_path / A / f"{GUEST}.word").read_bytes()
    alone = await write(hosts.a, stored, go_alone(record_of(stored), attempt=attempt()))
    again = await write(
        hosts.a, alone, pair(record_of(alone), PAIRING, Epoch(2), attempt=attempt())
    )
    (tmp_path / A / f"{GUEST}.word").write_bytes(left_behind)
    link.cut()
    late = go_alone(record_of(again), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, again, late), Unknown)


async def test_a_word_on_nothing_that_is_paired_is_refused(link: Link, hosts: Hosts) -> None:
    with pytest.raises(WitnessError, match="not paired"):
        await link.copies[A].confirm(GUEST, "why not")
    await created(hosts)
    with pytest.raises(WitnessError, match="not paired"):
        await link.copies[A].confirm(GUEST, "why not")
    with pytest.raises(ValueError, match="reason"):
        await link.copies[A].confirm(GUEST, " ")


async def doubted(link: Link, stored: Stored) -> OwnershipRecord:
    """Have A pair while B is not heard, and a person say that B is down.

    Returns:
        The record that A wants.
    """
    link.cut()
    new = pair(record_of(stored), PAIRING, Epoch(2), attempt=attempt())
    assert isinstance(await settle(link.copies[A], GUEST, stored, new), Unknown)
    await link.copies[A].confirm(GUEST, "it seems to be off")
    return new


async def test_a_pairing_that_the_peer_has_not_confirmed_is_unknown_and_counts_as_paired(
    link: Link, hosts: Hosts
) -> None:
    stored = await created(hosts)
    link.cut()
    new = pair(record_of(stored), PAIRING, Epoch(2), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, new), Unknown)
    assert (await hosts.a.read(GUEST)).record == new
    assert isinstance(await settle(hosts.a, GUEST, stored, new), Unknown)
    link.mend()
    assert isinstance(await settle(hosts.a, GUEST, stored, new), Won)
    assert (await hosts.b.read(GUEST)).record == new


async def test_a_peer_that_dies_before_it_confirms_a_pairing_holds_nobody_up_for_ever(
    link: Link, hosts: Hosts
) -> None:
    stored = await created(hosts)
    new = await doubted(link, stored)
    won = await settle(hosts.a, GUEST, stored, new)
    assert isinstance(won, Won)
    alone = go_alone(new, attempt=attempt())
    assert isinstance(await settle(hosts.a, GUEST, won.stored, alone), Won)


async def test_a_word_for_a_pairing_is_void_once_the_peer_has_confirmed_it(
    link: Link, hosts: Hosts
) -> None:
    """It was about this silence, and must not decide a later one."""
    stored = await created(hosts)
    new = await doubted(link, stored)
    link.mend()
    won = await settle(hosts.a, GUEST, stored, new)
    assert isinstance(won, Won)
    link.cut()
    alone = go_alone(new, attempt=attempt())
    assert isinstance(await settle(hosts.a, GUEST, won.stored, alone), Unknown)


async def test_a_word_is_void_once_the_peer_is_heard_in_any_way(link: Link, hosts: Hosts) -> None:
    """Used for a pairing or not: said of this silence, it must not decide a later one."""
    a, b = link.copies[A], link.copies[B]
    stored = await created(hosts)
    for speaker in (a, b):
        new = await doubted(link, stored)
        won = await settle(a, GUEST, stored, new)
        assert isinstance(won, Won)
        link.mend()
        await speaker.tell(GUEST)
        link.cut()
        alone = go_alone(new, attempt=attempt())
        assert isinstance(await settle(a, GUEST, won.stored, alone), Unknown)
        link.mend()
        await a.tell(GUEST)
        stored = await write(a, won.stored, alone)


async def test_a_refusal_is_no_silence(link: Link, hosts: Hosts) -> None:
    stored = await created(hosts)
    new = await doubted(link, stored)

    async def refuse(guest: GuestName, stored: Stored) -> bool:
        return False

    link.copies[A].attach(refuse)
    assert isinstance(await settle(link.copies[A], GUEST, stored, new), Unknown)


async def test_whoever_leaves_consents_to_nothing_before_its_offer_was_answered(
    link: Link, hosts: Hosts
) -> None:
    """Also where nobody waits for the outcome any more: the offer may be at the other host."""
    a, b = link.copies[A], link.copies[B]
    stored = await paired(hosts)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(guest: GuestName, offered: Stored) -> bool:
        asked.set()
        await answer.wait()
        return await b.accept(guest, offered, sender=A)

    a.attach(slow)
    alone = go_alone(record_of(stored), attempt=attempt())
    leaving = asyncio.create_task(a.compare_and_swap(GUEST, stored, alone))
    await asked.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    taken = take_over(record_of(stored), PAIRING, attempt=attempt())
    assert isinstance(await b.compare_and_swap(GUEST, stored, taken), Unknown)
    answer.set()
    await a.close()
    assert isinstance(await settle(a, GUEST, stored, alone), Won)
    assert record_of(await b.read(GUEST)).owner == A


async def test_a_gift_to_a_host_that_died_can_be_settled_and_taken_back(
    link: Link, hosts: Hosts
) -> None:
    stored = await paired(hosts)
    link.cut()
    gift = hand_over(record_of(stored), attempt=attempt())
    assert isinstance(await settle(hosts.a, GUEST, stored, gift), Unknown)
    await link.copies[A].confirm(GUEST, "it burnt down")
    won = await settle(hosts.a, GUEST, stored, gift)
    assert isinstance(won, Won)
    back = force(gift, A, attempt=attempt(), reason="it burnt down")
    assert isinstance(await settle(hosts.a, GUEST, won.stored, back), Won)


@pytest.mark.parametrize("turn", range(4))
async def test_when_a_lost_answer_hides_a_consent_there_is_still_one_owner_at_most(
    link: Link, hosts: Hosts, turn: int
) -> None:
    stored = await paired(hosts)
    link.answers_lost = {(A, B)[turn % 2]}
    alone = go_alone(record_of(stored), attempt=attempt())
    taken = take_over(record_of(stored), PAIRING, attempt=attempt())
    racers = [
        hosts.a.compare_and_swap(GUEST, stored, alone),
        hosts.b.compare_and_swap(GUEST, stored, taken),
    ]
    outcomes = await asyncio.gather(*(racers if turn < 2 else reversed(racers)))
    assert sum(isinstance(one, Won) for one in outcomes) <= 1
    at_a, at_b = record_of(await hosts.a.read(GUEST)), record_of(await hosts.b.read(GUEST))
    # Neither host believes itself the sole owner while the other does, too.
    assert not (at_a == alone and at_b == taken)


async def test_a_consent_whose_answer_was_lost_is_settled_by_asking_again(
    link: Link, hosts: Hosts
) -> None:
    stored = await paired(hosts)
    link.answers_lost = {A}
    alone = go_alone(record_of(stored), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, alone), Unknown)
    assert (await hosts.b.read(GUEST)).record == alone
    taken = take_over(record_of(stored), PAIRING, attempt=attempt())
    assert isinstance(await hosts.b.compare_and_swap(GUEST, stored, taken), Lost)
    link.mend()
    # A daemon that crashed in between asks with an attempt of its own.
    again = go_alone(record_of(stored), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, again), Won)
    assert (await hosts.b.read(GUEST)).record == again


async def test_a_host_that_was_taken_for_dead_learns_that_it_lost(link: Link, hosts: Hosts) -> None:
    stored = await paired(hosts)
    link.cut()
    await link.copies[B].confirm(GUEST, "alpha burns")
    taken = await write(hosts.b, stored, take_over(record_of(stored), PAIRING, attempt=attempt()))
    link.mend()
    alone = go_alone(record_of(stored), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, alone), Unknown)
    active = await write(hosts.b, taken, activate(record_of(taken), attempt=attempt()))
    assert (await hosts.a.read(GUEST)).record == active.record
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, alone), Lost)


async def test_a_hand_over_counts_only_when_the_other_host_holds_it(
    link: Link, hosts: Hosts
) -> None:
    stored = await paired(hosts)
    link.cut()
    gift = hand_over(record_of(stored), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, gift), Unknown)
    assert (await hosts.a.read(GUEST)).record == gift
    link.mend()
    assert isinstance(await settle(hosts.a, GUEST, stored, gift), Won)
    assert (await hosts.b.read(GUEST)).record == gift


async def test_an_owner_alone_needs_nobody_for_what_only_it_may_change(
    link: Link, hosts: Hosts
) -> None:
    link.cut()
    stored = await created(hosts)
    gone = await write(hosts.a, stored, None)
    link.mend()
    again = await created(hosts)
    assert record_of(again).generation > gone.last_generation
    assert (await hosts.b.read(GUEST)).record == again.record


async def test_a_force_needs_no_second_word(link: Link, hosts: Hosts) -> None:
    stored = await paired(hosts)
    link.cut()
    forced = force(record_of(stored), B, attempt=attempt(), reason="alpha is scrap")
    after = await write(hosts.b, stored, forced)
    link.mend()
    await write(hosts.b, after, activate(record_of(after), attempt=attempt()))
    assert record_of(await hosts.a.read(GUEST)).owner == B


async def test_a_stranger_and_an_older_copy_are_refused(link: Link, hosts: Hosts) -> None:
    stored = await paired(hosts)
    newer = go_alone(record_of(stored), attempt=attempt())
    witness = link.copies[B]
    assert not await witness.accept(GUEST, Stored(newer, 9), sender=HostName("gamma"))
    older = pair(record_of(stored), PAIRING, Epoch(2), attempt=attempt())
    await write(hosts.a, stored, newer)
    assert not await witness.accept(GUEST, Stored(record_of(stored), 9), sender=A)
    assert older.generation == newer.generation
    sneaked = take_over(record_of(stored), PAIRING, attempt=attempt())
    assert not await link.copies[A].accept(GUEST, Stored(sneaked, 9), sender=B)
