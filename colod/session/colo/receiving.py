"""The receiver's accounting in COLO, sans I/O: each checkpoint's first record goes to xl at once.

CHECKPOINT_NEW begins an epoch, and the primary goes on only when the secondary has answered it. All
that follows is held until the epoch is whole, as in Remus.

Spec: Xen docs/specs/libxl-migration-stream.pandoc, "CHECKPOINT_STATE".
"""

from __future__ import annotations

from colod.session.receiving import Handing, Receiving, cost_of, split
from colod.stream.events import CheckpointStateSeen, Event
from colod.stream.frames import Buffer
from colod.stream.record import REC_HEADER_BYTES, padded_length

_STATE_BYTES = REC_HEADER_BYTES + padded_length(4)


class ColoReceiving(Receiving):
    """Turns the sender's frames into what xl may have.

    Attributes:
        news: How many checkpoints the primary has begun.
    """

    def __init__(self, staging_bytes: int) -> None:
        """Await the first epoch, in `staging_bytes` at most."""
        super().__init__(staging_bytes)
        self.news = 0
        self._passed_to = 0

    def data(self, epoch: int, payload: Buffer, now: float) -> tuple[Handing, ...]:
        """Take a DATA frame, as `Receiving.data` does."""
        handings = super().data(epoch, payload, now)
        count = self._passed_to - self._held_begin
        if self._epoch == 1 or count <= 0:
            return handings
        parts, self._held = split(self._held, count)
        cost = cost_of(parts)
        self._held_begin = self._passed_to
        self._held_cost = cost_of(self._held)
        self._queued_cost += cost
        return (*handings, Handing(parts, cost))

    def _read(self, event: Event, now: float) -> None:
        super()._read(event, now)
        if isinstance(event, CheckpointStateSeen):
            self.news += 1
            self._passed_to = event.offset + _STATE_BYTES
