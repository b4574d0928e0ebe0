"""Two hosts, their network and a witness: real daemons over ports in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, cast

from colod.daemon.automation import Automation
from colod.daemon.domains import Domains
from colod.daemon.host import Host
from colod.daemon.limits import Limits
from colod.daemon.parts import Parts
from colod.errors import PeerUnreachable
from colod.failover.effects import State
from colod.model import Credentials, Disks, GuestName, HostName
from tests.sim.fencing import SimFencer
from tests.sim.ports import (
    SimCarriers,
    SimHandle,
    SimHeartbeat,
    SimHistory,
    SimHolds,
    SimJournal,
    SimLauncher,
    SimPeerClient,
    SimQuarantine,
)
from tests.sim.replication import Directory, Processes, Receiver, Sender, Session
from tests.sim.virtual import VirtualTime
from tests.sim.witness import SimWitness, Store
from tests.sim.xen import SimDomain, SimToolstack, SimXen

GUEST = GuestName("g1")
ALPHA, BETA = HostName("alpha"), HostName("beta")
SILENCE_S = 3.0
SLACK_S = 1e-6


class Without(StrEnum):
    """What a run does without, for the observer to see that it is needed."""

    NOTHING = "nothing"
    ARBITRATION = "arbitration"
    SECOND_PAUSE = "second pause"
    ACKNOWLEDGEMENT = "acknowledgement"


class Incarnation:
    """One run of a host's daemon. What a dead one still does reaches nothing."""

    def __init__(self, host: SimHost) -> None:
        self.host = host
        self.world = host.world
        self.is_dead = False
        self.daemon: Host | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    async def step(self, seconds: float) -> None:
        """Let time pass in a port; a daemon that was killed meanwhile never returns from it."""
        await asyncio.sleep(seconds)
        await self.host.goes.wait()
        if self.is_dead:
            raise asyncio.CancelledError


class SimHost:
    """A host: what survives a power cut, and what does not."""

    def __init__(self, world: World, name: HostName) -> None:
        self.world = world
        self.name = name
        self.goes = asyncio.Event()
        self.goes.set()
        self.is_on = True
        self.boot = "boot-1"
        self.disk: dict[str, bytes] = {}
        self.holds: dict[str, tuple[str, int]] = {}
        self.disk_is_full = False
        self.disk_delay_s = 0.0
        self.xl_delay_s = 0.0
        self.xl_failures = 0.0
        self.xen = SimXen(self)
        self.directories: dict[str, Directory] = {}
        self.life: Incarnation | None = None

    @property
    def peer(self) -> SimHost:
        """The other one."""
        return self.world.hosts[BETA if self.name == ALPHA else ALPHA]

    @property
    def daemon(self) -> Host | None:
        """The daemon's core, while it runs."""
        return None if self.life is None else self.life.daemon

    def replicates(self, domain: SimDomain) -> bool:
        """Tell whether an xl still saves the domain."""
        return any(
            isinstance(each.session, Sender)
            and each.session.xl_lives
            and each.session.domain is domain
            for each in self.directories.values()
        )

    def sessions(self) -> list[Session]:
        """Return the living ones."""
        found = [each.session for each in self.directories.values() if each.session]
        return [each for each in found if each.is_alive]

    # --- the daemon ---------------------------------------------------------------------------

    def start_daemon(self) -> None:
        """Start it, as systemd would."""
        if not self.is_on or self.life is not None:
            return
        self.life = life = Incarnation(self)
        life.tasks.append(asyncio.get_running_loop().create_task(self._serve(life)))

    async def _serve(self, life: Incarnation) -> None:
        heartbeat = SimHeartbeat(life)
        parts = self._parts(life, heartbeat)
        life.daemon = host = Host(parts)
        host.adopt_all()
        await heartbeat.beat_for_ever()

    def kill_daemon(self) -> None:
        """SIGKILL it; sessions go on."""
        life, self.life = self.life, None
        if life is None:
            return
        life.is_dead = True
        if life.daemon is not None:
            life.daemon.defect.cancel()
            life.tasks += life.daemon._tasks.values()
            for service in life.daemon.services.values():
                if service.session is not None:
                    cast("SimHandle", service.session).forget()
        for task in life.tasks:
            task.cancel()

    def life_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the present daemon do that, for as long as it lives."""
        assert self.life is not None
        self.life.tasks.append(asyncio.get_running_loop().create_task(work))

    def check_daemon(self) -> None:
        """A defect of the daemon's is a defect of this run."""
        life = self.life
        if life is None:
            return
        for task in life.tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise AssertionError(f"{self.name}: the daemon fell") from task.exception()
        if life.daemon is not None and life.daemon.defect.done():
            raise AssertionError(f"{self.name}: a defect") from life.daemon.defect.exception()

    # --- the machine --------------------------------------------------------------------------

    def cut_power(self) -> None:
        """Everything but the disk is gone."""
        self.kill_daemon()
        self.is_on = False
        for directory in self.directories.values():
            session = directory.session
            if session is not None:
                session.task.cancel()
                self.world.processes.end(session.process)
                if session.xl is not None:
                    self.world.processes.end(session.xl)
        self.directories = {}
        for domain in list(self.xen.domains.values()):
            self.xen.destroy(domain)
        self.goes.set()

    def power_on(self) -> None:
        """Boot."""
        if not self.is_on:
            self.is_on = True
            self.boot = f"boot-{self.world.now:.3f}"
            self.xen = SimXen(self)
        self.start_daemon()

    def freeze(self) -> None:
        """The whole machine stands still, as in a hypervisor's stall."""
        self.goes.clear()
        self.world.changed()

    def thaw(self) -> None:
        """And goes on as if nothing had been."""
        self.goes.set()
        self.world.changed()

    def _parts(self, life: Incarnation, heartbeat: SimHeartbeat) -> Parts:
        toolstack = SimToolstack(life)
        return Parts(
            host=self.name,
            peer=self.peer.name,
            boot=self.boot,
            toolstack=toolstack,
            automation=Automation(Path("/nonexistent/paused.json")),
            quarantine=cast("Any", SimQuarantine(life)),
            domains=Domains(toolstack),
            witness=cast("Any", SimWitness(self.world.store, self.name, life, self.world.random)),
            witness_kind="simulated",
            fencer=cast("Any", SimFencer(life)),
            has_fencing=self.world.disks is Disks.SHARED,
            peer_client=cast("Any", SimPeerClient(life)),
            heartbeat=heartbeat,
            carriers=SimCarriers(life),
            journal=cast("Any", SimJournal(life)),
            holds=cast("Any", SimHolds(life)),
            history=cast("Any", SimHistory(life)),
            launcher=SimLauncher(life),
            sessions=Path("/sim") / self.name,
            simulated_argv=("colod-simxl",),
            session_command=("colod-session",),
            session_env={},
            transport_kind="simulated",
            transport_options={},
            backup_options=None,
            credentials=Credentials(
                host=self.name, peer=self.peer.name, ca=Path(), certificate=Path(), key=Path()
            ),
            identity=cast("Any", None),
            limits=self.world.limits,
        )


