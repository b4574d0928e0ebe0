"""Examine this host and what it depends on; each finding says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address

from colod.daemon.adoption import strangers
from colod.daemon.doctor_colo import examine_colo
from colod.daemon.host import Host
from colod.daemon.peer_calls import PEER_CALLS
from colod.daemon.selffence import Standing
from colod.errors import ColodError, ConfigError, NotFound, SelfFenceError
from colod.failover.effects import State
from colod.failover.view import Journal, Link
from colod.fencing.watchdog import Found
from colod.model import Credentials, GuestName, parse_guest_name
from colod.rpc import versions
from colod.rpc.admin_group import GROUP
from colod.rpc.tls import TlsIdentity, load_identity
from colod.toolstack import inventory, preflight
from colod.v1 import admin_pb2

_SOON_DAYS = 30
_SEE_SELF_FENCE = "see docs/fencing.md, 'Self-fencing'"
_BAD = frozenset({State.MANUAL_HOLD, State.QUARANTINED, State.LOST_RACE})


def _finding(severity: str, subject: str, text: str, advice: str = "") -> admin_pb2.Finding:
    return admin_pb2.Finding(severity=severity, subject=subject, text=text, advice=advice)


async def examine(host: Host, guest: str) -> Sequence[admin_pb2.Finding]:
    """Return what is well and what is not, of `guest` or of everything when it is empty.

    Raises:
        NotFound: If there is no such protection or domain.
    """
    findings = [
        *await _toolstack(host),
        *await examine_colo(host, guest),
        *await _peer(host),
        *_networks(host),
        *listen_findings(host.unheard),
        *exposed_findings(await asyncio.to_thread(host.exposed)),
        *await asyncio.to_thread(
            certificate_findings, host.parts.credentials, host.parts.identity, datetime.now(UTC)
        ),
        *transport_findings(
            host.parts.transport_kind, host.parts.transport_options, host.parts.backup_options
        ),
        *await _witness(host),
        *await _self_fence(host),
        *_strangers(host),
        *_automation(host),
    ]
    for name, service in host.services.items():
        if guest in ("", name):
            severity = "error" if service.state in _BAD else "ok"
            text = f"{service.state}: {service.trouble}".rstrip(": ")
            findings.append(_finding(severity, name, text, service.decision.advice))
            link = service.session.link if service.session else Link.NONE
            findings += gate_findings(service.journal, link)
    if guest:
        findings += await _guest(host, guest)
    return findings


def _automation(host: Host) -> Sequence[admin_pb2.Finding]:
    pause, theirs = host.parts.automation.pause, host.parts.heartbeat.peer_paused
    found = []
    if pause is not None:
        who = pause.operator or "an unknown operator"
        text = f"paused by {who}: {pause.reason}: no takeover and no new pairing by itself"
        found.append(
            _finding("warning", "automation", text, "when the work is done: colodctl unpause")
        )
    if theirs is not None and theirs != (pause is not None):
        there = "is paused" if theirs else "is not paused"
        found.append(
            _finding(
                "warning",
                "automation",
                f"it {there} on {host.parts.peer}, unlike here",
                "colodctl pause or unpause, which tells both hosts",
            )
        )
    return found


async def _toolstack(host: Host) -> Sequence[admin_pb2.Finding]:
    try:
        facts = await host.parts.toolstack.host_facts()
    except ColodError as error:
        return [_finding("error", "xen", str(error), "is this a Xen host, and xl installed?")]
    kind = "simulated Xen" if facts.simulated else "Xen"
    found = [_finding("ok", "xen", f"{kind} {facts.xen_version} on {facts.machine}")]
    if facts.autoballoon:
        found.append(
            _finding(
                "error",
                "xl.conf",
                "autoballoon is on: receiving one guest would block every other xl create",
                'set autoballoon="off", and dom0_mem= on Xen\'s command line',
            )
        )
    return found


async def _peer(host: Host) -> Sequence[admin_pb2.Finding]:
    try:
        reply = await PEER_CALLS.run(host.parts.peer_client.greet)
    except ColodError as error:
        return [_finding("error", "peer", str(error), error.advice)]
    text = f"{host.parts.peer} answers, colod {reply.software}"
    if reply.software != versions.SOFTWARE:
        return [_finding("warning", "peer", text, f"this host has colod {versions.SOFTWARE}")]
    return [_finding("ok", "peer", text)]


def _networks(host: Host) -> Sequence[admin_pb2.Finding]:
    """Say over which networks the peer's daemon is heard, where there are several."""
    networks = host.parts.heartbeat.networks
    if len(networks) < 2:
        return []
    advice = "see to it before another network fails; compare peer.more_listen on that host"
    return [
        _finding("warning", f"network {each.name}", each.error, advice)
        if each.error
        else _finding("ok", f"network {each.name}", "the peer's daemon is heard")
        for each in networks
    ]


