"""What the daemon says of protections, as stable JSON: for `colodctl --json` and over HTTP.

The objects are documented in docs/json.md; what is not known is null, never 0.
"""

from __future__ import annotations

from typing import Final, Literal

from colod.observe import json_types
from colod.v1 import admin_pb2, types_pb2

_LIVE: Final = "live"
_SECONDARY: Final = "secondary"


def status_json(reply: admin_pb2.StatusReply) -> json_types.StatusDocument:
    """Return a status as its documented JSON object."""
    return {
        "host": reply.host,
        "simulated": reply.simulated,
        "automation": automation_json(reply.automation),
        "protections": [protection_json(protection) for protection in reply.protections],
        "self_fence": self_fence_json(reply),
    }


def self_fence_json(reply: admin_pb2.StatusReply) -> json_types.SelfFence | None:
    """Return the host's watchdog as its documented JSON object, None where none is configured."""
    if not reply.HasField("self_fence"):
        return None
    fence = reply.self_fence
    return {
        "kind": fence.kind,
        "device": fence.device,
        "required": fence.required,
        "identity": fence.identity or None,
        "active": fence.active,
        "timeout_s": fence.timeout_s or None,
        "margin_s": fence.margin_s if fence.HasField("margin_s") else None,
        "trouble": fence.trouble or None,
    }


def automation_json(automation: admin_pb2.Automation) -> json_types.Automation:
    """Return whether the hosts act by themselves, as its documented JSON object."""
    is_known = automation.HasField("peer_paused")
    return {
        "paused": automation.paused,
        "operator": automation.operator or None,
        "reason": automation.reason or None,
        "since_unix_s": automation.since_unix_s or None,
        "peer_paused": automation.peer_paused if is_known else None,
    }


def protection_json(protection: admin_pb2.ProtectionStatus) -> json_types.Protection:
    """Return a protection as its documented JSON object."""
    return {
        "guest": protection.guest,
        "role": role_of(protection),
        "peer": protection.peer,
        "state": protection.state,
        "output_held": protection.output_held,
        "cause": protection.cause,
        "advice": protection.advice,
        "since_unix_s": protection.since_unix_s or None,
        "decided_age_s": decided_age_s(protection),
        "owner": protection.owner or None,
        "generation": protection.generation,
        "pairing": protection.pairing or None,
        "mode": protection.mode,
        "disks": protection.disks,
        "interval_ms": protection.interval_ms,
        "replica": replica_of(protection),
        "promotable": protection.promotable,
        "guest_domain": protection.guest_domain or None,
        "witness": protection.witness or None,
        "peer_contact": protection.peer_contact or None,
        "signals": [_signal_json(signal) for signal in protection.signals],
        "standstill_s": standstill_s(protection),
        "standstill_cause": protection.standstill_cause or None,
        "lag": lag_json(protection),
        "gate": gate_json(protection),
        "comparison": _comparison_json(protection),
        "link": _link_json(protection),
        "progress": _progress_json(protection),
    }


def lag_json(protection: admin_pb2.ProtectionStatus) -> json_types.Lag:
    """Return the measured lag; all of it is null when none of it was measured."""
    progress = protection.progress
    if not protection.HasField("progress") or progress.lag_s < 0:
        return {"lag_s": None, "lag_epochs": None, "lag_bytes": None}
    return {
        "lag_s": progress.lag_s,
        "lag_epochs": max(0, progress.sealed_epoch - progress.acked_epoch),
        "lag_bytes": progress.unacked_bytes,
    }


def gate_json(protection: admin_pb2.ProtectionStatus) -> json_types.Gate | None:
    """Return the output gate as its documented JSON object, None where there is none."""
    if not protection.HasField("gate"):
        return None
    gate = protection.gate
    return {
        "phase": phase_of(gate),
        "protects": gate.is_protected,
        "sound_from_epoch": gate.sound_from or None,
        "released_epoch": gate.released_epoch,
        "barriers": gate.barriers,
        "skipped": dict(gate.skipped),
        "held_packets": gate.held_packets,
        "held_bytes": gate.held_bytes,
        "dropped_packets": gate.dropped_packets,
        "hold_s": _known(gate.hold_s),
        "uncovered": list(gate.uncovered),
        "not_in_replica": list(gate.not_in_replica),
        "error": gate.error or None,
    }


