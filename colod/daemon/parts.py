"""What every protection of a host shares: its ports and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colod.daemon.automation import Automation
from colod.daemon.contact import Carriers, Heartbeat
from colod.daemon.domains import Domains
from colod.daemon.history import History
from colod.daemon.holds import Holds
from colod.daemon.journal import JournalStore
from colod.daemon.limits import Limits
from colod.daemon.quarantine_log import QuarantineLog
from colod.fencing.base import Fencer
from colod.model import Credentials, HostName
from colod.rpc.peer_client import PeerClient
from colod.rpc.tls import TlsIdentity
from colod.toolstack.launch import Launcher
from colod.toolstack.port import Toolstack
from colod.witness.base import Witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The ports of this host.

    Attributes:
        host: This host.
        peer: The other one.
        boot: The kernel's boot id.
        toolstack: Xen.
        domains: Its domains, listed for all protections at once.
        witness: Keeper of the ownership records.
        witness_kind: Its name in the configuration.
        fencer: Proves that the peer cannot write.
        has_fencing: Whether it can prove anything.
        peer_client: The peer's daemon.
        heartbeat: Signs of life of the peer's daemon.
        carriers: Knows which links to the peer are down.
        journal: This host's memory.
        holds: What was paused and the journal could not take.
        automation: Whether it acts by itself.
        quarantine: What is known of the copies that lost their guest.
        history: What operators may want to know later.
        launcher: Starts sessions outside the daemon's fate.
        sessions: Directory of the sessions' directories.
        simulated_argv: The simulated Xen's command, where this host has that.
        session_command: What runs a session.
        session_env: Its whole environment.
        transport_kind: How sessions reach each other.
        transport_options: That transport's table.
        backup_options: The same for the second path, None without one.
        credentials: What it may prove the hosts with.
        identity: What this host proves itself with to the peer's daemon.
        limits: Times and sizes.
    """

    host: HostName
    peer: HostName
    boot: str
    toolstack: Toolstack
    domains: Domains
    witness: Witness
    witness_kind: str
    fencer: Fencer
    has_fencing: bool
    peer_client: PeerClient
    heartbeat: Heartbeat
    carriers: Carriers
    journal: JournalStore
    holds: Holds
    automation: Automation
    quarantine: QuarantineLog
    history: History
    launcher: Launcher
    sessions: Path
    simulated_argv: tuple[str, ...]
    session_command: tuple[str, ...]
    session_env: Mapping[str, str]
    transport_kind: str
    transport_options: Mapping[str, str]
    backup_options: Mapping[str, str] | None
    credentials: Credentials
    identity: TlsIdentity
    limits: Limits
