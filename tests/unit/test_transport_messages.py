"""Messages: ends that are named, a close that waits for nobody, and a bound on what is held."""

import asyncio
from collections import deque

import pytest

from colod.errors import PeerUnreachable
from colod.transport.messages import (
    CHUNK_MAX_BYTES,
    HELD_MAX_BYTES,
    LINGER_S,
    MESSAGE_COST_BYTES,
    MessageConnection,
    Tag,
)

pytestmark = pytest.mark.looptime


class Wire:
    """A stream in memory: what the other side sends, and what it is sent."""

    def __init__(self, *messages: bytes) -> None:
        self.coming = deque(messages)
        self.sent: list[bytes] = []
        self.taken = 0
        self.is_stuck = False
        self.ended: bool | None = None
        self._news = asyncio.Event()

    def bring(self, *messages: bytes) -> None:
        self.coming += messages
        self._news.set()

    async def read(self) -> bytes | None:
        while not self.coming:
            self._news.clear()
            await self._news.wait()
        message = self.coming.popleft()
        self.taken += len(message)
        return message if message != b"the end" else None

    async def write(self, message: bytes) -> None:
        if self.is_stuck:
            await asyncio.Event().wait()
        self.sent.append(message)

    async def end(self, *, is_orderly: bool) -> None:
        self.ended = is_orderly


def tagged(tag: Tag, content: bytes = b"") -> bytes:
    return bytes((tag,)) + content


def over(wire: Wire) -> MessageConnection:
    return MessageConnection(wire, "there")


async def read(connection: MessageConnection, size: int = 100) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: await connection.read_into(memoryview(buffer))])


async def test_a_stream_that_ends_without_a_word_is_an_error_after_its_bytes() -> None:
    wire = Wire(tagged(Tag.DATA, b"half of"), b"the end")
    connection = over(wire)
    assert await read(connection) == b"half of"
    with pytest.raises(PeerUnreachable, match="without a word"):
        await read(connection)
    await connection.close()
    assert not await connection.parted()
    assert wire.ended is False


@pytest.mark.parametrize("tag", [Tag.FINISH, Tag.CLOSE])
async def test_an_end_that_is_named_stays_an_end_whatever_follows(tag: Tag) -> None:
    connection = over(Wire(tagged(Tag.DATA, b"all"), tagged(tag), b"the end"))
    assert await read(connection) == b"all"
    for _ in range(3):
        assert await read(connection) == b""
    await connection.close()


@pytest.mark.parametrize(
    "messages",
    [
        (b"",),
        (b"\x09",),
        (tagged(Tag.TAKEN),),
        (tagged(Tag.FINISH), tagged(Tag.DATA, b"more")),
    ],
)
async def test_a_message_that_has_no_place_breaks_the_connection(
    messages: tuple[bytes, ...],
) -> None:
    wire = Wire(*messages)
    connection = over(wire)
    await asyncio.sleep(1)
    with pytest.raises(PeerUnreachable, match="has no place"):
        await connection.write(b"x")
    await connection.close()
    assert not await connection.parted()


async def test_a_close_is_over_once_the_other_side_has_taken_it() -> None:
    wire = Wire()
    connection = over(wire)
    await connection.write(b"last ", b"words")
    await connection.close()
    await asyncio.sleep(LINGER_S / 2)
    assert wire.sent == [tagged(Tag.DATA, b"last words"), tagged(Tag.CLOSE)]
    assert wire.ended is None
    wire.bring(tagged(Tag.DATA, b"not read any more"), tagged(Tag.TAKEN))
    assert await connection.parted()
    assert wire.ended is True


async def test_a_close_that_nobody_takes_is_given_up_in_time() -> None:
    wire = Wire()
    connection = over(wire)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await connection.close()
    assert loop.time() == begun
    assert not await connection.parted()
    assert loop.time() - begun == pytest.approx(LINGER_S, abs=0.1)
    assert wire.ended is False


async def test_both_sides_may_close_at_once() -> None:
    wire = Wire(tagged(Tag.CLOSE))
    connection = over(wire)
    await connection.close()
    assert await connection.parted()
    assert set(wire.sent) >= {tagged(Tag.CLOSE)}


async def test_a_write_that_is_broken_off_is_followed_by_no_end() -> None:
    wire = Wire()
    wire.is_stuck = True
    connection = over(wire)
    writing = asyncio.create_task(connection.write(bytes(8 * CHUNK_MAX_BYTES)))
    await asyncio.sleep(1)
    assert not writing.done()
    writing.cancel()
    await asyncio.wait([writing])
    assert writing.cancelled()
    assert not await connection.parted()
    assert tagged(Tag.CLOSE) not in wire.sent
    assert wire.ended is False


async def test_a_peer_that_has_closed_is_told_that_it_was_taken_and_written_to_no_more() -> None:
    wire = Wire(tagged(Tag.CLOSE))
    connection = over(wire)
    await asyncio.sleep(1)
    assert wire.sent == [tagged(Tag.TAKEN)]
    with pytest.raises(PeerUnreachable, match="the other side has closed"):
        await connection.write(b"x")
    await connection.close()
    assert await connection.parted()


async def test_no_more_is_taken_than_may_be_held_until_somebody_reads() -> None:
    message = tagged(Tag.DATA, bytes(CHUNK_MAX_BYTES))
    wire = Wire(*[message] * 20)
    connection = over(wire)
    await asyncio.sleep(1)
    held = wire.taken
    assert held <= HELD_MAX_BYTES + len(message)
    assert len(await read(connection, CHUNK_MAX_BYTES)) == CHUNK_MAX_BYTES
    await asyncio.sleep(1)
    assert wire.taken == held + len(message)
    await connection.abandon()
    await connection.parted()


async def test_many_small_messages_that_nobody_reads_are_bounded_too() -> None:
    message = tagged(Tag.DATA, b"x")
    wire = Wire(*[message] * 50_000)
    connection = over(wire)
    await asyncio.sleep(1)
    most = HELD_MAX_BYTES // MESSAGE_COST_BYTES
    assert wire.taken // len(message) <= most
    for _ in range(20_000):
        assert await read(connection) == b"x"
    await asyncio.sleep(1)
    taken = wire.taken // len(message)
    assert 20_000 < taken <= 20_000 + most, "what was read makes room again"
    await connection.abandon()
    await connection.parted()


async def test_a_peer_that_closes_again_and_again_and_takes_no_answer_piles_nothing_up() -> None:
    wire = Wire(*[tagged(Tag.CLOSE)] * 1000)
    wire.is_stuck = True
    connection = over(wire)
    await asyncio.sleep(1)
    assert wire.taken == 2, "the second one broke the connection"
    assert len(connection._outbox) == 1
    await connection.close()
    assert not await connection.parted()
