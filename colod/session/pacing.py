"""Hold the link to a rate: by the kernel where the connection has a socket, else here.

What is held back here is written in short pieces, so that the other side hears something all the
time: one long wait would look like silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from colod.transport.base import Buffer, Connection, Shaped

_PIECE_S: Final = 0.02
_PIECE_MIN_BYTES: Final = 4 << 10
_PIECE_MAX_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Bucket:
    """A token bucket, sans clock: what may be written now, and how long to wait for more.

    Attributes:
        bytes_per_s: How fast it fills.
        burst_bytes: How much it holds.
        now: Monotonic time; it is full then.
    """

    bytes_per_s: float
    burst_bytes: float
    now: float
    _level: float = 0.0

    def __post_init__(self) -> None:
        """Begin full."""
        self._level = self.burst_bytes

    def take(self, octets: int, now: float) -> float:
        """Take `octets`, at most `burst_bytes`; return in how many seconds they may be written.

        They count as written then: wait before the next call.
        """
        filled = self._level + max(0.0, now - self.now) * self.bytes_per_s
        self.now = now
        self._level = min(self.burst_bytes, filled) - octets
        return max(0.0, -self._level / self.bytes_per_s)


class PacedConnection:
    """A connection whose writes keep to a rate; all else is the connection's own."""

    def __init__(
        self,
        connection: Connection,
        bytes_per_s: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take over `connection`; `clock` and `sleep` are for tests of its arithmetic."""
        self._connection = connection
        self._clock, self._sleep = clock, sleep
        piece = int(bytes_per_s * _PIECE_S)
        self._piece_bytes = min(_PIECE_MAX_BYTES, max(_PIECE_MIN_BYTES, piece))
        self._bucket = Bucket(bytes_per_s, self._piece_bytes, clock())

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        return self._connection.peer_address

    async def read_into(self, buffer: memoryview) -> int:
        """Receive as the connection does."""
        return await self._connection.read_into(buffer)

    async def write(self, *parts: Buffer) -> None:
        """Send `parts` in order, in pieces, each when its time has come.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        try:
            for batch in _pieces(parts, self._piece_bytes):
                wait_s = self._bucket.take(sum(map(len, batch)), self._clock())
                if wait_s:
                    await self._sleep(wait_s)
                await self._connection.write(*batch)
        except asyncio.CancelledError:  # between two pieces, too: nobody knows how much has left
            await self._connection.close()
            raise

    async def finish(self) -> None:
        """End this side's direction."""
        await self._connection.finish()

    async def close(self) -> None:
        """Close both directions."""
        await self._connection.close()


@dataclass(frozen=True, slots=True)
class Shape:
    """What was found to hold for a connection, read back and not just asked for.

    Attributes:
        dscp: How its packets are marked, None where that is not known.
        bytes_per_s: What it is held to, 0 for nothing.
        by: `kernel` or `session`, "" where it is held to nothing.
    """

    dscp: int | None = None
    bytes_per_s: int = 0
    by: str = ""


def shape(connection: Connection, bytes_per_s: int) -> tuple[Connection, Shape]:
    """Return the connection to use so that no more than `bytes_per_s` are sent, and what holds.

    Args:
        connection: As the transport made it.
        bytes_per_s: 0 for as fast as it goes.
    """
    dscp = connection.dscp if isinstance(connection, Shaped) else None
    if not bytes_per_s:
        return connection, Shape(dscp)
    if isinstance(connection, Shaped) and connection.pace(bytes_per_s):
        return connection, Shape(dscp, bytes_per_s, "kernel")
    return PacedConnection(connection, bytes_per_s), Shape(dscp, bytes_per_s, "session")


def _pieces(parts: tuple[Buffer, ...], size: int) -> list[list[memoryview]]:
    """Cut `parts` into batches of at most `size` bytes, short neighbours together."""
    batches: list[list[memoryview]] = []
    room = 0
    for part in parts:
        rest = memoryview(part).cast("B") if len(part) else memoryview(b"")
        while rest:
            if not room:
                batches.append([])
                room = size
            piece, rest = rest[:room], rest[room:]
            batches[-1].append(piece)
            room -= len(piece)
    return batches
