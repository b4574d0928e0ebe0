"""The ports of one daemon, in memory: journal, history, peer, launcher and sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from colod.daemon.contact import Heartbeat
from colod.daemon.history import Change
from colod.daemon.sessions import SessionHandle
from colod.errors import JournalError, PeerError, PeerUnreachable, ToolstackError
from colod.failover import entry
from colod.failover.view import Journal
from colod.model import Generation, GuestName, HostName, Role, quarantine_name
from colod.session.protocol import MessageDecoder
from colod.toolstack.port import ProcessRef
from colod.v1 import peer_pb2, session_pb2
from tests.sim.replication import Receiver, Sender, Session

if TYPE_CHECKING:
    from tests.sim.world import Incarnation, World


CONTROL, DATA = "control", "data"
"""The two networks between the hosts, as addresses on them are called."""


class SimJournal:
    """Entries on a disk that may be slow or full; what is written is there after a power cut."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life
        self._disk = life.host.disk

    def read_all(self) -> Sequence[Journal]:
        """Read them."""
        return [entry.decode(raw) for raw in self._disk.values()]

    async def write(self, journal: Journal) -> None:
        """Replace one."""
        raw = entry.encode(journal)
        await self._pass()
        self._disk[journal.protection.guest] = raw
        await self._life.step(0.0005)

    async def erase(self, guest: GuestName) -> None:
        """Remove one."""
        await self._pass()
        self._disk.pop(guest, None)
        await self._life.step(0.0005)

    async def _pass(self) -> None:
        host = self._life.host
        await self._life.step(0.001 + host.world.random.uniform(0, host.disk_delay_s))
        if host.disk_is_full:
            raise JournalError("no space left on device")


class SimHolds:
    """In memory that outlives a daemon, and not the host's power."""

    def __init__(self, life: Incarnation) -> None:
        self._host = life.host

    def add(self, guest: GuestName, domid: int) -> None:
        """Note it."""
        self._host.holds[guest] = (self._host.boot, domid)

    def domid(self, guest: GuestName) -> int:
        """Return it, 0 for none."""
        boot, domid = self._host.holds.get(guest, ("", 0))
        return domid if boot == self._host.boot else 0

    def forget(self, guest: GuestName) -> None:
        """Forget it."""
        self._host.holds.pop(guest, None)


class SimQuarantine:
    """What is known of copies that were put aside, on the same disk; nobody orders anything."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life

    def is_kept(self, domain: str, domid: int) -> bool:
        """Nothing is."""
        return False

    async def put_aside(
        self, guest: GuestName, domid: int, generation: Generation, *, why: str
    ) -> str:
        """Write one down."""
        if self._life.host.disk_is_full:
            raise JournalError("no space left on device")
        await self._life.step(0.001)
        return quarantine_name(guest, generation)


class SimHistory:
    """Changes of state, as the log of the run."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life

    def add(self, change: Change) -> bool:
        """Note it."""
        self._life.world.note(
            f"{change.host}: {change.from_state} -> {change.to_state} "
            f"gen {change.generation} epoch {change.epoch} {change.cause}"
        )
        return True

    def last_state(self, guest: str) -> str:
        """Know nothing."""
        return ""


class _Deaf:
    """Stands for the gRPC client in the real heartbeat: the exchange is made around it."""

    def __init__(self) -> None:
        self.outcome: peer_pb2.BeatReply | PeerError = PeerUnreachable("not asked")

    def beat(self, request: peer_pb2.BeatRequest, *, timeout_s: float) -> peer_pb2.BeatReply:
        """Return what came of it."""
        if isinstance(self.outcome, PeerError):
            raise self.outcome
        return self.outcome

    def close(self) -> None:
        """Nothing is open."""


class SimHeartbeat(Heartbeat):
    """The real heartbeat, its thread a task, its connection the simulated network."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life
        self._deaf = _Deaf()
        super().__init__(
            {CONTROL: cast("Any", self._deaf)},
            limits=life.world.limits,
            own_views=lambda: (),
            on_news=lambda: life.daemon.poke_all() if life.daemon else None,
        )

    async def beat_for_ever(self) -> None:
        """Beat until the daemon dies."""
        sequence = 0
        while True:
            sequence += 1
            began = self._life.world.now
            self._deaf.outcome = await self._exchange()
            self._beat(self.networks[0], sequence, began)
            rest_s = self._limits.beat_interval_s - (self._life.world.now - began)
            await self._life.step(max(0.001, rest_s))

    async def _exchange(self) -> peer_pb2.BeatReply | PeerError:
        world, peer = self._life.world, self._life.host.peer
        timeout_s = self._limits.beat_interval_s * 2
        try:
            other = await world.carry(self._life, peer, timeout_s)
            reply = peer_pb2.BeatReply(protections=other.peer_views())
            await world.carry_back(self._life, peer, timeout_s)
        except PeerError as error:
            return error
        return reply


class SimCarriers:
    """What one host sees of its links to the other: of the daemons' network, and the sessions'."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life

    def lost_at(self, address: str) -> float | None:
        """Return since when it sees none on that network."""
        return self._life.world.links_lost.get((self._life.host.name, address))


