"""How an epoch's bytes go out: as they are, or as page deltas. Either way the seal is of the bytes.

Digest and deltas are worked out in one thread, beside the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from colod.session.link import Link
from colod.session.sending import Sending
from colod.stream.frames import HEADER, SEAL_BODY, Buffer, FrameType

if TYPE_CHECKING:
    from colod.stream.delta.encoder import Encoder

_SHORT_BYTES: Final = 16 << 10
"""A payload up to this is copied, so that it may be sent with others in one call."""

_BATCH_BYTES: Final = 128 << 10
_BATCH_PARTS: Final = 64
"""So much waits for more at most, and never while a long payload or nothing at all comes next."""

T = TypeVar("T")


class Wire(Protocol):
    """Sends one epoch after the other."""

    async def send(self, epoch: int, payload: memoryview) -> None:
        """Send the next bytes of `epoch`; return when they are not needed any more."""

    async def seal(self, epoch: int) -> None:
        """Send the end of `epoch`."""

    async def flush(self) -> None:
        """Send what is still kept back to be sent with more."""


class _Batched:
    """A link whose use is counted, and on which short frames wait for others."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._parts: list[Buffer] = []
        self._waiting_bytes = 0
        self.octets = 0

    async def send(self, kind: FrameType, payload: Buffer, epoch: int) -> None:
        header = self._link.header(kind, epoch, len(payload))
        count = len(header) + len(payload)
        self.octets += count
        self._waiting_bytes += count
        if len(payload) <= _SHORT_BYTES:
            self._parts.append(b"".join((header, payload)))
            if self._waiting_bytes < _BATCH_BYTES and len(self._parts) < _BATCH_PARTS:
                return
        else:
            self._parts += (header, payload)
        await self.flush()

    async def make_way(self, payload: memoryview) -> None:
        """Send what waits, where `payload` will take its time: no seal waits for that."""
        if len(payload) > _SHORT_BYTES:
            await self.flush()

    async def flush(self) -> None:
        if self._parts:
            parts, self._parts, self._waiting_bytes = self._parts, [], 0
            await self._link.send_all(parts)


class _Sealing:
    """What both ways share: they batch, and the seal is of the bytes before any encoding."""

    def __init__(self, link: Link, sending: Sending) -> None:
        self._link = _Batched(link)
        self._sending = sending

    async def flush(self) -> None:
        """Send what is still kept back."""
        await self._link.flush()

    async def _seal(self, epoch: int, pages: tuple[int, int, int] | None = None) -> None:
        """Send the end of `epoch`; `pages` as `Sending.sent` has it."""
        seal = self._sending.seal(epoch)
        octets = self._link.octets + HEADER.size + SEAL_BODY.size
        self._sending.sent(epoch, octets, pages)
        await self._link.send(FrameType.SEAL, seal.body, epoch)
        self._link.octets = 0


class PlainWire(_Sealing):
    """Sends bytes as they are."""

    async def send(self, epoch: int, payload: memoryview) -> None:
        """Send bytes, and digest them."""
        await self._link.make_way(payload)
        self._sending.digest(payload)  # sooner done than another thread is woken
        await self._link.send(FrameType.DATA, payload, epoch)

    async def seal(self, epoch: int) -> None:
        """Send the end of `epoch`."""
        await self._seal(epoch)


class DeltaWire(_Sealing):
    """Sends what the other side does not have yet.

    The stores keep no undo: what was sent is never encoded again, not even where its bytes go out
    over another connection once more.
    """

    def __init__(self, link: Link, sending: Sending, encoder: Encoder) -> None:
        """Send on `link`; `sending` digests and accounts; `encoder` stands at the beginning."""
        super().__init__(link, sending)
        self._encoder = encoder
        self._worker = ThreadPoolExecutor(1, "deltas")
        self._before = (0, 0, 0)

    async def send(self, epoch: int, payload: memoryview) -> None:
        """Encode bytes, and send what is ready."""
        await self._link.make_way(payload)
        await self._send(epoch, await self._work(lambda: self._encode(payload)))

    async def seal(self, epoch: int) -> None:
        """Send the rest of `epoch` and its end."""
        await self._send(epoch, await self._work(self._encoder.seal))
        await self._seal(epoch, self._pages())

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
