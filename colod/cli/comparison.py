"""What the daemon says of comparing two running copies, as text."""

from __future__ import annotations

from collections.abc import Iterator

from colod.cli import layout
from colod.v1 import admin_pb2


def facts(protection: admin_pb2.ProtectionStatus) -> Iterator[tuple[str, str]]:
    """Yield what is known of the comparison, as names and texts."""
    if not protection.HasField("comparison"):
        return
    told = protection.comparison
    held = f"holds {told.held_frames} frames, {layout.size(told.held_bytes)}"
    yield "comparison", f"{told.phase or 'not begun'}, {held}"
    made = dict(told.made)
    if told.unasked:
        made["by libxl's clock"] = told.unasked
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(made.items()))
    rate = f"{told.checkpoints_per_s:.1f} a second"
    yield "checkpoints", f"{told.checkpoints}, {rate}{f': {reasons}' if reasons else ''}"
    if told.lost_frames or told.input_lost_frames:
        lost = f"{told.lost_frames} of the guest, {told.input_lost_frames} for its copy"
        yield "lost frames", f"{lost} (docs/colo.md)"
    yield "comparison trouble", told.trouble