class SimPeerClient:
    """The other daemon's service, without gRPC; the methods may be waited for."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life
        self._world = life.world

    async def preflight(self, request: peer_pb2.PeerPreflightRequest) -> Any:
        """It refuses nothing."""
        peer = self._life.host.peer
        await self._world.carry(self._life, peer, 10.0)
        await self._world.carry_back(self._life, peer, 10.0)
        return peer_pb2.PeerPreflightReply()

    async def prepare_receive(
        self, request: peer_pb2.PrepareReceiveRequest, *, timeout_s: float
    ) -> Any:
        """Have it start a receiver; the request goes on there, whatever becomes of us."""
        peer = self._life.host.peer
        other = await self._world.carry(self._life, peer, timeout_s)
        found = await self._there(other.receive(request), timeout_s)
        await self._world.carry_back(self._life, peer, timeout_s)
        return peer_pb2.PrepareReceiveReply(address=found.address, backup_address=found.backup)

    async def forget(self, request: peer_pb2.ForgetRequest) -> None:
        """Tell it that the protection ended."""
        other = await self._world.carry(self._life, self._life.host.peer, 10.0)
        await self._there(other.forget(GuestName(request.guest)), 10.0)

    async def _there(self, work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Have the other daemon work, and die with that daemon only."""
        task = asyncio.get_running_loop().create_task(work)
        there = self._life.host.peer.life
        assert there is not None
        there.tasks.append(cast("Any", _swallowed(task)))
        try:
            return await asyncio.wait_for(asyncio.shield(task), timeout_s)
        except (TimeoutError, asyncio.CancelledError) as error:
            if self._life.is_dead:
                raise
            raise PeerUnreachable("no answer") from error


def _swallowed(work: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """Have nobody complain about a failure that its asker is told of."""
    work.add_done_callback(lambda done: None if done.cancelled() else done.exception())

    async def ended() -> None:
        await asyncio.wait((work,))

    guard = asyncio.get_running_loop().create_task(ended())
    guard.add_done_callback(lambda done: work.cancel() if done.cancelled() else None)
    return guard


class SimLauncher:
    """Starts sessions in memory."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life

    async def launch(
        self, argv: Sequence[str], *, unit: str, log: Path, env: Mapping[str, str]
    ) -> None:
        """Start what the specification in the session's directory says."""
        await self._life.step(self._life.world.random.uniform(0.05, 0.4))
        host, directory = self._life.host, log.parent.name
        place = host.directories.get(directory)
        if place is None:
            raise ToolstackError(tuple(argv), 1, "no specification")
        if argv[0] == "xl":
            place.session = Sender(host, place.spec, int(argv[3]) / 1000)
        else:
            place.session = Receiver(host, place.spec)
        await self._life.step(0.01)

    async def run(
        self, argv: Sequence[str], *, unit: str, env: Mapping[str, str], timeout_s: float
    ) -> None:
        """Start a guest as `xl create` does: it goes on whatever becomes of the daemon."""
        random, host = self._life.world.random, self._life.host
        await self._life.step(random.uniform(0.05, 0.4))
        domain, is_good = host.xen.start(argv[2]), random.random() >= host.xl_failures
        seconds = random.uniform(0.1, 4.0)
        asyncio.get_running_loop().call_later(seconds, host.xen.built, domain, is_good)
        await self._life.step(seconds + 0.1)
        if not is_good:
            raise ToolstackError(tuple(argv), 1, "an injected failure")


class SimHandle(SessionHandle):
    """The daemon's end of a session in memory: all it adds is how they are found and joined."""

    world: World

    def __init__(self, directory: Path, role: Role, on_change: Any) -> None:
        super().__init__(directory, role, on_change)
        self._host = self.world.hosts[HostName(directory.parent.name)]
        self._life = self._host.life
        self._decoder = MessageDecoder(session_pb2.SessionCommand)
        self._joined: Session | None = None

    @property
    def _session(self) -> Session | None:
        place = self._host.directories.get(self.directory.name)
        return place.session if place else None

    @property
    def process(self) -> ProcessRef | None:
        """The session's process, if it lives."""
        session = self._session
        return session.process if session and session.is_alive else None

    @property
    def has_ended(self) -> bool:
        """Whether it was there and is not any more."""
        return self._session is not None and self.process is None

    @property
    def toolstack(self) -> ProcessRef | None:
        """Its xl, if that lives."""
        session = self._session
        return session.xl if session and session.xl_lives else None

    async def _converse(self) -> None:
        session = self._session
        if session is None or not session.is_alive:
            return
        if self._life is not None and self._life.is_dead:
            raise asyncio.CancelledError
        self._joined = session
        session.listeners.append(self._listen)
        self._writer = cast("Any", self)
        self._listen()
        try:
            while session.is_alive:
                await asyncio.sleep(0.25)
                self._listen()
        finally:
            self.forget()

    def forget(self) -> None:
        """Hear no more of it."""
        if self._joined is not None and self._listen in self._joined.listeners:
            self._joined.listeners.remove(self._listen)
        self._joined = None

    def _listen(self) -> None:
        if self._joined is None or not self._host.goes.is_set():
            return
        status = session_pb2.SessionStatus()
        status.CopyFrom(self._joined.status)
        status.peer_address = DATA
        self.status, self.status_at = status, self.world.now
        self._changed()

    def write(self, data: bytes) -> None:
        """Take a command, as a stream's writer would."""
        for command in self._decoder.feed(data):
            if self._joined is not None:
                self._joined.obey(command)


class SimProcesses:
    """Stands for `colod.toolstack.process` where effects look for processes."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def wait_gone(self, ref: ProcessRef, timeout_s: float) -> bool:
        """Wait for its end."""
        deadline = self._world.now + timeout_s
        while self._world.processes.lives(ref) and self._world.now < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return not self._world.processes.lives(ref)

    def kill(self, ref: ProcessRef) -> bool:
        """SIGKILL it."""
        self._world.processes.kill(ref.pid)
        return True

    def processes(self) -> Sequence[Any]:
        """There are no helpers of its own kind."""
        return ()

    def save_helpers(self, among: Sequence[Any]) -> Sequence[Any]:
        """There are none."""
        return ()
