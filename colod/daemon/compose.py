"""Make the ports of this host from its configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog

from colod.config import Config
from colod.daemon.automation import Automation
from colod.daemon.contact import Carriers, Heartbeat
from colod.daemon.domains import Domains
from colod.daemon.history import History
from colod.daemon.holds import Holds
from colod.daemon.journal import JournalStore
from colod.daemon.limits import Limits
from colod.daemon.parts import Parts
from colod.daemon.peer_calls import PEER_OFFERS
from colod.daemon.quarantine_log import QuarantineLog
from colod.errors import ConfigError
from colod.fencing.base import Fencer
from colod.fencing.none import NoFencer
from colod.model import GuestName, HostName
from colod.observe.logs import Event
from colod.plugins import load
from colod.rpc.peer_client import PeerClient
from colod.rpc.tls import TlsIdentity
from colod.toolstack.discard import SIMULATION_VARIABLE
from colod.toolstack.launch import launcher
from colod.toolstack.xl import XlToolstack
from colod.v1 import peer_pb2
from colod.witness.base import Stored, Witness
from colod.witness.content import pack
from colod.witness.manual import ManualWitness

_log = structlog.get_logger()

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OFFER_S = 10.0
# A receiver takes frames of a megabyte from the heap and gives them back to it. Left alone, the C
# library returns such memory to the kernel each time, which then has to clear it again: a fifth of
# the receiver's processor time. What stays is bounded by the staging memory. Source: mallopt(3).
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
_KEPT_ENVIRONMENT = ("PATH", "LANG", "HOME", "COLOD_SIMXEN_DIR")


def boot_id() -> str:
    """Return what tells this boot of the host from all others.

    The kernel's boot id (spec: random(4)), or that of a simulated host that has lost its power: the
    machine below it went on.
    """
    simulated = Path(os.environ.get(SIMULATION_VARIABLE, "/nonexistent")) / "boot_id"
    return (simulated if simulated.exists() else _BOOT_ID).read_text().strip()


def session_environment() -> Mapping[str, str]:
    """Return the environment of sessions and their xl: the same whoever starts them."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **_MALLOC, **kept}


def compose(
    config: Config,
    tls: TlsIdentity,
    *,
    own_views: Callable[[], Sequence[peer_pb2.ProtectionView]],
    on_news: Callable[[], None],
    carriers: Carriers,
    is_rescue: bool = False,
) -> Parts:
    """Return the ports.

    Args:
        config: The configuration, checked.
        tls: This host's identity.
        own_views: What heartbeats say; called in their thread.
        on_news: Called in that thread when the peer said something new.
        carriers: Knows which links are down.
        is_rescue: Whether to go on without a fencer that cannot be made: nobody is fenced then.

    Raises:
        ConfigError: If a plug-in is missing or its options are wrong.
    """
    host = HostName(config.host.name)
    peer = HostName(config.peer.name)
    if host == peer:
        raise ConfigError([f"peer.name: {peer} is this host itself"])
    transport = load("colod.transports", config.transport.kind)
    for options in config.transport.paths:
        transport.from_options(options, config.credentials)
    toolstack = XlToolstack(tuple(config.toolstack.xl), tuple(config.toolstack.xenstore))
    limits = Limits.of(config)
    heartbeat = Heartbeat(
        {
            address: PeerClient(address, tls, config.peer.name)
            for address in (config.peer.address, *config.peer.more_addresses)
        },
        limits=limits,
        own_views=own_views,
        on_news=on_news,
    )
    peer_client = PeerClient(config.peer.address, tls, config.peer.name)
    boot = boot_id()
    sessions = config.host.runtime_directory / "sessions"
    sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Parts(
        host=host,
        peer=peer,
        boot=boot,
        toolstack=toolstack,
        domains=Domains(toolstack),
        witness=_witness(config, host, peer_client),
        witness_kind=config.witness.kind,
        fencer=_fencer(config, host, is_needed=not is_rescue),
        has_fencing=config.fencing.kind != "none",
        peer_client=peer_client,
        heartbeat=heartbeat,
        carriers=carriers,
        journal=JournalStore(config.host.state_directory / "protections"),
        holds=Holds(config.host.runtime_directory / "held"),
        automation=Automation(config.host.state_directory / "paused.json"),
        quarantine=QuarantineLog(config.host.state_directory / "quarantine", boot),
        history=History(config.host.state_directory / "history.jsonl"),
        launcher=launcher(config.toolstack.launcher),
        sessions=sessions,
        simulated_argv=tuple(config.toolstack.xl),
        session_command=tuple(config.session.command),
        session_env=session_environment(),
        transport_kind=config.transport.kind,
        transport_options=config.transport.path_options,
        backup_options=config.transport.backup_options,
        credentials=config.credentials,
        identity=tls,
        limits=limits,
    )


def _fencer(config: Config, host: HostName, *, is_needed: bool) -> Fencer:
    try:
        kind: type[Fencer] = load("colod.fencers", config.fencing.kind)
        return kind.from_config(config.fencing.options, host=host)
    except ConfigError as error:
        if is_needed:
            raise
        _log.error(Event.FENCE_FAILED, error=str(error), advice=error.advice)
        return NoFencer()


def _witness(config: Config, host: HostName, peer_client: PeerClient) -> Witness:
    kind = load("colod.witnesses", config.witness.kind)
    witness: Witness = kind.from_config(config.witness.options, host=host)
    if isinstance(witness, ManualWitness):
        witness.attach(partial(_offer, peer_client))
    return witness


async def _offer(peer_client: PeerClient, guest: GuestName, stored: Stored) -> bool:
    """Offer a record to the peer, whose host is the other half of a witness of kind `manual`."""
    request = peer_pb2.OfferRecordRequest(
        guest=guest, content=pack(stored), revision=stored.revision
    )
    reply = await PEER_OFFERS.run(peer_client.offer_record, request, timeout_s=_OFFER_S)
    return reply.accepted
