"""The sender's accounting, sans I/O: libxl's bytes as they come, and as they are sent.

The two happen at different times: `feed` when libxl wrote, `digest` and `seal` when the link takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from colod.errors import StreamError
from colod.measures import Measures
from colod.session.digests import DIGESTS, make_digest, sealed
from colod.session.ending import Ending
from colod.session.progress import EpochLedger, Progress
from colod.session.staging import Data, Sealed
from colod.stream.events import (
    EpochOpened,
    EpochSealed,
    Event,
    GuestMayResume,
    HeaderSeen,
    PagesSeen,
)
from colod.stream.frames import SEAL_BODY
from colod.stream.parser import StreamParser

_KIB_PER_PAGE = 4


@dataclass(frozen=True, slots=True)
class Seal:
    """The epoch is whole; `body` is the payload of its SEAL."""

    epoch: int
    body: bytes


class Sending:
    """Cuts libxl's stream at its epochs, digests it, and books what was acknowledged."""

    def __init__(self, listen: Callable[[Event], None] = lambda _: None) -> None:
        """Stand at the stream's beginning.

        Args:
            listen: Called with each event of the stream, in order.
        """
        self._listen = listen
        self._parser = StreamParser()
        self._ledger = EpochLedger()
        self._digest_name = DIGESTS[0]
        self._digest = make_digest()
        self._length = 0
        self._sent_epoch = 0

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next byte from libxl belongs to."""
        return self._parser.epoch

    def use_digest(self, name: str) -> None:
        """Digest by what was agreed on, before anything was."""
        self._digest_name, self._digest = name, make_digest(name)

    @property
    def measures(self) -> Measures:
        """What was measured of every epoch."""
        return self._ledger.measures

    @property
    def acked_epoch(self) -> int:
        """The newest acknowledged epoch, 0 for none."""
        return self._ledger.acked_epoch

    @property
    def unacked_epoch(self) -> int:
        """The oldest epoch that was sent whole and is not acknowledged, 0 for none."""
        acked = self._ledger.acked_epoch
        return acked + 1 if self._sent_epoch > acked else 0

    @property
    def error(self) -> StreamError | None:
        """What is wrong with the stream; nothing from there on was or will be put into frames."""
        return self._parser.error

    @property
    def record_rest_bytes(self) -> int:
        """How many of the next bytes surely belong to the present epoch, as far as is known."""
        return self._parser.record_rest_bytes

    def feed(self, chunk: memoryview, now: float) -> Iterator[Data | Sealed]:
        """Yield what the next bytes of the stream are, in order; nothing is kept of them.

        Exhaust it, then look at `error`, before the next call.

        Args:
            chunk: The bytes as they were read.
            now: When that was.
        """
        base = self._parser.offset
        try:
            events = self._parser.feed(chunk)
        except StreamError:
            return  # kept as `error`
        taken = 0
        for event in events:
            book_event(self._ledger, event, now)
            self._listen(event)
            if isinstance(event, EpochSealed):
                if event.offset - base > taken:
                    yield Data(event.epoch, chunk[taken : event.offset - base])
                taken = event.offset - base
                yield Sealed(event.epoch)
        if self._parser.error is None and len(chunk) > taken:
            yield Data(self._parser.epoch, chunk[taken:])

    def digest(self, payload: memoryview) -> None:
        """Digest the next bytes that are sent; may run in a thread beside everything else."""
        self._digest.update(payload)
        self._length += len(payload)

    def seal(self, epoch: int) -> Seal:
        """Return the seal of the bytes digested since the last one: it is about to be sent."""
        seal = Seal(epoch, SEAL_BODY.pack(self._length, sealed(self._digest)))
        self._digest, self._length = make_digest(self._digest_name), 0
        self._sent_epoch = epoch
        return seal

    def sent(self, epoch: int, wire_bytes: int, pages: tuple[int, int, int] | None = None) -> None:
        """Book how many bytes on the link `epoch` took.

        Args:
            epoch: Its number.
            wire_bytes: Headers of frames included.
            pages: With deltas: how many of its pages were the same, changed in part, and new.
        """
        self._ledger.sent(epoch, wire_bytes, pages or (0, 0, 0))

    def acknowledged(self, epoch: int, now: float) -> None:
        """Book an ACK.

        Raises:
            Ending: If that epoch was not sent whole or was acknowledged before.
        """
        if not self._ledger.acked_epoch < epoch <= self._sent_epoch:
            newest, acked = self._sent_epoch, self._ledger.acked_epoch
            message = f"ACK of epoch {epoch}, with {newest} sent and {acked} acknowledged"
            raise Ending.failed("session.protocol", message)
        self._ledger.acked(epoch, now)

    def progress(self, now: float) -> Progress:
        """Return how far the stream has come, and how long the guest waits for it."""
        progress = self._ledger.report(self._parser.offset, now)
        progress.suspended_s = self._ledger.suspended_s(now)
        return progress


def book_event(ledger: EpochLedger, event: Event, now: float) -> None:
    """Book what the next event of the stream says; `now` is when its bytes came."""
    match event:
        case EpochOpened():
            ledger.opened(event.epoch, event.offset, now)
        case HeaderSeen():
            ledger.domain_pages(domain_pages(event.config))
        case PagesSeen():
            ledger.pages(event.pages)
        case GuestMayResume():
            ledger.may_resume(event.epoch, now)
        case EpochSealed():
            ledger.sealed(event.epoch, event.offset, now)


def domain_pages(config: bytes) -> int:
    """Return the pages that the guest may have by its configuration, 0 if that cannot be told."""
    try:
        kib = json.loads(config)["b_info"]["max_memkb"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return kib // _KIB_PER_PAGE if type(kib) is int and 0 < kib < 1 << 50 else 0
