"""What the daemon says of protections, as text."""

from __future__ import annotations

from collections.abc import Iterator

from colod.cli import comparison, gates, layout
from colod.observe.checks import is_current
from colod.observe.documents import decided_age_s, lag_json, replica_of, role_of
from colod.v1 import admin_pb2, types_pb2

_WITHOUT_REPLICA = frozenset({"STOPPED", "ALONE", "SUSPENDED", "GUEST_SHUTDOWN"})
_NOT_HELD = "(output not held)"
_UNKNOWN = "unknown"


def shown_state(protection: admin_pb2.ProtectionStatus) -> str:
    """Return the state in the words for operators: REPLICATING always says what it lacks.

    One that was decided too long ago says so: the daemon may have been unable to look since.
    """
    age_s = decided_age_s(protection)
    if age_s is not None and not is_current(protection):
        return f"{_shown_state(protection)}, as of {layout.seconds(age_s)} ago"
    return _shown_state(protection)


def _shown_state(protection: admin_pb2.ProtectionStatus) -> str:
    state = protection.state
    if state == "REPLICATING":
        return f"{state} {_NOT_HELD}"
    percent = first_copy_percent(protection)
    return f"{state} {percent} %" if state == "SYNCING" and percent is not None else state


def first_copy_percent(protection: admin_pb2.ProtectionStatus) -> int | None:
    """Return how much of the guest's memory was copied once, or None where that is not known."""
    progress = protection.progress
    if not progress.domain_pages:
        return None
    return min(100, 100 * progress.first_copy_pages // progress.domain_pages)


def status_lines(reply: admin_pb2.StatusReply, columns: int) -> Iterator[str]:
    """Yield the table of all protections, then what an operator should know or do."""
    if reply.simulated:
        yield f"{reply.host}: simulated Xen"
    yield from _automation_lines(reply.automation, columns)
    if reply.HasField("self_fence"):
        yield f"{reply.host}: {shown_watchdog(reply.self_fence)}"
    if not reply.protections:
        yield f"{reply.host} protects nothing and holds no replica"
        return
    rows = [
        [
            protection.guest,
            role_of(protection) or "-",
            protection.peer,
            shown_state(protection),
            shown_lag(protection),
        ]
        for protection in reply.protections
    ]
    heads = ["GUEST", "ROLE", "PEER", "STATE", "LAG"]
    yield from layout.table(heads, rows, columns, names=(0, 2))
    for protection in reply.protections:
        if protection.standstill_cause:
            yield ""
            text = f"stands still, {_standstill_text(protection)}"
            yield from layout.paragraph(protection.guest, text, columns)
        if protection.advice:
            yield ""
            yield from layout.paragraph(protection.guest, protection.cause, columns)
            yield from layout.paragraph("hint", protection.advice, columns)


def _automation_lines(automation: admin_pb2.Automation, columns: int) -> Iterator[str]:
    """Yield what keeps the hosts from acting by themselves."""
    if automation.paused:
        since = layout.instant(automation.since_unix_s) if automation.since_unix_s else _UNKNOWN
        said = f"{paused_by(automation)} since {since}: {automation.reason}"
        yield from layout.paragraph("automation", said, columns)
    if automation.HasField("peer_paused") and automation.peer_paused != automation.paused:
        theirs = "paused" if automation.peer_paused else "not paused"
        yield from layout.paragraph("automation", f"{theirs} on the other host", columns)


def paused_by(automation: admin_pb2.Automation) -> str:
    """Return that automation is paused, and by whom."""
    return f"paused by {automation.operator or _UNKNOWN}"


def shown_watchdog(fence: admin_pb2.SelfFence) -> str:
    """Return how the host's watchdog stands."""
    name = f"watchdog {fence.device}{' (simulated)' if fence.kind == 'simulated' else ''}"
    trouble = f": {fence.trouble}" if fence.trouble else ""
    if not fence.active:
        return f"{name} is not armed{trouble}"
    # A whole number, and only when it runs down: a screen that is watched stands still otherwise.
    left = f", {max(0, round(fence.margin_s))} s left" if fence.trouble else ""
    return f"{name} armed, {fence.timeout_s:g} s{left}{trouble}"


def protection_lines(reply: admin_pb2.StatusReply, columns: int) -> Iterator[str]:
    """Yield all that is known of each protection of the reply."""
    for protection in reply.protections:
        yield from layout.pairs([*_facts(reply, protection)], columns)


def shown_lag(protection: admin_pb2.ProtectionStatus) -> str:
    """Return the age of the oldest state that only this host has."""
    if protection.state in _WITHOUT_REPLICA:
        return "-"
    lag_s = lag_json(protection)["lag_s"]
    return _UNKNOWN if lag_s is None else layout.seconds(lag_s)


def _facts(
    reply: admin_pb2.StatusReply, protection: admin_pb2.ProtectionStatus
) -> Iterator[tuple[str, str]]:
    since = layout.instant(protection.since_unix_s)
    xen = " (simulated Xen)" if reply.simulated else ""
    yield "guest", protection.guest
    yield "role", f"{role_of(protection) or _UNKNOWN} on {reply.host}{xen}"
    yield "peer", f"{protection.peer}, contact {protection.peer_contact or _UNKNOWN}"
    yield "signals", "; ".join(_signal_text(each) for each in protection.signals)
    yield "state", f"{shown_state(protection)}{f' since {since}' if since else ''}"
    yield "cause", protection.cause
    if protection.standstill_cause:
        yield "stands still", _standstill_text(protection)
    yield "hint", protection.advice
    yield "owner", f"{protection.owner or _UNKNOWN}, generation {protection.generation}"
    yield "witness", protection.witness or _UNKNOWN
    yield "domain here", protection.guest_domain or _UNKNOWN
    yield "replica", replica_of(protection) or _UNKNOWN
    yield "pairing", protection.pairing
    yield (
        "terms",
        (f"{protection.mode}, every {protection.interval_ms} ms, disks {protection.disks}"),
    )
    yield "lag", _lag_text(protection)
    yield from gates.facts(protection)
    yield from comparison.facts(protection)
    if protection.HasField("link"):
        yield "link", link_text(protection.link)
    if protection.HasField("progress"):
        yield from _progress_facts(protection.progress)


def _signal_text(signal: admin_pb2.PeerSignal) -> str:
    age = f"heard {layout.seconds(signal.heard_age_s)} ago"
    parts = [age if signal.HasField("heard_age_s") else "never heard"]
    if signal.is_silent:
        parts.append("silent")
    if signal.HasField("no_carrier_s"):
        parts.append(f"no link for {layout.seconds(signal.no_carrier_s)}")
    return f"{signal.name} {', '.join(parts)}"


def _standstill_text(protection: admin_pb2.ProtectionStatus) -> str:
    return f"for {layout.seconds(protection.standstill_s)}: {protection.standstill_cause}"


def link_text(link: types_pb2.SessionLink) -> str:
    """Return what is special about the connection between the sessions; "" where nothing is."""
    parts = []
    if link.may_resume:
        broken = f"broken for {layout.seconds(link.broken_s)}, being mended"
        parts.append(broken if link.HasField("broken_s") else f"over the {link.path} path")
    if link.resumed:
        times = "once" if link.resumed == 1 else f"{link.resumed} times"
        parts.append(f"mended {times}")
    if link.broken_by:
        parts.append(f"last break: {link.broken_by}")
    parts += [f"dscp {link.dscp}"] if link.HasField("dscp") and link.dscp else []
    if link.rate_bytes_per_s:
        parts.append(f"at most {link.rate_bytes_per_s * 8 / 1e6:g} Mbit/s, by the {link.rate_by}")
    return ", ".join(parts)


def _progress_facts(progress: types_pb2.Progress) -> Iterator[tuple[str, str]]:
    yield "epochs", f"{progress.sealed_epoch} sealed, {progress.acked_epoch} acknowledged"
    if progress.epoch_bytes:
        parts = (
            f"{name} {layout.seconds(value)}"
            for name, value in (
                ("pause", progress.pause_s),
                ("copy", progress.copy_s),
                ("acknowledgement", progress.ack_wait_s),
            )
            if value >= 0
        )
        amount = f"{progress.epoch_pages} pages, {layout.size(progress.epoch_bytes)}"
        yield "last epoch", ", ".join([amount, *parts])


def _lag_text(protection: admin_pb2.ProtectionStatus) -> str:
    lag = lag_json(protection)
    if protection.state in _WITHOUT_REPLICA or lag["lag_s"] is None:
        return shown_lag(protection)
    assert lag["lag_bytes"] is not None, "all of a lag is measured, or none of it"
    epochs = f"{lag['lag_epochs']} epoch{'' if lag['lag_epochs'] == 1 else 's'}"
    return f"{layout.seconds(lag['lag_s'])}, {epochs}, {layout.size(lag['lag_bytes'])}"
