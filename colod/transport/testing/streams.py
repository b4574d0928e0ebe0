"""Checks of the bytes: whole, in order, unchanged, and no more of them held than said."""

from __future__ import annotations

import asyncio

from colod.transport.base import Buffer, Connection
from colod.transport.testing.bench import BLOCK_BYTES, Bench, Nonconformity, both, pattern

_BULK_BYTES = 2 << 20


async def bytes_arrive_in_order_both_ways_at_once(bench: Bench) -> None:
    """Each side sends MiBs in uneven parts while it reads the other's."""
    ours, theirs = await bench.pair()
    there, back = pattern(_BULK_BYTES, "there"), pattern(_BULK_BYTES, "back")
    await both(
        _exchange(bench, ours, there, back), _exchange(bench, theirs, back, there), "exchange bytes"
    )


async def _exchange(bench: Bench, connection: Connection, send: bytes, get: bytes) -> None:
    await both(
        _send_unevenly(connection, send), bench.expect(connection, get, "bytes both ways"), "write"
    )


async def _send_unevenly(connection: Connection, content: bytes) -> None:
    at, size = 0, 1
    while at < len(content):
        part = content[at : at + size]
        at, size = at + size, size * 3 % 300_007
        third = len(part) // 3
        parts: tuple[Buffer, ...] = (
            bytearray(part[:third]),
            b"",
            memoryview(part)[third : 2 * third],
            part[2 * third :],
        )
        await connection.write(*parts)


async def parts_written_together_keep_their_order(bench: Bench) -> None:
    """One write may have hundreds of parts, of any kind and size, empty ones too."""
    ours, theirs = await bench.pair()
    whole = pattern(300 * 701, "parts")
    parts = [memoryview(whole)[at : at + 701] for at in range(0, len(whole), 701)]
    await both(
        ours.write(b"", *parts, bytearray()),
        bench.expect(theirs, whole, "a write of 300 parts"),
        "write 300 parts",
    )


async def what_was_written_arrives_without_a_further_write(bench: Bench) -> None:
    """Nothing is kept back to fill a block, a frame or the reader's buffer."""
    ours, theirs = await bench.pair()
    for writer, reader in ((ours, theirs), (theirs, ours)):
        await bench.within(writer.write(b"ack"), "write three bytes")
        buffer = memoryview(bytearray(BLOCK_BYTES))
        what = "three bytes that were written are read into a larger buffer"
        count = await bench.within(reader.read_into(buffer), what)
        await bench.expect(reader, b"ack"[count:], what)
        if not count or buffer[:count] != b"ack"[:count]:
            raise Nonconformity(f"{what}: {bytes(buffer[:count])!r} came")


async def an_empty_write_is_no_end(bench: Bench) -> None:
    """A write of nothing is nothing."""
    ours, theirs = await bench.pair()
    await bench.within(ours.write(), "write no parts")
    await bench.within(ours.write(b"", bytearray()), "write empty parts")
    await bench.within(ours.write(b"after"), "write after an empty write")
    await bench.expect(theirs, b"after", "what follows an empty write")


async def a_reader_may_take_a_byte_at_a_time(bench: Bench) -> None:
    """No read gives more than its buffer holds, and what is left is given by the next one."""
    ours, theirs = await bench.pair()
    wanted = pattern(1000, "single bytes")
    await bench.within(ours.write(wanted), "write")
    for at in range(len(wanted)):
        await bench.expect(theirs, wanted[at : at + 1], f"byte {at}, read alone")


async def a_written_part_may_be_reused_at_once(bench: Bench) -> None:
    """The next page is read into the buffer whose bytes have just been written."""
    ours, theirs = await bench.pair()
    blocks = [pattern(BLOCK_BYTES, f"reuse {number}") for number in range(8)]

    async def write() -> None:
        buffer = bytearray(BLOCK_BYTES)
        for block in blocks:
            buffer[:] = block
            await ours.write(buffer)
            buffer[:] = bytes(BLOCK_BYTES)

    await both(
        write(), bench.expect(theirs, b"".join(blocks), "a buffer that is used again"), "write"
    )


async def a_writer_waits_for_its_reader(bench: Bench) -> None:
    """Memory is bounded: at most `held_bytes` lie between a writer and who does not read."""
    ours, theirs = await bench.pair()
    given, writing = await bench.fill(ours)
    await bench.expect(theirs, given, "what was written before and while the writer waited")
    await bench.within(writing, "a write goes on once the other side reads")


async def a_direction_that_waits_does_not_hold_the_other_up(bench: Bench) -> None:
    """Acknowledgements come through while the stream itself is stuck."""
    ours, theirs = await bench.pair()
    given, writing = await bench.fill(ours)
    await bench.within(theirs.write(b"ack"), "write while the other direction is stuck")
    await bench.expect(ours, b"ack", "while the other direction is stuck")
    await bench.expect(theirs, given, "the direction that was stuck")
    await bench.within(writing, "a write goes on once the other side reads")


async def a_slow_reader_gets_every_byte(bench: Bench) -> None:
    """A reader that pauses after each read loses nothing by it."""
    ours, theirs = await bench.pair()
    wanted = pattern(1 << 20, "slow")

    async def read() -> None:
        for at in range(0, len(wanted), 48_000):
            await bench.expect(theirs, wanted[at : at + 48_000], "a slow reader")
            await asyncio.sleep(0.002)

    await both(ours.write(wanted), read(), "write to a slow reader")