def listen_findings(unheard: Mapping[str, str]) -> Sequence[admin_pb2.Finding]:
    """Return what the daemon was to listen on and does not."""
    free = "once the address is there and free: systemctl restart colod"
    group = "make the group, or name another; then: systemctl restart colod"
    return [
        _finding("error", subject, why, group if subject == GROUP else free)
        for subject, why in unheard.items()
    ]


def exposed_findings(exposed: Sequence[str]) -> Sequence[admin_pb2.Finding]:
    """Return what is to be said of files of the configuration that others may read."""
    return [_finding("warning", "configuration", each, "chmod 600 it") for each in exposed]


def certificate_findings(
    files: Credentials, in_use: TlsIdentity, now: datetime
) -> Sequence[admin_pb2.Finding]:
    """Return what is to be said of this host's certificate, as its files are now.

    Args:
        files: Where they are.
        in_use: What the daemon read when it began.
        now: The time.
    """
    try:
        identity = load_identity(files.ca, files.certificate, files.key, host=files.host)
    except ConfigError as error:
        advice = "mend it: until then no pairing begins over tls, nor would the daemon start"
        return [_finding("error", "tls", problem, advice) for problem in error.problems]
    if problems := identity.date_problems(now):
        advice = "mend it or the clock: until then the hosts do not hear each other"
        return [_finding("error", "tls", problem, advice) for problem in problems]
    end = identity.valid_until
    text = f"certificate of {files.host}, valid until {end:%F}"
    if (end - now).days < _SOON_DAYS:
        advice = f"where the authority's key is: colodctl pki issue {files.host} --force"
        return [_finding("warning", "tls", text, advice)]
    if identity != in_use:
        return [_finding("warning", "tls", f"{text}: not in use yet", "systemctl restart colod")]
    return [_finding("ok", "tls", text)]


def transport_findings(
    kind: str, options: Mapping[str, str], backup: Mapping[str, str] | None = None
) -> Sequence[admin_pb2.Finding]:
    """Return what is to be said of how sessions reach each other, over each path."""
    found = [_path_finding(f"transport {kind}", kind, options)]
    if backup is not None:
        found.append(_path_finding("transport backup", kind, backup))
    return found


def _path_finding(subject: str, kind: str, options: Mapping[str, str]) -> admin_pb2.Finding:
    if kind == "tcp" and not _is_loopback(options.get("listen", "127.0.0.1")):
        text = "neither encrypted nor protected against change on the way"
        return _finding("warning", subject, text, "use tls, or a link of the two hosts alone")
    return _finding("ok", subject, "in use for new pairings")


def _is_loopback(listen: str) -> bool:
    try:
        return ip_address(listen).is_loopback
    except ValueError:
        return listen == "localhost"