class World:
    """Everything, and the observer who counts speakers."""

    def __init__(self, random: Random, without: Without = Without.NOTHING) -> None:
        self.random = random
        self.without = without
        self.store = Store(arbitrates=without is not Without.ARBITRATION)
        self.processes = Processes()
        self.cut_from_witness: set[HostName] = set()
        self.cut_control: set[tuple[HostName, HostName]] = set()
        self.cut_data: set[tuple[HostName, HostName]] = set()
        self.links_lost: dict[tuple[HostName, str], float] = {}
        self.extra_latency_s = 0.0
        self.loss = 0.0
        self.disks = Disks.SHARED if random.random() < 0.3 else Disks.NONE
        self.switch_fails = 0.0
        self.was_fenced = False
        self.heard_s = 0.0
        self.clock: VirtualTime | None = None
        self.violations: list[str] = []
        self.log: list[str] = []
        self.limits = Limits(
            beat_interval_s=0.5,
            suspect_after_s=5.0,
            carrier_grace_s=SILENCE_S * 1.1 + 1.0,
            standstill_s=5.0,
            session_silence_s=SILENCE_S,
            ping_interval_s=0.5,
            ack_timeout_s=60.0,
            staging_bytes=1 << 26,
            resync_backoff_s=1.0,
            resync_backoff_max_s=10.0,
            takeover_automatic=True,
            resync_automatic=True,
            keep_quarantined=random.random() < 0.3,
            hold_output=True,
            hold_limit_bytes=1 << 24,
            delta_codec="off",
            delta_store_bytes=1 << 20,
        )
        self.hosts: dict[HostName, SimHost] = {}
        for name in (ALPHA, BETA):
            self.hosts[name] = SimHost(self, name)

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()

    def jump(self, by_s: float) -> None:
        """Set the wall clocks."""
        if self.clock is not None:
            self.clock.wall_offset_s += by_s

    def note(self, text: str) -> None:
        """Keep what happened, for whoever looks at a seed that failed."""
        self.log.append(f"{self.now:9.3f} {text}")

    # --- the network --------------------------------------------------------------------------

    def latency(self) -> float:
        """Return the next message's time on its way."""
        return self.random.uniform(0.0002, 0.003) + self.random.uniform(0, self.extra_latency_s)

    def data_is_up(self, source: SimHost, target: SimHost) -> bool:
        """Tell whether the sessions' network carries from one host to the other."""
        return source.is_on and target.is_on and (source.name, target.name) not in self.cut_data

    async def carry(self, life: Incarnation, target: SimHost, timeout_s: float) -> Host:
        """Carry a request to the other daemon; return that, or end as a request does."""
        await life.step(self.latency())
        source, host = life.host, target
        is_cut = (source.name, target.name) in self.cut_control
        is_deaf = not host.is_on or not host.goes.is_set()
        if is_cut or is_deaf or self.random.random() < self.loss:
            await life.step(timeout_s)
            raise PeerUnreachable("no answer")
        if host.life is None or host.daemon is None:
            raise PeerUnreachable("refused")
        return host.daemon

    async def carry_back(self, life: Incarnation, source: SimHost, timeout_s: float) -> None:
        """Carry the answer."""
        await life.step(self.latency())
        is_cut = (source.name, life.host.name) in self.cut_control
        if is_cut or not source.is_on or self.random.random() < self.loss:
            await life.step(timeout_s)
            raise PeerUnreachable("the answer was lost")

    def receiver_at(self, address: str) -> Receiver | None:
        """Return who listens there."""
        name, _, pid = address.partition(":")
        host = self.hosts[HostName(name)]
        if not self.data_is_up(host.peer, host):
            return None
        for session in host.sessions():
            if isinstance(session, Receiver) and session.process.pid == int(pid):
                return session
        return None

    # --- the observer -------------------------------------------------------------------------

    def changed(self) -> None:
        """Look again who runs and who speaks, at this very moment."""
        running, speakers = [], []
        for host in self.hosts.values():
            for domain in list(host.xen.domains.values()):
                self._look_at(host, domain)
                if domain.since_s is not None:
                    running.append(f"{domain.name} on {host.name}")
                    if not domain.is_mute:
                        speakers.append(running[-1])
        if len(speakers) > 1:
            self._violated(f"two speakers: {', '.join(speakers)}")
        if len(running) > 1 and self.disks is Disks.SHARED:
            self._violated(f"two copies write to the same disks: {', '.join(running)}")

    def _look_at(self, host: SimHost, domain: SimDomain) -> None:
        has_run = domain.since_s is not None
        if domain.since_s is not None:
            domain.done_s += self.now - domain.since_s
        domain.since_s = self.now if domain.may_run and host.goes.is_set() else None
        if domain.is_mute or not (has_run or domain.since_s is not None):
            return
        if domain.done_s < self.heard_s - SLACK_S:
            self._violated(
                f"{domain.name} on {host.name} goes on from {domain.done_s:.3f} s, but was "
                f"heard up to {self.heard_s:.3f} s"
            )
        self.heard_s = max(self.heard_s, domain.done_s)

    def released(self, host: SimHost, domain: SimDomain, done_s: float) -> None:
        """Output up to an acknowledged checkpoint leaves.

        An acknowledgement may come late, when the other copy speaks already: what leaves then is no
        more than that copy knows, as of a packet that was long on its way.
        """
        if domain.domid not in host.xen.domains or not domain.is_mute:
            return
        other = host.peer
        for each in other.xen.domains.values():
            is_speaking = each.since_s is not None and not each.is_mute
            if is_speaking and done_s > each.born_s + SLACK_S:
                self._violated(f"{host.name} releases what {each.name} on {other.name} never knew")
        self.heard_s = max(self.heard_s, done_s)

    def _violated(self, text: str) -> None:
        self.note(f"VIOLATION {text}")
        self.violations.append(text)

    def is_protected(self) -> bool:
        """Tell whether both daemons show the guest as PROTECTED."""
        services = [
            host.daemon.services.get(GUEST) if host.daemon else None for host in self.hosts.values()
        ]
        return all(each is not None and each.state is State.PROTECTED for each in services)

    def running(self) -> list[str]:
        """Return the hosts on which a copy runs."""
        return [
            host.name
            for host in self.hosts.values()
            for domain in host.xen.domains.values()
            if domain.may_run and host.goes.is_set()
        ]
