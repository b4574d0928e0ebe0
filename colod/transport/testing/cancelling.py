"""Checks of cancellation: a pairing is given up at any moment, and nothing of it may stay."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from colod.errors import PeerUnreachable
from colod.transport.testing.bench import TOKEN_BYTES, Bench, Nonconformity, pattern


async def a_cancelled_write_closes_its_connection(bench: Bench) -> None:
    """Nobody knows how much of it left: the next frame must not follow half of one."""
    ours, theirs = await bench.pair()
    given, writing = await bench.fill(ours)
    await _cancel(bench, writing, "write")
    await bench.fails(ours.write(b"x"), PeerUnreachable, "write after a cancelled write")
    got, _ = await bench.read_rest(theirs)
    if not given.startswith(got):
        raise Nonconformity("a cancelled write: what came is not its beginning")


async def a_cancelled_read_loses_nothing(bench: Bench) -> None:
    """Reads are given up at every time limit; the bytes are the next one's."""
    ours, theirs = await bench.pair()
    wanted = pattern(100 * bench.subject.rounds, "cancelled reads")
    for at in range(0, len(wanted), 100):
        reading = bench.start(ours.read_into(memoryview(bytearray(100))))
        await asyncio.sleep(0)
        await _cancel(bench, reading, "read")
        await bench.within(theirs.write(wanted[at : at + 100]), "write")
        await bench.expect(ours, wanted[at : at + 100], "bytes after a cancelled read")


async def a_cancelled_accept_loses_nobody(bench: Bench) -> None:
    """Whoever connects next is the next accept's."""
    listener = await bench.listen()
    for number in range(bench.subject.rounds):
        accepting = bench.start(listener.accept())
        for _ in range(number % 4):
            await asyncio.sleep(0)
        await _cancel(bench, accepting, "accept")
    what = "connect after accepts that were cancelled"
    meeting = bench.start(bench.meet(listener.address, 1, what))
    await bench.waits(meeting)  # for whoever would still accept it and lose it
    bench.serve(listener)
    await bench.within(meeting, what)


async def a_cancelled_connect_leaves_nothing(bench: Bench) -> None:
    """At whatever moment it is given up; the listener goes on."""
    listener = await bench.listen()
    bench.serve(listener)
    for number in range(bench.subject.rounds):
        connecting = asyncio.create_task(
            bench.subject.sender.connect(listener.address, timeout_s=bench.subject.patience_s)
        )
        await asyncio.sleep(0 if number < 5 else 0.001 * (number - 5))
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await connecting).close()
    await bench.meet(listener.address, 1, "connect after connects that were cancelled")


async def a_cancelled_connect_to_silence_leaves_nothing(bench: Bench) -> None:
    """Given up while nobody answers; this needs a relay."""
    listener = await bench.listen()
    relay = await bench.relay(listener.address)
    await relay.deafen()
    before = bench.leavings()
    connecting = bench.start(
        bench.subject.sender.connect(relay.address, timeout_s=10 * bench.subject.patience_s)
    )
    if not await bench.waits(connecting):
        raise Nonconformity(f"connect to an address that is silent: {connecting!r}")
    await _cancel(bench, connecting, "connect")
    await bench.nothing_left(before, "after a connect was cancelled")


async def a_connection_is_closed_by_cancelling_what_holds_it(bench: Bench) -> None:
    """A task that is cancelled and closes in its `finally` leaves the other side an end."""
    ours, theirs = await bench.pair()

    async def hold() -> None:
        try:
            await ours.read_into(memoryview(bytearray(TOKEN_BYTES)))
        finally:
            await ours.close()

    holding = bench.start(hold())
    await bench.waits(holding)
    await _cancel(bench, holding, "read")
    got, _ = await bench.read_rest(theirs)
    if got:
        raise Nonconformity(f"a connection on which nothing was written: {len(got)} bytes came")


async def _cancel(bench: Bench, task: asyncio.Task[Any], what: str) -> None:
    """Cancel `task`, and make sure that it ends by that."""
    task.cancel()
    await asyncio.wait([task], timeout=bench.subject.patience_s)
    if not task.cancelled():
        raise Nonconformity(f"a cancelled {what}: {task!r}, where it has to end by CancelledError")