async def _witness(host: Host) -> Sequence[admin_pb2.Finding]:
    kind = host.parts.witness_kind
    try:
        # A name that no guest can have: the question is only whether it answers.
        await host.parts.witness.read(GuestName("doctor"))
    except ColodError as error:
        return [_finding("error", f"witness {kind}", str(error), error.advice)]
    if kind == "manual":
        text = "manual: nothing fails over by itself"
        return [_finding("warning", "witness", text, "use etcd where you can")]
    return [_finding("ok", f"witness {kind}", "answers")]


async def _self_fence(host: Host) -> Sequence[admin_pb2.Finding]:
    fence = host.self_fence
    if fence is None or not fence.is_configured:
        return []
    try:
        found = await fence.look()
    except SelfFenceError as error:
        return self_fence_findings(fence.standing, None, str(error))
    return self_fence_findings(fence.standing, found)


def self_fence_findings(
    standing: Standing, found: Found | None, missing: str = ""
) -> Sequence[admin_pb2.Finding]:
    """Return what is to be said of this host's watchdog; nothing of it is a proof for others.

    Args:
        standing: How it stands with the daemon.
        found: What the kernel tells of it.
        missing: Why it tells nothing.
    """
    subject, severity = "watchdog", "error" if standing.is_required else "warning"
    if found is None:
        return [_finding(severity, subject, missing, _SEE_SELF_FENCE)]
    if standing.trouble:
        severity = "error" if standing.is_active else severity
        return [_finding(severity, subject, standing.trouble, _SEE_SELF_FENCE)]
    name = f"{standing.device} ({found.identity or standing.identity or 'unknown driver'})"
    if not standing.is_active and found.has_way_out is False:
        text = f"{name} was made not to be stopped (nowayout), so it is not used"
        return [_finding(severity, subject, text, _SEE_SELF_FENCE)]
    if not standing.is_active and found.is_running:
        text = f"{name} runs already: another program holds it"
        return [_finding(severity, subject, text, _SEE_SELF_FENCE)]
    if not standing.is_active:
        return [_finding("ok", subject, f"{name}, armed once a guest may be taken over")]
    text = f"{name} armed, {standing.timeout_s} s"
    if standing.timeout_s != standing.wanted_s:
        text = f"{text} instead of {standing.wanted_s} s, as its driver has it"
        return [_finding("warning", subject, text, _SEE_SELF_FENCE)]
    return [_finding("ok", subject, text)]


def gate_findings(journal: Journal, link: Link) -> Sequence[admin_pb2.Finding]:
    """Return that a gate is there which no session releases: what the guest says stays in it."""
    if not journal.gate or link is not Link.NONE:
        return []
    return [
        _finding(
            "warning",
            journal.protection.guest,
            "its output gate is closed and its session is gone: the guest is mute",
            "it is opened or discarded once ownership is settled; colodctl status tells what for",
        )
    ]


def _strangers(host: Host) -> Sequence[admin_pb2.Finding]:
    journals = [service.journal for service in host.services.values()]
    return [
        _finding(
            "error",
            path.name,
            f"a session that the journal does not know, in {path}",
            "see docs/failure-modes.md, 'A session nobody knows'",
        )
        for path in strangers(host.parts.sessions, journals)
    ]


async def _guest(host: Host, name: str) -> Sequence[admin_pb2.Finding]:
    toolstack = host.parts.toolstack
    try:
        guest = parse_guest_name(name)
    except ValueError as error:
        raise NotFound(f"no guest: {error}") from error
    is_here = await toolstack.find(guest) is not None
    if not is_here and guest not in host.services:
        raise NotFound(f"neither a protection nor a domain {guest} on this host")
    files = await host.file_warnings(guest)
    if not is_here:
        return [_finding("warning", guest, text) for text in files]
    config = await toolstack.domain_config(guest)
    facts = await toolstack.host_facts()
    stock = await inventory.take_stock(preflight.needs_of(config), simulated=facts.simulated)
    warnings = preflight.warnings(config=config, facts=facts, inventory=stock)
    return [_finding("warning", guest, text) for text in (*warnings, *files)]
