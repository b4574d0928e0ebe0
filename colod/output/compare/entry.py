"""One packet that was taken in: the frames it came in, and whether it still waits."""

from __future__ import annotations

from collections.abc import Sequence

from colod.output.compare.decisions import Reason, Side

OVERHEAD_BYTES = 1024
"""What is counted for each waiting packet besides its bytes: the objects that describe it."""


class Entry:
    """A packet of one side.

    Attributes:
        side: Who sent it.
        frames: What it came in; several if it was fragmented. Of a clamped segment, its new form.
        arrived: When the last of them came, in seconds.
        cost_bytes: What is counted while it waits: frames, what was parsed out of them, objects.
        is_settled: Whether it may be released (primary) or forgotten (secondary).
        overdue: Why a checkpoint is due when it has waited too long.
    """

    __slots__ = ("arrived", "cost_bytes", "frames", "is_settled", "overdue", "side")

    def __init__(self, side: Side, frames: Sequence[bytes], arrived: float) -> None:
        """Begin as one that waits."""
        self.side = side
        self.frames = frames
        self.arrived = arrived
        self.cost_bytes = 2 * sum(map(len, frames)) + OVERHEAD_BYTES
        self.is_settled = False
        self.overdue = Reason.UNMATCHED
