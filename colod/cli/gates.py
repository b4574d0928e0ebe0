"""What the daemon says of a guest's output gate, as stable JSON and as text (docs/cli.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from colod.cli import layout
from colod.v1 import admin_pb2, types_pb2


def as_json(protection: admin_pb2.ProtectionStatus) -> dict[str, Any] | None:
    """Return the gate as its documented JSON object, None where there is none."""
    if not protection.HasField("gate"):
        return None
    gate = protection.gate
    return {
        "phase": _phase(gate),
        "protects": gate.is_protected,
        "sound_from_epoch": gate.sound_from or None,
        "released_epoch": gate.released_epoch,
        "barriers": gate.barriers,
        "skipped": dict(gate.skipped),
        "held_packets": gate.held_packets,
        "held_bytes": gate.held_bytes,
        "dropped_packets": gate.dropped_packets,
        "hold_s": gate.hold_s if gate.hold_s >= 0 else None,
        "uncovered": list(gate.uncovered),
        "error": gate.error or None,
    }


def facts(protection: admin_pb2.ProtectionStatus) -> Iterator[tuple[str, str]]:
    """Yield what is known of the gate, as names and texts."""
    if not protection.HasField("gate"):
        return
    gate = protection.gate
    longest = f", for {layout.seconds(gate.hold_s)} at most" if gate.hold_s >= 0 else ""
    held = f"{gate.held_packets} packets, {layout.size(gate.held_bytes)}"
    yield "output", f"gate {_phase(gate)}, holds {held}{longest}"
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(gate.skipped.items()))
    yield "barriers", f"{gate.barriers} set, skipped: {skipped or 'none'}"
    if gate.dropped_packets:
        yield (
            "overflow",
            f"{gate.dropped_packets} packets dropped for want of room (docs/output-gate.md)",
        )
    if gate.uncovered:
        yield "not held", ", ".join(gate.uncovered)
    yield "gate error", gate.error


def _phase(gate: types_pb2.Gate) -> str:
    return types_pb2.GatePhase.Name(gate.phase).removeprefix("GATE_PHASE_").lower()
