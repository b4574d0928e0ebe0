"""A connection over a stream of messages, such as an RPC: with ends that a message names.

Each message is a tag of one byte and, for DATA, bytes. A stream that ends without FINISH or CLOSE
is a break. Whoever closes says CLOSE and waits, in the background and for `LINGER_S` at most, until
the other side has TAKEN it: tearing the stream down drops what is still on its way in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, Protocol

from colod.errors import PeerUnreachable
from colod.transport.base import Buffer
from colod.transport.groups import groups

CHUNK_MAX_BYTES: Final = 512 << 10
"""Most bytes of one message, its tag not counted."""

HELD_MAX_BYTES: Final = 2 << 20
"""What has come and was not read: at this many bytes no more is taken from the stream."""

MESSAGE_COST_BYTES: Final = 256
"""What a message that waits takes besides its bytes, so that many small ones are bounded too."""

LINGER_S: Final = 3.0
"""Time in which the other side may take what was written before a close."""

_QUEUED_MAX: Final = 2


class Tag(IntEnum):
    """What a message is; its first byte."""

    DATA = 0
    FINISH = 1
    CLOSE = 2
    TAKEN = 3


class MessageStream(Protocol):
    """What the messages go by; one read and one write at a time."""

    async def read(self) -> bytes | None:
        """Return the next message, None if the stream has ended.

        Raises:
            PeerUnreachable: If it broke.
        """
        ...

    async def write(self, message: bytes) -> None:
        """Send a message; return when the next one may follow.

        Raises:
            PeerUnreachable: If the stream broke.
        """
        ...

    async def end(self, *, is_orderly: bool) -> None:
        """Tear the stream down; nothing waits on it any more."""
        ...


class Bell:
    """Wakes everybody who waits: each looks anew for what it waited for."""

    def __init__(self) -> None:
        """Let nobody wait yet."""
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake them."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Return at the next ring."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)


class MessageConnection:
    """A `Connection` over a `MessageStream`."""

    def __init__(self, stream: MessageStream, peer_address: str) -> None:
        """Take over `stream`, and begin to take from it."""
        self._stream = stream
        self._peer_address = peer_address
        self._bell = Bell()
        self._inbox: deque[memoryview] = deque()
        self._inbox_bytes = 0
        self._outbox: deque[bytes] = deque()  # the first one is being sent
        self._failure = ""
        self._has_ended = False  # after what is in the inbox
        self._has_peer_closed = False
        self._is_peer_gone = False  # it has closed, or taken this side's close
        self._is_writing = False
        self._is_finished = False
        self._is_over = False
        self._moving = (asyncio.create_task(self._pull()), asyncio.create_task(self._push()))
        self._parting: asyncio.Task[None] | None = None

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        return self._peer_address

    async def read_into(self, buffer: memoryview) -> int:
        """Receive into `buffer`; 0 at the end that the other side made.

        Raises:
            PeerUnreachable: If the connection broke, or was closed on this side.
        """
        while not self._is_over:
            if self._inbox:
                return self._take(buffer)
            if self._has_ended:
                return 0
            if self._failure:
                raise self._broken(self._failure)
            await self._bell.wait()
        raise self._broken("closed on this side")

    async def write(self, *parts: Buffer) -> None:
        """Send `parts` in order; return when they are copied, and all but the last MiB sent.

        Raises:
            PeerUnreachable: If the connection broke, or was finished or closed on either side.
        """
        self._check_writable()
        self._is_writing = True  # and stays so if it breaks off: no end may follow half of it
        try:
            for message in _messages(parts):
                while len(self._outbox) >= _QUEUED_MAX:
                    await self._bell.wait()
                    self._check_writable()
                self._put(message)
        except asyncio.CancelledError:
            await self.close()
            raise
        self._is_writing = False

    async def finish(self) -> None:
        """Say that this side's direction ends; reading goes on.

        Raises:
            PeerUnreachable: If the connection broke or was closed on this side.
        """
        if self._is_finished and not self._is_over:
            return
        self._check_writable()
        self._is_finished = True
        self._put(bytes((Tag.FINISH,)))

    async def close(self) -> None:
        """Close both directions; what was written is brought away in the background, if it can be.

        It is not while a write waits or was broken off: what the other side reads is a break.
        """
        if self._parting is not None:
            return
        self._is_over = True
        self._inbox.clear()
        is_meant = not (self._is_writing or self._failure)
        if is_meant:
            self._put(bytes((Tag.CLOSE,)))
        self._bell.ring()
        self._parting = asyncio.create_task(self._part(LINGER_S if is_meant else 0))

    async def abandon(self) -> None:
        """Close without a word: nothing that was said here may be taken for all."""
        self._is_writing = True
        await self.close()

    def fail(self, reason: str) -> None:
        """Note that the stream has ended beneath; the first reason stands."""
        self._failure = self._failure or reason
        self._bell.ring()

    async def parted(self) -> bool:
        """Wait until it is closed on this side and nothing moves; return whether in order."""
        while self._parting is None:
            await self._bell.wait()
        await asyncio.wait([self._parting])
        return self._is_peer_gone and not self._failure

    # -- the stream

    async def _pull(self) -> None:
        try:
            while True:
                while self._inbox_bytes >= HELD_MAX_BYTES and not self._is_over:
                    await self._bell.wait()
                message = await self._stream.read()
                if message is None:
                    self.fail("it ended without a word: cut off, or the other process died")
                    return
                self._received(message)
                self._bell.ring()
        except PeerUnreachable as error:
            self.fail(str(error))

    def _received(self, message: bytes) -> None:
        tag = message[0] if message else len(Tag)
        if tag == Tag.DATA and not self._has_ended:
            if not self._is_over and len(message) > 1:
                self._inbox.append(memoryview(message)[1:])
                self._inbox_bytes += len(message) - 1 + MESSAGE_COST_BYTES
        elif tag == Tag.FINISH:
            self._has_ended = True
        elif tag == Tag.CLOSE and not self._has_peer_closed:  # an answer to each would pile up
            self._has_peer_closed = self._has_ended = self._is_peer_gone = True
            self._put(bytes((Tag.TAKEN,)))
        elif tag == Tag.TAKEN and self._is_over:
            self._is_peer_gone = True
        else:
            raise self._broken(f"a message that has no place here, of tag {tag}")

    async def _push(self) -> None:
        try:
            while True:
                while not self._outbox:
                    await self._bell.wait()
                await self._stream.write(self._outbox[0])
                self._outbox.popleft()
                self._bell.ring()
        except PeerUnreachable as error:
            self.fail(str(error))

    async def _part(self, linger_s: float) -> None:
        """Tear the stream down as soon as the other side needs nothing of it any more."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(linger_s):
                    while not (self._failure or (self._is_peer_gone and not self._outbox)):
                        await self._bell.wait()
        finally:
            for task in self._moving:
                task.cancel()
            await asyncio.gather(*self._moving, return_exceptions=True)
            await self._stream.end(is_orderly=self._is_peer_gone and not self._failure)
            self._bell.ring()

    def _put(self, message: bytes) -> None:
        self._outbox.append(message)
        self._bell.ring()

    def _take(self, buffer: memoryview) -> int:
        part = self._inbox.popleft()
        count = min(len(part), len(buffer))
        buffer[:count] = part[:count]
        if count < len(part):
            self._inbox.appendleft(part[count:])
        else:
            self._inbox_bytes -= MESSAGE_COST_BYTES
        self._inbox_bytes -= count
        self._bell.ring()
        return count

    def _check_writable(self) -> None:
        if self._is_over or self._is_finished:
            raise self._broken("closed on this side")
        if self._is_peer_gone:
            raise self._broken("the other side has closed")
        if self._failure:
            raise self._broken(self._failure)

    def _broken(self, reason: str) -> PeerUnreachable:
        return PeerUnreachable(f"connection to {self._peer_address} broke: {reason}")


def _messages(parts: tuple[Buffer, ...]) -> Iterator[bytes]:
    """Give the bytes of `parts`, copied, in messages; none of them is empty."""
    data = bytes((Tag.DATA,))
    for group in groups(parts, CHUNK_MAX_BYTES):
        yield b"".join((data, *group))
