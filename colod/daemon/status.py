"""What operators see of a protection, made of its service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from colod.daemon.colo import is_colo
from colod.daemon.facts import replica_code
from colod.daemon.history import Change
from colod.daemon.host import Host
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.failover.effects import State
from colod.failover.view import Answer, Contact, Copy, Replica, Wanted, replica_of
from colod.model import Role
from colod.observe.checks import WITNESS_ANSWERS, WITNESS_AWAY
from colod.v1 import admin_pb2, types_pb2
from colod.v1.session_pb2 import SessionStatus

_ROLES: Final = {
    Role.PRIMARY: types_pb2.ROLE_PRIMARY,
    Role.SECONDARY: types_pb2.ROLE_SECONDARY,
}
_ORDERS: Final = {
    Wanted.SUSPENDED: "colodctl suspend",
    Wanted.UNPROTECTED: "colodctl unprotect",
}
WITNESS_SHOWN: Final = {
    Answer.READ: WITNESS_ANSWERS,
    Answer.STALE: "not asked yet",
    Answer.UNREACHABLE: WITNESS_AWAY,
}


def reply_of(
    host: Host,
    services: Iterable[ProtectionService],
    *,
    simulated: bool,
    last_drill: Callable[[str], float | None],
    last_image: Callable[[str], float | None],
) -> admin_pb2.StatusReply:
    """Return the status of some protections of this host.

    Args:
        host: This host.
        services: The protections.
        simulated: Whether its Xen is simulated.
        last_drill: Returns when the last drill of a guest passed, None without one.
        last_image: Returns when its newest image by schedule was begun, 0 for none yet; None where
            none are to be written here.
    """
    reply = admin_pb2.StatusReply(
        host=host.parts.host,
        simulated=simulated,
        automation=_automation(host.parts),
        self_fence=_self_fence(host),
    )
    for each in services:
        status = status_of(each)
        passed_at = last_drill(each.guest)
        if passed_at is None and each.journal.role is Role.SECONDARY:
            passed_at = 0.0
        if passed_at is not None:
            status.drill_last_success_unix_s = passed_at
        if (written_at := last_image(each.guest)) is not None:
            status.image_last_scheduled_unix_s = written_at
            status.image_every_s = host.parts.limits.image_every_s
        reply.protections.append(status)
    return reply


def _self_fence(host: Host) -> admin_pb2.SelfFence | None:
    """Return how this host's watchdog stands; None where none is configured."""
    if host.self_fence is None or not host.self_fence.is_configured:
        return None
    standing = host.self_fence.standing
    return admin_pb2.SelfFence(
        kind=standing.kind,
        device=str(standing.device),
        required=standing.is_required,
        identity=standing.identity,
        active=standing.is_active,
        timeout_s=standing.timeout_s,
        margin_s=standing.margin_s,
        trouble=standing.trouble,
    )


def _automation(parts: Parts) -> admin_pb2.Automation:
    pause = parts.automation.pause
    reply = admin_pb2.Automation(peer_paused=parts.heartbeat.peer_paused)
    if pause is not None:
        reply.paused, reply.since_unix_s = True, pause.unix_s
        reply.operator, reply.reason = pause.operator, pause.reason
    return reply


def history_of(changes: Iterable[Change]) -> admin_pb2.HistoryReply:
    """Return changes of state as operators get them."""
    entries = [
        admin_pb2.HistoryEntry(
            unix_s=each.unix_s,
            host=each.host,
            guest=each.guest,
            from_state=each.from_state,
            to_state=each.to_state,
            cause=each.cause,
            generation=each.generation,
            epoch=each.epoch,
        )
        for each in changes
    ]
    return admin_pb2.HistoryReply(entries=entries)


