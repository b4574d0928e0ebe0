"""What the daemon says of a guest's output gate, as text."""

from __future__ import annotations

from collections.abc import Iterator

from colod.cli import layout
from colod.observe.documents import phase_of
from colod.v1 import admin_pb2


def facts(protection: admin_pb2.ProtectionStatus) -> Iterator[tuple[str, str]]:
    """Yield what is known of the gate, as names and texts."""
    if not protection.HasField("gate"):
        return
    gate = protection.gate
    longest = f", for {layout.seconds(gate.hold_s)} at most" if gate.hold_s >= 0 else ""
    held = f"{gate.held_packets} packets, {layout.size(gate.held_bytes)}"
    yield "output", f"gate {phase_of(gate)}, holds {held}{longest}"
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(gate.skipped.items()))
    yield "barriers", f"{gate.barriers} set, skipped: {skipped or 'none'}"
    if gate.dropped_packets:
        yield (
            "overflow",
            f"{gate.dropped_packets} packets dropped for want of room (docs/output-gate.md)",
        )
    if gate.uncovered:
        yield "not held", ", ".join(gate.uncovered)
    if gate.not_in_replica:
        names = ", ".join(gate.not_in_replica)
        yield "not in replica", f"{names}: added since; take in by colodctl suspend, then resume"
    yield "gate error", gate.error
