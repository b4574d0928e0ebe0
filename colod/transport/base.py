"""The contract of a transport: it carries bytes between the two sessions of one pairing.

A kind of transport is a class found by the entry-point group `colod.transports`. Sessions put the
frames of `colod.stream.frames` on it; a transport neither reads nor changes them.
`colod.transport.testing` checks each sentence of what it must guarantee.

A transport may assume:
- one event loop, and on each connection at most one read and one write at a time, but both at once;
- that a session closes each connection and listener it was given, also those that broke;
- that who may be admitted to the pairing is proved above it, by the session's hello. It gets
  `Credentials` all the same: a transport that proves who the peer is uses those and no others, and
  reads their files anew for each connection, for they may be replaced at any time. (What `ssh`
  proves by keys of its own is how the bytes are protected; who the peer is stays with the hello.)

It must guarantee, for the bytes:
- they arrive whole, unchanged, in order and once, or the connection breaks; parts that were written
  together need not be read together, and what was written arrives without a further write;
- `write` returns only when its parts may be reused, whoever reads them when;
- `write` waits while the other side does not read: between the two at most some MiB are held;
- one direction that waits does not hold the other one up.

For their end:
- `finish` and `close` are read as 0 by the other side after every byte before them, again and
  again; after `finish` the other direction goes on. A `close` that finds the buffers full does not
  wait for them, and may be read as a break instead: whoever has to be believed finishes first;
- a connection that broke (a reset, a time-out, bytes that changed) is `PeerUnreachable`, never an
  end. Where a medium cannot tell a death from a close, as TCP cannot when only the process dies, an
  end is what is read: a session therefore takes no end for a good one without a frame that says so.
  A transport that protects its bytes can tell, and must;
- writing to a side that closed fails within a bounded number of bytes;
- `close` wakes whoever waits on this side, with `PeerUnreachable`, as does every later call; it
  waits for nobody, raises nothing, and may be called again.

For cancellation and time:
- a cancelled `write` leaves the connection closed, for nobody knows how much of it left;
- a cancelled `read_into` or `accept` loses nothing; a cancelled `connect` leaves nothing behind;
- `connect` returns or fails within its `timeout_s`, also where somebody listens and is silent;
- whatever was closed, refused or cancelled leaves no descriptor and no task behind.

For listening:
- every `listen` has an address of its own, and `connect` to it reaches it and nobody else;
- connections come in turn or at the same time, and outlive their listener; closing the listener
  fails those that nobody has accepted yet, and an `accept` that waits, with `NetworkError`;
- a stranger who connects and is silent, or talks nonsense, holds nobody up; a transport that proves
  who the peer is does not return it from `accept`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable

from colod.model import Credentials

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

    async def finish(self) -> None:
        """End this side's direction: nothing more will be written; reading goes on.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        ...

    async def close(self) -> None:
        """Close both directions; never raises and never waits for the other side."""
        ...

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        ...


@runtime_checkable
class Shaped(Protocol):
    """What a connection offers besides, where its bytes leave by a socket of its own.

    Without it a session holds itself to its rate, and how packets are marked is not known.
    """

    @property
    def dscp(self) -> int | None:
        """The DSCP, 0 to 63, that the kernel says it puts on what is sent; None: none."""
        ...

    def pace(self, bytes_per_s: int) -> bool:
        """Have the kernel send at most `bytes_per_s`; return whether it says that it will."""
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
            NetworkError: If the listener itself is broken or was closed.
        """
        ...

    async def close(self) -> None:
        """Stop listening; accepted connections live on. May be called again."""
        ...


class Transport(Protocol):
    """A way to reach the other session."""

    @classmethod
    def from_options(
        cls, options: Mapping[str, str], credentials: Credentials | None = None
    ) -> Self:
        """Make the transport from its configuration table.

        Args:
            options: The table's keys except `kind`, all as text.
            credentials: The hosts' names and the files of `[tls]`. The daemon and its sessions
                always give them; None is for transports that have no use for them.

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
            PeerUnreachable: If nobody answers within `timeout_s`, or the address is none.
            PeerRefused: If somebody answers who is not the peer, or who does not take this host
                for its peer.
        """
        ...
