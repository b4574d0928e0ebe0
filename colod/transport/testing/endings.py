"""Checks of how a connection ends: in order, half, here, there, in the middle, and by force."""

from __future__ import annotations

import asyncio

from colod.errors import PeerUnreachable
from colod.transport.base import Connection
from colod.transport.testing.bench import BLOCK_BYTES, Bench, Nonconformity, both, pattern


async def an_end_is_read_after_every_byte(bench: Bench) -> None:
    """`close` loses nothing that `write` took; the end then stays the end."""
    ours, theirs = await bench.pair()
    wanted = pattern(200_000, "last words")

    async def part() -> None:
        await ours.write(wanted)
        await ours.close()

    await both(part(), bench.expect(theirs, wanted, "bytes before a close"), "write and close")
    await bench.expect_end(theirs, "after a close")


async def a_finished_direction_ends_and_the_other_goes_on(bench: Bench) -> None:
    """`finish` is half a close, also with bytes under way against it."""
    (first, second), (third, fourth) = await bench.pair(), await bench.pair()
    for ours, theirs in ((first, second), (fourth, third)):
        early, late = pattern(50_000, "early"), pattern(150_000, "late")
        await bench.within(theirs.write(early), "write 50 kB")
        await bench.expect(ours, early[:10], "the first of 50 kB")
        await bench.within(ours.write(b"last"), "write")
        await bench.within(ours.finish(), "finish")
        await bench.expect(theirs, b"last", "bytes before finish")
        await bench.expect_end(theirs, "after finish")
        wanted = early[10:] + late
        read = bench.expect(ours, wanted, "the direction that was not finished")
        await both(theirs.write(late), read, "write to a side that has finished")
        await bench.within(theirs.finish(), "finish the other direction")
        await bench.expect_end(ours, "after both sides have finished")


async def nothing_can_be_written_after_finish(bench: Bench) -> None:
    """Whoever has finished and writes is told so."""
    ours, _theirs = await bench.pair()
    await bench.within(ours.finish(), "finish")
    await bench.fails(ours.write(b"more"), PeerUnreachable, "write after finish")


async def closing_wakes_who_waits_on_this_side(bench: Bench) -> None:
    """A read and a write that wait end when their own side closes."""
    ours, _theirs = await bench.pair()
    _given, writing = await bench.fill(ours)
    reading = bench.start(_read_one(ours))
    if not await bench.waits(reading):
        raise Nonconformity("a read with nothing to read: ended, where it has to wait")
    while writing.done():  # what lies below took more meanwhile, as on a busy machine
        _given, writing = await bench.fill(ours)
    await bench.within(ours.close(), "close while a read and a write wait")
    await bench.fails(reading, PeerUnreachable, "a read that waited when its side closed")
    await bench.fails(writing, PeerUnreachable, "a write that waited when its side closed")


async def a_closed_connection_stays_closed(bench: Bench) -> None:
    """Closing again does nothing; everything else says that it is closed."""
    ours, _theirs = await bench.pair()
    await bench.within(ours.close(), "close")
    await bench.within(ours.close(), "close again")
    await bench.fails(_read_one(ours), PeerUnreachable, "read after close")
    await bench.fails(ours.write(b"x"), PeerUnreachable, "write after close")
    await bench.fails(ours.finish(), PeerUnreachable, "finish after close")


async def writing_to_a_closed_side_fails(bench: Bench) -> None:
    """Whoever writes to nobody learns so within a bounded number of bytes."""
    ours, theirs = await bench.pair()
    await theirs.close()
    block = bytes(BLOCK_BYTES)
    for _ in range(0, bench.subject.held_bytes, BLOCK_BYTES):
        try:
            await bench.outcome(ours.write(block), "write to a side that closed")
        except PeerUnreachable:
            return
    message = f"writing to a side that closed: {bench.subject.held_bytes} bytes were taken"
    raise Nonconformity(message)


async def closing_in_the_middle_of_a_write_gives_a_beginning(bench: Bench) -> None:
    """What is read then is the beginning of what was written, and not said to be all of it."""
    ours, theirs = await bench.pair()
    given, writing = await bench.fill(ours)
    await bench.within(ours.close(), "close in the middle of a write")
    await bench.fails(writing, PeerUnreachable, "a write in whose middle its side closed")
    got, error = await bench.read_rest(theirs)
    if not given.startswith(got):
        raise Nonconformity("closing in the middle of a write: what came is not its beginning")
    if error is None and bench.subject.proves_peer:
        raise Nonconformity("closing in the middle of a write: read as an orderly end")


# -- the link itself; these need a relay


async def a_reset_is_an_error_and_never_an_end(bench: Bench) -> None:
    """For xl an end means failover: a link that broke must not look like one."""
    ours, theirs, relay = await bench.relayed_pair()
    await bench.within(ours.write(b"before"), "write")
    await bench.expect(theirs, b"before", "bytes before a reset")
    await relay.stall()
    for side in (ours, theirs):
        await bench.within(side.write(bytes(100)), "write into a stalled link")
    await relay.reset()
    for side in (ours, theirs):
        await bench.fails(_read_one(side), PeerUnreachable, "read after a reset")


async def a_stalled_link_loses_nothing_and_holds_no_close_up(bench: Bench) -> None:
    """Silence is no error of the transport's: the session judges it."""
    ours, theirs, relay = await bench.relayed_pair()
    await relay.stall()
    wanted = pattern(1000, "stall")
    await bench.within(ours.write(wanted), "write into a stalled link")
    reading = bench.start(bench.expect(theirs, wanted, "bytes through a link that had stalled"))
    if not await bench.waits(reading):
        await bench.within(reading, "read while the link is stalled")
        raise Nonconformity("a stalled link: read something that was not sent")
    relay.resume()
    await bench.within(reading, "read once the link goes on")
    await relay.stall()
    await bench.fill(ours)
    for side in (ours, theirs):
        await bench.within(side.close(), "close on a stalled link")


async def a_cut_is_told_from_an_end(bench: Bench) -> None:
    """Where bytes are protected, so is their end: a stream cut short beneath is an error."""
    ours, theirs, relay = await bench.relayed_pair()
    await bench.within(ours.write(b"half of"), "write")
    await bench.expect(theirs, b"half of", "bytes before a cut")
    await relay.cut()
    for side in (ours, theirs):
        await bench.fails(_read_one(side), PeerUnreachable, "read after the link was cut")


async def a_changed_byte_breaks_the_connection(bench: Bench) -> None:
    """Where bytes are protected, one changed bit is found, and nothing of it is given on."""
    ours, theirs, relay = await bench.relayed_pair()
    relay.flip()
    await bench.within(ours.write(pattern(1000, "flip")), "write")
    await bench.fails(_read_one(theirs), PeerUnreachable, "read bytes that were changed")


async def _read_one(connection: Connection) -> int:
    count = await connection.read_into(memoryview(bytearray(1)))
    await asyncio.sleep(0)
    return count