def _comparison_json(protection: admin_pb2.ProtectionStatus) -> json_types.Comparison | None:
    if not protection.HasField("comparison"):
        return None
    told = protection.comparison
    return {
        "phase": told.phase or None,
        "checkpoints": told.checkpoints,
        "checkpoints_per_s": told.checkpoints_per_s,
        "made": dict(told.made),
        "unasked": told.unasked,
        "held_frames": told.held_frames,
        "held_bytes": told.held_bytes,
        "connections": told.connections,
        "primary_frames": told.primary_frames,
        "released_frames": told.released_frames,
        "lost_frames": told.lost_frames,
        "secondary_frames": told.secondary_frames,
        "matched_frames": told.matched_frames,
        "stale_frames": told.stale_frames,
        "uncut": told.uncut,
        "busy_s": told.busy_s,
        "input_lost_frames": told.input_lost_frames,
        "trouble": told.trouble or None,
    }


def _signal_json(signal: admin_pb2.PeerSignal) -> json_types.Signal:
    return {
        "name": signal.name,
        "silent": signal.is_silent,
        "heard_age_s": signal.heard_age_s if signal.HasField("heard_age_s") else None,
        "no_carrier_s": signal.no_carrier_s if signal.HasField("no_carrier_s") else None,
    }


def standstill_s(protection: admin_pb2.ProtectionStatus) -> float | None:
    """Return for how long the guest has stood still, None where that is not known."""
    return protection.standstill_s if protection.HasField("standstill_s") else None


def _link_json(protection: admin_pb2.ProtectionStatus) -> json_types.Link | None:
    if not protection.HasField("link"):
        return None
    link = protection.link
    return {
        "dscp": link.dscp if link.HasField("dscp") else None,
        "rate_bytes_per_s": link.rate_bytes_per_s or None,
        "rate_by": link.rate_by or None,
        "may_resume": link.may_resume,
        "path": link.path or None,
        "resumed": link.resumed,
        "broken_by": link.broken_by or None,
        "broken_s": link.broken_s if link.HasField("broken_s") else None,
        "kept_bytes": link.kept_bytes,
    }


def _progress_json(protection: admin_pb2.ProtectionStatus) -> json_types.Progress | None:
    if not protection.HasField("progress"):
        return None
    progress = protection.progress
    return {
        "sealed_epoch": progress.sealed_epoch,
        "acked_epoch": progress.acked_epoch,
        "stream_bytes": progress.stream_bytes,
        "unacked_bytes": progress.unacked_bytes,
        "first_copy_pages": progress.first_copy_pages,
        "domain_pages": progress.domain_pages or None,
        "epoch_pages": progress.epoch_pages,
        "epoch_bytes": progress.epoch_bytes,
        "pause_s": _known(progress.pause_s),
        "copy_s": _known(progress.copy_s),
        "ack_wait_s": _known(progress.ack_wait_s),
        "last_ack_age_s": _known(progress.last_ack_age_s),
        "peer_heard_age_s": _known(progress.peer_heard_age_s),
        "rtt_s": _known(progress.rtt_s),
        "epoch_wire_bytes": progress.epoch_wire_bytes,
        "epoch_pages_same": progress.epoch_pages_same,
        "epoch_pages_delta": progress.epoch_pages_delta,
        "epoch_pages_raw": progress.epoch_pages_raw,
        "staged_bytes": progress.staged_bytes,
        "staged_peak_bytes": progress.staged_peak_bytes,
        "staging_bytes": progress.staging_bytes,
        "stalled_s": progress.stalled_s,
        "suspended_s": progress.suspended_s if progress.HasField("suspended_s") else None,
        "waits_for": progress.waits_for or None,
    }


