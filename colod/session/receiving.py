"""The receiver's accounting, sans I/O: DATA and SEAL in, what xl may have out.

The first epoch, a live copy, is passed on as it comes, all but its tail: from the header of the
first libxc CHECKPOINT on it is held, because with that record xl has something that it could start.
Every later epoch is held until it is whole and its digest is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from colod.errors import StreamError
from colod.session.digests import DIGESTS, make_digest, sealed
from colod.session.ending import Ending
from colod.session.progress import EpochLedger, Progress
from colod.session.sending import book_event
from colod.stream import libxc, libxl
from colod.stream.events import EpochSealed, Event, GuestMayResume, Layer, RecordSeen
from colod.stream.frames import MAX_DATA_BYTES, SEAL_BODY, Buffer
from colod.stream.parser import StreamParser
from colod.stream.record import REC_HEADER_BYTES

STREAMED_AHEAD_BYTES: Final = 8 << 20
"""How much of the first copy may wait for xl."""

PART_COST_BYTES: Final = 256
"""What a part costs in memory besides its bytes, so that many small ones are bounded too."""

_ENDS: Final = {
    (Layer.LIBXC, int(libxc.RecordType.END)),
    (Layer.LIBXL, int(libxl.RecordType.END)),
}


@dataclass(frozen=True, slots=True)
class Handing:
    """Bytes that xl is to be given, after all earlier ones.

    Attributes:
        parts: The bytes.
        cost_bytes: Memory that they take until then.
        epoch: The epoch that they make whole, to be acknowledged once xl has them; 0 for none.
        needs_pause: Whether the second pause reference must be in place before.
    """

    parts: tuple[memoryview, ...]
    cost_bytes: int
    epoch: int = 0
    needs_pause: bool = False


class Receiving:
    """Turns the sender's frames into what xl may have, within a bound of memory."""

    def __init__(self, staging_bytes: int) -> None:
        """Await the first epoch.

        Args:
            staging_bytes: Most bytes that are held; an epoch that needs more is refused.
        """
        self._staging_bytes = staging_bytes
        self._parser = StreamParser()
        self._ledger = EpochLedger()
        self._digest_name = DIGESTS[0]
        self._digest = make_digest()
        self._length = 0
        self._epoch = 1
        self._is_whole = False
        self._held: list[memoryview] = []
        self._held_begin = 0
        self._tail_begin: int | None = None
        self._held_cost = 0
        self._queued_cost = 0

    def use_digest(self, name: str) -> None:
        """Digest by what was agreed on, before anything was."""
        self._digest_name, self._digest = name, make_digest(name)

    @property
    def has_begun(self) -> bool:
        """Whether any byte of the stream has come."""
        return self._parser.offset > 0

    @property
    def handed_epoch(self) -> int:
        """The newest epoch that xl has in full, 0 for none."""
        return self._ledger.acked_epoch

    @property
    def staged_bytes(self) -> int:
        """Memory that waits for its seal or for xl."""
        return self._held_cost + self._queued_cost

    @property
    def has_room(self) -> bool:
        """Whether the next frame may be read now, or only after something was handed to xl."""
        if not self._queued_cost:
            return True
        if self._epoch == 1:
            return self._queued_cost < STREAMED_AHEAD_BYTES
        return self.staged_bytes + MAX_DATA_BYTES + PART_COST_BYTES <= self._staging_bytes

    def data(self, epoch: int, payload: Buffer, now: float) -> tuple[Handing, ...]:
        """Take a DATA frame.

        Args:
            epoch: As its header says.
            payload: Its bytes, not empty; kept, so nobody may change them any more.
            now: When it came.

        Returns:
            What xl is to be given.

        Raises:
            Ending: If the frame may not come now or the stream is not what it should be.
        """
        self._check_data(epoch)
        self._length += len(payload)
        self._digest.update(payload)
        self._parse(payload, now)
        self._held.append(memoryview(payload))
        self._held_cost += len(payload) + PART_COST_BYTES
        handings = self._stream_through() if self._epoch == 1 else ()
        self._check_staging()
        return handings

    def seal(self, epoch: int, body: Buffer) -> tuple[Handing, ...]:
        """Take a SEAL frame; return the epoch (of the first one, its tail) for xl.

        Raises:
            Ending: If the epoch is not whole or not what was sent.
        """
        if epoch != self._epoch or not self._is_whole:
            whole = "whole" if self._is_whole else "unfinished"
            message = f"SEAL of epoch {epoch} while {self._epoch} is {whole}"
            raise Ending.failed("session.protocol", message)
        if (self._length, sealed(self._digest)) != SEAL_BODY.unpack(body):
            message = f"epoch {epoch} of {self._length} bytes does not match its seal"
            raise Ending.failed("session.digest", message)
        handing = self._release_held(epoch)
        self._digest, self._length = make_digest(self._digest_name), 0
        self._epoch += 1
        self._is_whole = False
        return (handing,)

    def handed(self, handing: Handing, now: float) -> None:
        """Note that xl has all of `handing`; after this an epoch that it completes is safe."""
        self._queued_cost -= handing.cost_bytes
        if handing.epoch:
            self._ledger.acked(handing.epoch, now)

    def drop_unfinished(self) -> None:
        """Forget the epoch that will never be whole; it came from a sender that is gone."""
        self._held, self._held_cost = [], 0

    def progress(self, now: float) -> Progress:
        """Return how far the stream has come."""
        return self._ledger.report(self._parser.offset, now)

    def _check_data(self, epoch: int) -> None:
        if epoch != self._epoch or self._is_whole:
            whole = "whole" if self._is_whole else "unfinished"
            message = f"DATA of epoch {epoch} while {self._epoch} is {whole}"
            raise Ending.failed("session.protocol", message)

    def _parse(self, payload: Buffer, now: float) -> None:
        try:
            for event in self._parser.feed(payload):
                self._read(event, now)
        except StreamError as error:
            raise Ending.from_error(error) from error
        if self._parser.error is not None:
            raise Ending.from_error(self._parser.error)

    def _read(self, event: Event, now: float) -> None:
        if self._is_whole:
            message = f"a DATA frame goes on behind the end of epoch {self._epoch}"
            raise Ending.failed("session.protocol", message)
        if isinstance(event, RecordSeen) and (event.layer, event.type) in _ENDS:
            # With an END xl would complete an ordinary migration and start the copy.
            raise Ending.failed("session.protocol", "the stream has an END and no checkpoint")
        if isinstance(event, GuestMayResume) and self._tail_begin is None:
            self._tail_begin = event.offset - REC_HEADER_BYTES
        self._is_whole = isinstance(event, EpochSealed)
        book_event(self._ledger, event, now)

    def _check_staging(self) -> None:
        if self._held_cost > self._staging_bytes:
            message = (
                f"epoch {self._epoch} needs more than the {self._staging_bytes} bytes that the "
                f"secondary may stage, {self._length} of it have come: raise session.staging_mib "
                f"on the secondary"
            )
            raise Ending.failed("session.staging", message)

    def _stream_through(self) -> tuple[Handing, ...]:
        """Return what of the first copy is surely before the first CHECKPOINT's header."""
        safe = self._safe_offset()
        count = safe - self._held_begin
        if count <= 0:
            return ()
        parts, self._held = split(self._held, count)
        cost = cost_of(parts)
        self._held_begin = safe
        self._held_cost = cost_of(self._held)
        self._queued_cost += cost
        return (Handing(parts, cost),)

    def _safe_offset(self) -> int:
        if self._tail_begin is not None:
            return self._tail_begin
        offset, record_at = self._parser.offset, self._parser.record_offset
        # A header that is not complete yet may be that of the CHECKPOINT.
        return record_at if offset - record_at < REC_HEADER_BYTES else offset

    def _release_held(self, epoch: int) -> Handing:
        parts, cost = tuple(self._held), self._held_cost
        self._held, self._held_cost = [], 0
        self._held_begin = self._parser.offset
        self._queued_cost += cost
        return Handing(parts, cost, epoch, needs_pause=epoch == 1)


def cost_of(parts: Sequence[memoryview]) -> int:
    """Return the memory that parts take."""
    return sum(len(part) + PART_COST_BYTES for part in parts)


def split(
    parts: Sequence[memoryview], count: int
) -> tuple[tuple[memoryview, ...], list[memoryview]]:
    """Cut `parts` behind their first `count` bytes."""
    for index, part in enumerate(parts):
        if count < len(part):
            first = (*parts[:index], part[:count]) if count else tuple(parts[:index])
            return first, [part[count:], *parts[index + 1 :]]
        count -= len(part)
    return tuple(parts), []
