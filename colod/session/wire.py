"""How an epoch's bytes go out: as they are, or as page deltas. Either way the seal is of the bytes.

Digest and deltas are worked out in one thread, beside the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

from colod.session.link import Link
from colod.session.sending import Sending
from colod.stream.frames import HEADER, SEAL_BODY, Buffer, FrameType

if TYPE_CHECKING:
    from colod.stream.delta.encoder import Encoder

"""Digesting less than this takes less time than to hand it to a thread."""

T = TypeVar("T")


class Wire(Protocol):
    """Sends one epoch after the other."""

    async def send(self, epoch: int, payload: memoryview) -> None:
        """Send the next bytes of `epoch`; return when they are not needed any more."""

    async def seal(self, epoch: int) -> None:
        """Send the end of `epoch`."""


class _Counted:
    """A link whose use is counted."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.octets = 0

    async def send(self, kind: FrameType, payload: Buffer, epoch: int) -> None:
        self.octets += HEADER.size + len(payload)
        await self._link.send(kind, payload, epoch=epoch)


class PlainWire:
    """Sends bytes as they are."""

    def __init__(self, link: Link, sending: Sending) -> None:
        """Send on `link`; `sending` digests and accounts."""
        self._link = _Counted(link)
        self._sending = sending

    async def send(self, epoch: int, payload: memoryview) -> None:
        """Send bytes, and digest them."""
        self._sending.digest(payload)  # sooner done than another thread is woken
        await self._link.send(FrameType.DATA, payload, epoch)

    async def seal(self, epoch: int) -> None:
        """Send the end of `epoch`."""
        seal = self._sending.seal(epoch)
        octets = self._link.octets + HEADER.size + SEAL_BODY.size
        self._sending.sent(epoch, octets)
        await self._link.send(FrameType.SEAL, seal.body, epoch)
        self._link.octets = 0


class DeltaWire:
    """Sends what the other side does not have yet.

    The stores keep no undo: a pairing is one connection, and what was sent is never sent again.
    """

    def __init__(self, link: Link, sending: Sending, encoder: Encoder) -> None:
        """Send on `link`; `sending` digests and accounts; `encoder` stands at the beginning."""
        self._link = _Counted(link)
        self._sending = sending
        self._encoder = encoder
        self._worker = ThreadPoolExecutor(1, "deltas")
        self._before = (0, 0, 0)

    async def send(self, epoch: int, payload: memoryview) -> None:
        """Encode bytes, and send what is ready."""
        await self._send(epoch, await self._work(lambda: self._encode(payload)))

    async def seal(self, epoch: int) -> None:
        """Send the rest of `epoch` and its end."""
        await self._send(epoch, await self._work(self._encoder.seal))
        seal = self._sending.seal(epoch)
        octets = self._link.octets + HEADER.size + SEAL_BODY.size
        self._sending.sent(epoch, octets, self._pages())
        await self._link.send(FrameType.SEAL, seal.body, epoch)
        self._link.octets = 0

    def _encode(self, payload: memoryview) -> list[bytes]:
        self._sending.digest(payload)
        return self._encoder.feed(payload)

    async def _send(self, epoch: int, blocks: list[bytes]) -> None:
        for block in blocks:
            await self._link.send(FrameType.DELTA, block, epoch)

    def _pages(self) -> tuple[int, int, int]:
        """Return how many pages of this epoch were the same, changed in part, and new."""
        counts = self._encoder.counts
        now = (counts.same, counts.delta, counts.raw)
        before, self._before = self._before, now
        return (now[0] - before[0], now[1] - before[1], now[2] - before[2])

    async def _work(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)
