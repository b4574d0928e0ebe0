"""A connection that outlives its connections: a broken link is mended, nothing is lost or twice.

Beneath the frames, so nothing above knows of it: page stores, digests and epochs stay in step, and
one that is cut in two is continued where it was cut. What is written is kept until the other side
has said to have it (`colod.session.replay`); when a connection breaks, the sender's session makes a
new one, proves itself anew, and both sides say how much they have and go on from there. Who may
bring a new connection is decided in `colod.session.admission` and `colod.session.mending`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from colod.errors import PeerRefused, PeerUnreachable
from colod.session.replay import Replay
from colod.transport.base import Buffer, Connection

RESERVE_BYTES: Final = 64 << 10
"""Kept free of long writes: word of what has come must not wait for word of what has come."""

WORD_BYTES: Final = 512 << 10
"""After so many bytes the other side is told that they have come."""

_LONG_BYTES: Final = 4 << 10
_PIECE_BYTES: Final = 256 << 10


class Resuming:
    """A `Connection` over one connection after the other.

    Attributes:
        number: Of the present or last connection; 0 is the first one.
        path: Index of the path that it goes over.
        resumed: How often another connection took over.
        attached_at: Monotonic time since when the present connection stands.
        broken_at: Monotonic time of the last break, None while a connection stands.
        why: What became of the last connection, "" while none has broken.
    """

    def __init__(
        self,
        connection: Connection,
        octets: int,
        *,
        path: int = 0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Go on with `connection`, on which both sides have just agreed to this.

        Args:
            connection: Nothing was read from it beyond the agreement.
            octets: How much may be kept for another connection, at least 2 MiB.
            path: Index of the path that it goes over.
            changed: Called after each break, and after each connection that takes over.
        """
        self._replay = Replay(octets)
        self._connection: Connection | None = connection
        self._changed = changed
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._received = 0
        self._told = 0
        self._received_before = -1
        self._confirmed_before = 0
        self._is_last = False
        self._is_over = False
        self._address = connection.peer_address
        self.number, self.path, self.resumed = 0, path, 0
        self.attached_at = time.monotonic()
        self.broken_at: float | None = None
        self.why = ""

    # -- as a connection

    @property
    def peer_address(self) -> str:
        """The other end of the present or last connection, for messages."""
        return self._address

    async def read_into(self, buffer: memoryview) -> int:
        """Receive into `buffer`, over whichever connection there is; never 0.

        Raises:
            PeerUnreachable: Once no further connection may take over.
        """
        while True:
            await self._until(lambda: self.is_attached)
            async with self._reading:
                if (connection := self._connection) is None:
                    continue
                try:
                    count = await connection.read_into(buffer)
                except PeerUnreachable as error:
                    self._lose(connection, str(error))
                    continue
                if not count:
                    self._lose(connection, f"{connection.peer_address} ended the connection")
                    continue
                # Also where it was dropped meanwhile: `settle` counts what has come till then.
                self._received += count
                return count

    async def write(self, *parts: Buffer) -> None:
        """Keep `parts` to be sent; return when they may be reused. All are kept, or none is.

        Raises:
            PeerUnreachable: Once no further connection may take over.
        """
        octets = sum(map(len, parts))
        wanted = octets + (RESERVE_BYTES if octets > _LONG_BYTES else 0)
        await self._until(lambda: self._replay.room_bytes >= wanted)
        self._replay.put(parts)
        self._news.set()

    async def finish(self) -> None:
        """Do nothing: such a link ends by a frame that says so."""

    async def close(self) -> None:
        """Close for good; whoever waits for it fails."""
        self._is_over = True
        connection, self._connection = self._connection, None
        self._news.set()
        if connection is not None:
            await connection.close()

    # -- breaking and mending

    @property
    def is_attached(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    @property
    def has_heard(self) -> bool:
        """Whether anything has come over the present or last connection, or it is the first one."""
        return self._received > self._received_before

    @property
    def has_carried(self) -> bool:
        """Whether the other side has said to have got anything over that connection."""
        return self._replay.confirmed > self._confirmed_before

    @property
    def kept_bytes(self) -> int:
        """What was written and the other side may not have yet."""
        return self._replay.kept_bytes

    async def pump(self) -> None:
        """Send what is written, over whichever connection there is; return when it was closed."""
        try:
            while True:
                await self._until(lambda: self.is_attached and bool(self._replay.unsent_bytes))
                connection = self._connection
                assert connection is not None
                piece = self._replay.next(_PIECE_BYTES)
                try:
                    await connection.write(piece)
                except PeerUnreachable as error:
                    self._lose(connection, str(error))
                    continue
                if connection is self._connection:
                    self._replay.sent(len(piece))
                await asyncio.sleep(0)
        except PeerUnreachable:
            return

    async def until_broken(self) -> None:
        """Return when there is no connection.

        Raises:
            PeerUnreachable: Once no further one may take over.
        """
        await self._until(lambda: not self.is_attached)

    def drop(self, why: str) -> None:
        """Give the present connection up; another one may take over."""
        if self._connection is not None:
            self._lose(self._connection, why)

    async def settle(self, why: str) -> int:
        """Give the present connection up; return how many bytes have come, which are all.

        Raises:
            PeerUnreachable: Once no further connection may take over.
        """
        self.drop(why)
        async with self._reading:  # a read that is on its way ends, and is counted
            if self._is_over:
                raise PeerUnreachable(self._ended)
            return self._received

    def check(self, number: int, position: int) -> None:
        """Make sure that connection `number` may take over with the other side at `position`.

        Raises:
            PeerRefused: If it is none that comes after the present one.
            StreamError: If the other side cannot be there.
        """
        if self._is_over or self._is_last:
            raise PeerRefused("this pairing is over")
        if number <= self.number:
            raise PeerRefused(f"connection {number} is not newer than {self.number}")
        self._replay.check(position)

    def claim(self, number: int) -> None:
        """Let no connection take over any more that is not newer than `number`."""
        self.number = number

    def attach(self, connection: Connection, *, number: int, position: int, path: int) -> None:
        """Go on over `connection`, on which both sides have said how much they have.

        Args:
            connection: Nothing was read from it beyond that.
            number: As claimed.
            position: How many bytes the other side has.
            path: Index of the path that it goes over.

        Raises:
            PeerRefused: If a newer one was claimed since, or all is over.
            StreamError: If the other side cannot have just that.
        """
        if self._is_over or number != self.number:
            raise PeerRefused(f"connection {number} was overtaken by {self.number}")
        assert self._connection is None, "settle comes first"
        self._replay.rewind(position)
        self._confirmed_before, self._received_before = position, self._received
        self._connection, self._address = connection, connection.peer_address
        self.path, self.resumed = path, self.resumed + 1
        self.attached_at, self.broken_at = time.monotonic(), None
        self._news.set()
        self._changed()

    def let_be_last(self) -> None:
        """Let no further connection take over: the end of this one is the end."""
        self._is_last = True
        if self._connection is None:
            self._is_over = True
            self._news.set()

    # -- what has come

    def is_word_due(self, *, at_all: bool = False) -> bool:
        """Whether the other side is to be told what has come: of much, or `at_all` of anything."""
        return self._received - self._told >= (1 if at_all else WORD_BYTES)

    def word(self) -> int:
        """Return the position that the other side is told now."""
        self._told = self._received
        return self._told

    def confirm(self, position: int) -> None:
        """Take the other side's word of what it has.

        Raises:
            StreamError: If that cannot be.
        """
        self._replay.confirm(position)
        self._news.set()

    # -- inside

    @property
    def _ended(self) -> str:
        return f"connection to {self._address} ended: {self.why or 'closed on this side'}"

    def _lose(self, connection: Connection, why: str) -> None:
        task = asyncio.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        if connection is not self._connection:
            return
        self._connection, self.why, self.broken_at = None, why, time.monotonic()
        self._is_over = self._is_over or self._is_last
        self._news.set()
        self._changed()

    async def _until(self, fits: Callable[[], bool]) -> None:
        while not self._is_over:
            if fits():
                return
            self._news.clear()
            await self._news.wait()
        raise PeerUnreachable(self._ended)
