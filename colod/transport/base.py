"""The contract of a transport: it carries bytes between the two sessions of one pairing.

A kind of transport is a class found by the entry-point group `colod.transports`. Sessions put the
frames of `colod.stream.frames` on it; a transport neither reads nor changes them. What it must
guarantee: bytes arrive in order and unchanged or the connection fails; `write` waits while the
other side does not take the bytes (bounded buffers); end of file is reported as such and means
nothing else; a cancelled `write` leaves the connection closed, since nobody knows how much of it
left; a call that waits when its connection is closed on this side fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self

Buffer = bytes | bytearray | memoryview


class Connection(Protocol):
    """A two-way byte stream to the other session. One reader and one writer at a time."""

    async def read_into(self, buffer: memoryview) -> int:
        """Receive bytes as they arrive into `buffer`; return how many, 0 at the stream's end.

        Args:
            buffer: Where to put them, at least one byte long.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        ...

    async def write(self, *parts: Buffer) -> None:
        """Send `parts` in order; return when they may be reused, having been buffered elsewhere.

        Raises:
            PeerUnreachable: If the connection broke; some of it may have been sent.
        """
        ...

    async def close(self) -> None:
        """Close both directions; never raises and never waits for the other side."""
        ...

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        ...


class Listener(Protocol):
    """Where a receiver waits for its sender."""

    @property
    def address(self) -> str:
        """What the sender passes to `connect`."""
        ...

    async def accept(self) -> Connection:
        """Return the next connection; who it is, the session's hello decides.

        Raises:
            NetworkError: If the listener itself is broken.
        """
        ...

    async def close(self) -> None:
        """Stop listening; accepted connections live on."""
        ...


class Transport(Protocol):
    """A way to reach the other session."""

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """Make the transport from its configuration table.

        Raises:
            ConfigError: With every problem of `options`.
        """
        ...

    async def listen(self) -> Listener:
        """Start to listen on this host.

        Raises:
            NetworkError: If the address cannot be used.
        """
        ...

    async def connect(self, address: str, *, timeout_s: float) -> Connection:
        """Connect to a listener's `address`.

        Raises:
            PeerUnreachable: If nobody answers within `timeout_s`.
        """
        ...
