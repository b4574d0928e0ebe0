"""Connections in memory that break wherever a test wants, and the listeners that they lead to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from colod.errors import NetworkError, PeerUnreachable
from colod.transport.base import Buffer

ENDLESS = 1 << 60
GREETING_BYTES = 1400
"""No greeting is longer; a path that is narrow lets no more through."""


class _Direction:
    """Bytes one way: of all that is written only the first `budget` arrive, then it is broken.

    Nothing arrives any more from the first write on that is longer than `longest`.
    """

    def __init__(self, budget: int, longest: int = ENDLESS) -> None:
        self.longest = longest
        self.left = budget
        self.waiting = bytearray()
        self.is_broken = False
        self.is_stalled = False
        self.news = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Take `data` as a kernel does: who writes does not learn what of it arrives."""
        self.is_stalled = self.is_stalled or len(data) > self.longest
        if self.is_stalled:
            return
        self.waiting += data[: self.left]
        self.is_broken = self.is_broken or len(data) > self.left
        self.left -= min(self.left, len(data))
        self.news.set()


class MemoryConnection:
    """One end; both ends break together, but what has arrived can still be read."""

    def __init__(self, name: str, incoming: _Direction, outgoing: _Direction) -> None:
        self.peer_address = name
        self.is_closed = False
        self.lag_s = 0.0
        self._incoming, self._outgoing = incoming, outgoing

    @property
    def is_broken(self) -> bool:
        """Whether it does not carry everything any more."""
        return self._incoming.is_broken or self._outgoing.is_broken

    async def read_into(self, buffer: memoryview) -> int:
        while not self.is_closed:
            if waiting := self._incoming.waiting:
                count = min(len(waiting), len(buffer))
                buffer[:count] = waiting[:count]
                del waiting[:count]
                return count
            if self.is_broken:
                break
            self._incoming.news.clear()
            await self._incoming.news.wait()
        raise PeerUnreachable(f"{self.peer_address} is closed or broken")

    async def write(self, *parts: Buffer) -> None:
        await asyncio.sleep(self.lag_s)
        if self.is_closed or self.is_broken:
            self.wake()
            raise PeerUnreachable(f"{self.peer_address} is closed or broken")
        self._outgoing.write(b"".join(parts))
        self.wake()

    async def finish(self) -> None:
        raise AssertionError("no session of colod finishes one direction")

    async def close(self) -> None:
        self.is_closed = True
        self._outgoing.is_broken = True
        self.wake()

    def stall(self) -> None:
        """Let nothing arrive any more at either end, and tell nobody."""
        self._incoming.is_stalled = self._outgoing.is_stalled = True

    def cut(self) -> None:
        """Break it now; what has arrived can still be read."""
        self._incoming.is_broken = self._outgoing.is_broken = True
        self.wake()

    def wake(self) -> None:
        """Have everybody look again."""
        self._incoming.news.set()
        self._outgoing.news.set()


class Network:
    """Leads to one listener for each path; each connection lasts as long as its budgets do."""

    def __init__(self, budgets: Iterator[tuple[int, int]]) -> None:
        """Take from `budgets` what goes to the listener, and back, before a connection breaks."""
        self.made: list[MemoryConnection] = []
        self.is_down: set[int] = set()
        self.is_silent: set[int] = set()
        self.is_narrow: set[int] = set()
        self.lag_s: dict[int, float] = {}
        self.called: list[int] = []
        self._budgets = budgets
        self._listeners: dict[int, MemoryListener] = {}

    def path(self, index: int) -> MemoryTransport:
        """Return the transport of one path."""
        return MemoryTransport(self, index)

    def listen(self, index: int) -> MemoryListener:
        """Return the listener at the end of a path."""
        self._listeners[index] = listener = MemoryListener(f"memory-{index}")
        return listener

    def call(self, index: int) -> MemoryConnection:
        """Return a connection over a path."""
        if index in self.is_down or self._listeners[index].is_closed:
            raise PeerUnreachable(f"nobody answers on path {index}")
        there, back = next(self._budgets, (ENDLESS, ENDLESS))
        longest = GREETING_BYTES if index in self.is_narrow else ENDLESS
        to, of = _Direction(there, longest), _Direction(back)
        self.called.append(index)
        name = f"memory-{index}"
        ours, theirs = MemoryConnection(name, of, to), MemoryConnection(name, to, of)
        ours.lag_s = theirs.lag_s = self.lag_s.get(index, 0.0)
        self._listeners[index].bring(theirs)
        self.made.append(ours)
        return ours


class MemoryTransport:
    """The sender's end of one path."""

    def __init__(self, network: Network, index: int) -> None:
        self._network, self._index = network, index

    async def connect(self, address: str, *, timeout_s: float) -> MemoryConnection:
        await asyncio.sleep(0)
        if self._index in self._network.is_silent:
            await asyncio.sleep(timeout_s)
            raise PeerUnreachable(f"nobody answers on path {self._index}")
        return self._network.call(self._index)


class MemoryListener:
    """The receiver's end of one path."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_closed = False
        self._waiting: deque[MemoryConnection] = deque()
        self._news = asyncio.Event()

    def bring(self, connection: MemoryConnection) -> None:
        """Have `accept` return a connection."""
        self._waiting.append(connection)
        self._news.set()

    async def accept(self) -> MemoryConnection:
        while not self._waiting:
            if self.is_closed:
                raise NetworkError("closed")
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    async def close(self) -> None:
        self.is_closed = True
        self._news.set()
