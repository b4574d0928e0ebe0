"""Who is sent away where too many have proved nothing, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from colod.transport.crowd import Crowd, Grumble

_log = logging.getLogger("tests.crowd")


class Silent:
    """A caller that says nothing."""

    def __init__(self, address: str) -> None:
        self.peer_address = address
        self.closed = asyncio.Event()

    async def close(self) -> None:
        self.closed.set()


class Door:
    """A crowd of at most three."""

    def __init__(self) -> None:
        self.crowd = Crowd(Grumble(_log), 3)
        self.over = asyncio.Event()

    async def comes(self, address: str, *, is_peer: bool = False) -> Silent:
        """Have somebody come from `address`, who waits until all is over."""
        caller = Silent(address)
        self.crowd.meet(caller, self._proof(is_peer))
        await asyncio.sleep(0)
        return caller

    async def _proof(self, is_peer: bool) -> None:
        if is_peer:
            self.crowd.trust()
        await self.over.wait()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    yield made
    await made.crowd.disperse()


async def test_a_host_with_many_connections_crowds_out_its_own(door: Door) -> None:
    peer = await door.comes("192.0.2.1:4000")
    strangers = [await door.comes(f"192.0.2.9:{5000 + number}") for number in range(8)]
    async with asyncio.timeout(20):
        for stranger in strangers[:6]:
            await stranger.closed.wait()
    assert not peer.closed.is_set()
    assert not any(stranger.closed.is_set() for stranger in strangers[6:])


async def test_of_hosts_with_as_many_connections_the_first_one_goes(door: Door) -> None:
    callers = [await door.comes(f"[2001:db8::{number}]:4000") for number in range(4)]
    async with asyncio.timeout(20):
        await callers[0].closed.wait()
    assert not any(caller.closed.is_set() for caller in callers[1:])


async def test_who_is_the_peer_is_not_sent_away(door: Door) -> None:
    peer = await door.comes("local", is_peer=True)
    strangers = [await door.comes("local") for _ in range(5)]
    async with asyncio.timeout(20):
        await strangers[1].closed.wait()
    assert not peer.closed.is_set()


async def test_one_that_was_sent_away_before_it_began_is_closed_too(door: Door) -> None:
    first = Silent("local")
    door.crowd.meet(first, door._proof(False))
    for _ in range(3):
        door.crowd.meet(Silent("local"), door._proof(False))
    async with asyncio.timeout(20):
        await first.closed.wait()


async def test_all_end_with_the_crowd(door: Door) -> None:
    callers = [await door.comes("local", is_peer=number == 0) for number in range(3)]
    await door.crowd.disperse()
    assert all(caller.closed.is_set() for caller in callers)


def test_what_strangers_cause_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    grumble = Grumble(_log, lambda: now)
    for number in range(1000):
        grumble.log(logging.WARNING, "refused number=%d", number)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"refused number={number}" for number in range(10)]
    now = 60.0
    for number in range(1000):
        grumble.log(logging.WARNING, "refused number=%d", number)
    assert caplog.records[-1].getMessage() == "refused number=0 left_out=990"
    assert len(caplog.records) == 11
