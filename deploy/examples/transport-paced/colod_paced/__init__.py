"""Transport `paced`: bare TCP that keeps to a rate, for a link that replication may not fill.

Options: those of `tcp`, and `rate_mbit_per_s`, 0.1 to 1000000, for each direction of a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Self

from colod.errors import ConfigError, PeerUnreachable
from colod.model import Credentials
from colod.transport.base import Buffer, Connection, Listener
from colod.transport.tcp import TcpTransport

_RATE = "rate_mbit_per_s"
_QUANTUM_S = 0.01


class Pace:
    """Says when bytes may go; it reads no clock."""

    def __init__(self, rate_bytes_per_s: float) -> None:
        """Keep to a rate, without bursts: what was not used is not saved up."""
        self._rate = rate_bytes_per_s
        self._free_at = 0.0

    @property
    def quantum_bytes(self) -> int:
        """Most bytes that should go at once."""
        return max(1500, int(self._rate * _QUANTUM_S))

    def delay_s(self, size_bytes: int, now: float) -> float:
        """Book `size_bytes`; return the seconds from `now` until they may go."""
        start = max(now, self._free_at)
        self._free_at = start + size_bytes / self._rate
        return start - now


class PacedConnection:
    """A connection whose writes keep to a pace."""

    def __init__(self, inner: Connection, pace: Pace) -> None:
        """Take over `inner`."""
        self._inner, self._pace = inner, pace
        self._closed = asyncio.Event()

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        return self._inner.peer_address

    async def read_into(self, buffer: memoryview) -> int:
        """Receive into `buffer`; 0 at the end of the stream."""
        return await self._inner.read_into(buffer)

    async def write(self, *parts: Buffer) -> None:
        """Send `parts` in order, each quantum when its time has come.

        Raises:
            PeerUnreachable: If the connection broke or was closed on this side.
        """
        try:
            for part in parts:
                for at in range(0, len(part), self._pace.quantum_bytes):
                    await self._write(memoryview(part)[at : at + self._pace.quantum_bytes])
        except BaseException:  # nobody knows how much of it left: nothing may follow it
            await self.close()
            raise

    async def _write(self, part: memoryview) -> None:
        delay_s = self._pace.delay_s(len(part), asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._closed.wait()
        if self._closed.is_set():
            raise PeerUnreachable(f"connection to {self.peer_address} broke: closed on this side")
        await self._inner.write(part)

    async def finish(self) -> None:
        """End this side's direction."""
        await self._inner.finish()

    async def close(self) -> None:
        """Close both directions; a write that waits for its turn fails."""
        self._closed.set()
        await self._inner.close()


class PacedListener:
    """A listener whose connections keep to a pace."""

    def __init__(self, inner: Listener, rate_bytes_per_s: float) -> None:
        """Take over `inner`."""
        self._inner, self._rate = inner, rate_bytes_per_s

    @property
    def address(self) -> str:
        """What the sender passes to `connect`."""
        return self._inner.address

    async def accept(self) -> PacedConnection:
        """Return the next connection."""
        return PacedConnection(await self._inner.accept(), Pace(self._rate))

    async def close(self) -> None:
        """Stop listening; accepted connections live on."""
        await self._inner.close()


class PacedTransport:
    """Connects two sessions by TCP, at a rate."""

    def __init__(self, inner: TcpTransport, rate_bytes_per_s: float) -> None:
        """Connect by `inner`."""
        self._inner, self._rate = inner, rate_bytes_per_s

    @classmethod
    def from_options(
        cls, options: Mapping[str, str], credentials: Credentials | None = None
    ) -> Self:
        """Make the transport from its configuration table.

        Raises:
            ConfigError: With every problem of `options`.
        """
        problems = []
        rate = options.get(_RATE, "nothing")
        try:
            mbit_per_s = float(rate)
        except ValueError:
            mbit_per_s = 0.0
        if not 0.1 <= mbit_per_s <= 1e6:
            problems.append(f"transport.{_RATE}: {rate}, want 0.1 to 1000000")
        rest = {name: value for name, value in options.items() if name != _RATE}
        try:
            inner = TcpTransport.from_options(rest, credentials)
        except ConfigError as error:
            raise ConfigError([*problems, *error.problems]) from error
        if problems:
            raise ConfigError(problems)
        return cls(inner, mbit_per_s * 1e6 / 8)

    async def listen(self) -> PacedListener:
        """Start to listen on this host."""
        return PacedListener(await self._inner.listen(), self._rate)

    async def connect(self, address: str, *, timeout_s: float) -> PacedConnection:
        """Connect to a listener's `address`."""
        inner = await self._inner.connect(address, timeout_s=timeout_s)
        return PacedConnection(inner, Pace(self._rate))