def history_json(reply: admin_pb2.HistoryReply) -> json_types.HistoryDocument:
    """Return changes of state as their documented JSON object."""
    return {"entries": [entry_json(entry) for entry in reply.entries]}


def drills_json(reply: admin_pb2.DrillsReply) -> json_types.DrillsDocument:
    """Return drills as their documented JSON object."""
    return {"drills": [drill_json(each) for each in reply.drills]}


def drill_json(record: admin_pb2.DrillRecord) -> json_types.Drill:
    """Return a drill as its documented JSON object."""
    return {
        "id": record.id,
        "unix_s": record.unix_s,
        "host": record.host,
        "guest": record.guest,
        "kind": record.kind,
        "epoch": record.epoch or None,
        "generation": record.generation,
        "verdict": record.verdict,
        "detail": record.detail,
        "operator": record.operator,
        "check": record.check or None,
        "network": record.network,
        "rpo_s": _known(record.rpo_s),
        "image_s": _known(record.image_s),
        "restore_s": _known(record.restore_s),
        "start_s": _known(record.start_s),
        "check_s": _known(record.check_s),
        "rto_s": _known(record.rto_s),
        "is_kept": record.is_kept,
        "discard_s": measured_by(record, record.discard_s, _SECONDARY),
        "unprotected_s": measured_by(record, record.unprotected_s, _SECONDARY, _LIVE),
        "protect_s": measured_by(record, record.protect_s, _SECONDARY, _LIVE),
        "as_if_host_died": record.as_if_host_died if record.kind == _LIVE else None,
        "decide_s": measured_by(record, record.decide_s, _LIVE),
        "outage_s": measured_by(record, record.outage_s, _LIVE),
        "failback_s": measured_by(record, record.failback_s, _LIVE),
        "failback_outage_s": measured_by(record, record.failback_outage_s, _LIVE),
        "failback_protect_s": measured_by(record, record.failback_protect_s, _LIVE),
        "end_owner": record.end_owner or None,
        "end_generation": record.end_generation or None,
    }


def measured_by(record: admin_pb2.DrillRecord, value: float, *kinds: str) -> float | None:
    """Return what only drills of some kinds measure; an older daemon does not say -1 of it."""
    return _known(value) if record.kind in kinds else None


def entry_json(entry: admin_pb2.HistoryEntry) -> json_types.Change:
    """Return one change of state as its documented JSON object."""
    return {
        "unix_s": entry.unix_s,
        "host": entry.host,
        "guest": entry.guest,
        "from_state": entry.from_state or None,
        "to_state": entry.to_state,
        "cause": entry.cause,
        "generation": entry.generation,
        "epoch": entry.epoch or None,
    }


def role_of(protection: admin_pb2.ProtectionStatus) -> Literal["primary", "secondary"] | None:
    """Return `primary` or `secondary`."""
    match protection.role:
        case types_pb2.ROLE_PRIMARY:
            return "primary"
        case types_pb2.ROLE_SECONDARY:
            return "secondary"
    return None


def replica_of(protection: admin_pb2.ProtectionStatus) -> str | None:
    """Return how the replica on this host stands, in a word."""
    return _enum_word(types_pb2.ReplicaState.Name(protection.replica), "REPLICA_STATE_")


def phase_of(gate: types_pb2.Gate) -> str:
    """Return the phase of an output gate in a word."""
    return types_pb2.GatePhase.Name(gate.phase).removeprefix("GATE_PHASE_").lower()


def decided_age_s(protection: admin_pb2.ProtectionStatus) -> float | None:
    """Return how old the facts are that the state was decided on, None before the first."""
    return protection.decided_age_s if protection.HasField("decided_age_s") else None


def _known(value: float) -> float | None:
    return value if value >= 0 else None


def _enum_word(name: str, prefix: str) -> str | None:
    word = name.removeprefix(prefix).lower()
    return None if word == "unspecified" else word
