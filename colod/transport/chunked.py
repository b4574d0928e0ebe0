"""Chunks over a byte stream whose end says nothing: so an end that was meant is told from a death.

What carries the stream (an ssh, a forwarding sshd) closes it in the same way whether the other
process ended it, died, or the link broke. So each side writes chunks, 4 bytes of length before the
bytes, big-endian, and a length of 0 where its direction ends; an end without that is a break.
Before them each side writes `PREFACE`, the caller first.
"""

from __future__ import annotations

from typing import Final

from colod.errors import PeerRefused, PeerUnreachable
from colod.transport.base import Buffer
from colod.transport.groups import groups
from colod.transport.sockets import SocketConnection

PREFACE: Final = b"colod-chunks/1\r\n"
"""What each side says first; the caller does not wait for a listener that says something else."""

CHUNK_MAX_BYTES: Final = 1 << 20
"""Longest chunk that is sent or taken."""

_LENGTH_BYTES: Final = 4
_END: Final = bytes(_LENGTH_BYTES)
_CUT: Final = "it ended without a mark of its end: cut off, or a process died"


class ChunkedConnection:
    """A `Connection` that can tell an end from a break, over one that cannot."""

    def __init__(self, carrier: SocketConnection, *, name: str = "") -> None:
        """Take over `carrier`; `hail` or `answer` comes next.

        Args:
            carrier: Connected, nothing said on it yet.
            name: What to call the other end in messages, where the carrier does not know it.
        """
        self._carrier = carrier
        self._name = name or carrier.peer_address
        self._length = bytearray(_LENGTH_BYTES)
        self._length_filled = 0
        self._left_bytes = 0  # of the chunk that is being read
        self._has_ended = False
        self._is_writing = False
        self._is_finished = False
        self._is_over = False

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        return self._name

    async def hail(self) -> None:
        """Say the preface first, and hear the listener's.

        Raises:
            PeerRefused: If somebody else answers.
            PeerUnreachable: If nobody does.
        """
        await self._carrier.write(PREFACE)
        await self._hear_preface()

    async def answer(self) -> None:
        """Hear the caller's preface, and say this side's.

        Raises:
            PeerRefused: If the caller says something else.
            PeerUnreachable: If it breaks off.
        """
        await self._hear_preface()
        await self._carrier.write(PREFACE)

    async def read_into(self, buffer: memoryview) -> int:
        """Receive into `buffer`; 0 at the end that the other side made.

        Raises:
            PeerUnreachable: If the connection broke, or was closed on this side.
        """
        if self._is_over:
            raise self._broken("closed on this side")
        while not (self._left_bytes or self._has_ended):
            await self._read_length()
        if self._has_ended:
            return 0
        count = await self._receive(buffer[: self._left_bytes])
        self._left_bytes -= count
        return count

    async def write(self, *parts: Buffer) -> None:
        """Send `parts` in order; return when the kernel has all of them.

        Raises:
            PeerUnreachable: If the connection broke, or was finished or closed on this side.
        """
        if self._is_finished or self._is_over:
            raise self._broken("closed on this side")
        self._is_writing = True  # and stays so if it breaks off: no mark may follow half a chunk
        for chunk in groups(parts, CHUNK_MAX_BYTES):
            size_bytes = sum(map(len, chunk))
            await self._carrier.write(size_bytes.to_bytes(_LENGTH_BYTES), *chunk)
        self._is_writing = False

    async def finish(self) -> None:
        """Mark the end of this side's direction; reading goes on.

        Raises:
            PeerUnreachable: If the connection broke or was closed on this side.
        """
        if self._is_over:
            raise self._broken("closed on this side")
        if not self._is_finished:
            self._is_finished = True
            await self._carrier.write(_END)

    async def close(self) -> None:
        """Close both directions at once; the end is marked if the kernel takes the mark.

        It does not while a write waits or was broken off: what the other side reads is a break.
        """
        if not (self._is_over or self._is_writing or self._is_finished):
            self._carrier.send_at_once(_END)
        self._is_over = True
        await self._carrier.close()

    async def abandon(self) -> None:
        """Close without a mark: nothing that was said here may be taken for all."""
        self._is_over = True
        await self._carrier.close()

    async def _hear_preface(self) -> None:
        heard = bytearray(len(PREFACE))
        filled = 0
        while filled < len(heard):
            filled += await self._receive(memoryview(heard)[filled:])
            if not PREFACE.startswith(heard[:filled]):
                raise PeerRefused(f"{self._name} is no session of colod: it says {heard[:filled]}")

    async def _read_length(self) -> None:
        at = self._length_filled
        self._length_filled += await self._receive(memoryview(self._length)[at:])
        if self._length_filled < _LENGTH_BYTES:
            return
        self._length_filled = 0
        self._left_bytes = int.from_bytes(self._length)
        self._has_ended = self._left_bytes == 0
        if self._left_bytes > CHUNK_MAX_BYTES:
            length, self._left_bytes = self._left_bytes, 0
            await self.abandon()
            raise self._broken(f"a chunk of {length} bytes, at most {CHUNK_MAX_BYTES} are taken")

    async def _receive(self, buffer: memoryview) -> int:
        count = await self._carrier.read_into(buffer)
        if not count:
            raise self._broken(_CUT)
        return count

    def _broken(self, reason: str) -> PeerUnreachable:
        return PeerUnreachable(f"connection to {self._name} broke: {reason}")
