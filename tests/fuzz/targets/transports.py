"""Framing of the transports whose medium has none of its own: chunks, and messages of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import cast

from colod.errors import PeerRefused, PeerUnreachable
from colod.transport.base import Buffer
from colod.transport.chunked import CHUNK_MAX_BYTES, PREFACE, ChunkedConnection
from colod.transport.messages import HELD_MAX_BYTES, MessageConnection, Tag
from colod.transport.sockets import SocketConnection
from tests.fuzz.target import MIB, Reader, Target, demand, gist, same
from tests.fuzz.targets.loop import finish

_TURNS = 4000


class _Carrier:
    """A socket on which all that ever comes is there already."""

    peer_address = "fuzz"

    def __init__(self, octets: bytes, step: int) -> None:
        self._rest = memoryview(octets)
        self._step = step or len(octets) or 1
        self.is_closed = False

    async def read_into(self, buffer: memoryview) -> int:
        count = min(len(buffer), self._step, len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def write(self, *parts: Buffer) -> None:
        pass

    def send_at_once(self, part: Buffer) -> None:
        pass

    async def close(self) -> None:
        self.is_closed = True


async def _read_all(connection: ChunkedConnection | MessageConnection) -> tuple[bytes, str]:
    got = bytearray()
    buffer = memoryview(bytearray(4096))
    try:
        for _ in range(_TURNS):
            count = await connection.read_into(buffer)
            if not count:
                same("an end, again", await connection.read_into(buffer), 0)
                return bytes(got), "end"
            got += buffer[:count]
    except PeerUnreachable as error:
        return bytes(got), gist(error)
    return bytes(got), "more"


def _chunks_in(octets: bytes) -> tuple[bytes, bool]:
    """Return, by a second and simpler reader, what chunks bring, and whether they end."""
    got, at = bytearray(), 0
    while at + 4 <= len(octets):
        length = int.from_bytes(octets[at : at + 4], "big")
        at += 4
        if not length:
            return bytes(got), True
        if length > CHUNK_MAX_BYTES:
            break
        got += octets[at : at + length]
        at += length
    return bytes(got), False


async def _run_chunked(octets: bytes, step: int) -> Hashable:
    carrier = _Carrier(octets, step)
    connection = ChunkedConnection(cast("SocketConnection", carrier))
    try:
        await connection.answer()
    except (PeerRefused, PeerUnreachable) as error:
        return gist(error)
    got, how = await _read_all(connection)
    wanted, ends = _chunks_in(octets[len(PREFACE) :])
    same("bytes of chunks", got, wanted)
    same("an end", how == "end", ends)
    await connection.close()
    demand(carrier.is_closed, "a close that leaves the socket open")
    return how, bool(got)


def _run_chunks(octets: bytes) -> Hashable:
    reader = Reader(octets)
    step, rest = reader.byte(), reader.rest()
    return finish(_run_chunked(rest, step))


class _Stream:
    """Messages that are there already; what is written waits for ever if nobody takes it."""

    def __init__(self, messages: list[bytes], *, takes: bool) -> None:
        self._messages = messages
        self._takes = takes
        self.written: list[bytes] = []
        self.is_ended = False

    async def read(self) -> bytes | None:
        await asyncio.sleep(0)
        return self._messages.pop(0) if self._messages else None

    async def write(self, message: bytes) -> None:
        if not self._takes:
            await asyncio.get_running_loop().create_future()
        self.written.append(message)

    async def end(self, *, is_orderly: bool) -> None:
        self.is_ended = True


def _messages_of(reader: Reader) -> list[bytes]:
    messages: list[bytes] = []
    while not reader.is_empty and len(messages) < 500:
        size = reader.byte()
        messages.append(reader.take(size)[:size] if size else b"")
    return messages


async def _run_message(reader: Reader) -> Hashable:
    flags = reader.byte()
    stream = _Stream(_messages_of(reader), takes=bool(flags & 1))
    wanted = list(stream._messages)
    connection = MessageConnection(stream, "fuzz")
    if flags & 2:  # a reader that comes late
        for _ in range(3 * len(wanted) + 3):
            await asyncio.sleep(0)
        demand(connection._inbox_bytes <= HELD_MAX_BYTES + 256, "more is held than may be")
        demand(len(connection._outbox) <= 4, f"{len(connection._outbox)} answers wait to be sent")
    got, how = await _read_all(connection)
    data = b"".join(each[1:] for each in wanted if each[:1] == bytes((Tag.DATA,)))
    demand(data.startswith(got), "bytes that were not sent, or in another order")
    if not flags & 1:
        connection.fail("over")  # nobody takes a last word: do not wait for it
    await connection.close()
    await connection.parted()
    demand(stream.is_ended, "a close that leaves the stream open")
    return how, bool(got), len(stream.written)


def _run_messages(octets: bytes) -> Hashable:
    return finish(_run_message(Reader(octets)))


def _chunk_seeds() -> Iterable[bytes]:
    for step in (0, 3):
        yield bytes((step,)) + PREFACE + b"\0\0\0\x05hello" + b"\0\0\0\x01!" + b"\0\0\0\0"
        yield bytes((step,)) + PREFACE + b"\0\0\0\x05hel"
        yield bytes((step,)) + PREFACE + b"\0\x10\0\1" + b"x"


def _message_seeds() -> Iterable[bytes]:
    data, end, close, taken = b"\x06\x00hello", b"\x01\x01", b"\x01\x02", b"\x01\x03"
    for flags in b"\0\1\2\3":
        yield bytes((flags,)) + data + data + end
        yield bytes((flags,)) + data + close + taken
        yield bytes((flags,)) + close * 3


CHUNKS = Target(run=_run_chunks, seeds=_chunk_seeds)
MESSAGES = Target(
    run=_run_messages, seeds=_message_seeds, held_bytes=lambda size: MIB + 2048 * size
)