def status_of(service: ProtectionService) -> admin_pb2.ProtectionStatus:
    """Return the status of one protection."""
    journal, view = service.journal, service.facts.view
    terms, record = journal.protection, journal.record
    return admin_pb2.ProtectionStatus(
        guest=service.guest,
        role=_ROLES[journal.role],
        peer=journal.peer,
        state=service.state,
        cause=service.trouble or _ordered(service),
        advice=_advice(service),
        generation=journal.generation,
        pairing=journal.pairing or "",
        owner=record.owner if record else "",
        mode=terms.mode,
        disks=terms.disks,
        interval_ms=terms.interval_ms,
        progress=_progress(service),
        replica=replica_code(view),
        output_held=service.state is State.PROTECTED and service.is_current,
        since_unix_s=service.since_unix_s,
        witness=WITNESS_SHOWN[service.facts.last_answer],
        peer_contact=view.contact if view else Contact.SILENT,
        guest_domain=_domain(service),
        gate=_gate(service),
        measures=_measures(service),
        link=_link(service),
        promotable=_is_promotable(service),
        decided_age_s=_decided_age_s(service),
        signals=_signals(service),
        standstill_s=service.watch.lasts_s,
        standstill_cause=service.watch.cause,
        comparison=_comparison(service),
    )


def _ordered(service: ProtectionService) -> str:
    """Return what was ordered and is not done yet, "" for nothing."""
    if service.is_drained():
        return ""
    if service.journal.wanted in _ORDERS:
        return f"{_ORDERS[service.journal.wanted]} was ordered, and is not done yet"
    return "a drain was ordered, and is not done yet" if service.facts.draining else ""


def _is_promotable(service: ProtectionService) -> bool:
    """Return whether the replica may be promoted; one that follows shows that it is still wanted.

    Otherwise only the witness knows: the owner may have gone on alone.
    """
    view = service.facts.view
    if view is None or not view.is_replica_promised:
        return False
    replica = replica_of(view)
    is_known = service.facts.answer is Answer.READ
    return replica is Replica.FOLLOWING or (replica is Replica.FROZEN and is_known)


def _signals(service: ProtectionService) -> Iterable[admin_pb2.PeerSignal]:
    return [
        admin_pb2.PeerSignal(
            name=each.name,
            heard_age_s=each.heard_age_s,
            no_carrier_s=each.no_carrier_s,
            is_silent=each.is_silent,
        )
        for each in service.facts.signs()
    ]


def _decided_age_s(service: ProtectionService) -> float | None:
    if not service.has_looked or service.decided_on is None:
        return None
    return time.monotonic() - service.decided_on


def _advice(service: ProtectionService) -> str:
    """Return what the rules advise; where a person is the witness, how to answer."""
    facts, decision = service.facts, service.decision
    waits_for_word = service.is_witness_manual and facts.answer is Answer.UNREACHABLE
    if decision.state is State.MANUAL_HOLD and waits_for_word:
        guest, peer = service.guest, service.journal.peer
        return (
            f"if {peer} is off for certain: colodctl fence-confirm {guest} --reason …; "
            f"else bring it back"
        )
    return decision.advice


def _said(service: ProtectionService) -> SessionStatus | None:
    """Return what the session last said, None without one that runs."""
    session = service.session
    return None if session is None or session.process is None else session.status


def _progress(service: ProtectionService) -> types_pb2.Progress | None:
    """Return what the session last said, its ages brought up to now; None without a session."""
    session, said = service.session, _said(service)
    if session is None or said is None:
        return None
    progress = types_pb2.Progress()
    progress.CopyFrom(said.progress)
    since_s = time.monotonic() - session.status_at
    for name in ("lag_s", "last_ack_age_s", "peer_heard_age_s"):
        if (age_s := getattr(progress, name)) >= 0:
            setattr(progress, name, age_s + since_s)
    return progress


def _gate(service: ProtectionService) -> types_pb2.Gate | None:
    """Return what the session last said of the output gate; None without one."""
    said = _said(service)
    return said.gate if said is not None and said.HasField("gate") else None


def _link(service: ProtectionService) -> types_pb2.SessionLink | None:
    """Return what the session last said of its connection; None without one."""
    said = _said(service)
    return said.link if said is not None and said.HasField("link") else None


def _comparison(service: ProtectionService) -> types_pb2.Comparison | None:
    """Return what the session last said of comparing the two copies; None without that."""
    said = _said(service)
    return said.comparison if said is not None and said.HasField("comparison") else None


def _measures(service: ProtectionService) -> Mapping[str, types_pb2.Histogram]:
    session = service.session
    return session.status.measures if session is not None and session.status else {}


def _domain(service: ProtectionService) -> str:
    view = service.facts.view
    if view is None:
        return "unknown"
    if view.guest is Copy.ABSENT and view.incoming:
        return "replica, compared" if is_colo(service.journal.protection) else "replica, paused"
    return view.guest
