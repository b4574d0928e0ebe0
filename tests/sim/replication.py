"""Sessions and their xl in memory: what they say to daemons, and what their deaths do to guests.

The real session programs are tested with real pipes elsewhere; here they are as their contract
(docs/sessions.md) has them, so that the daemons above them are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from colod.model import INCOMING_SUFFIX, Role
from colod.toolstack.port import ProcessRef
from colod.v1 import session_pb2, types_pb2

if TYPE_CHECKING:
    from tests.sim.world import SimHost, World
    from tests.sim.xen import SimDomain

_STATES = types_pb2.SessionState
FIRST_COPY_S = 1.5
PAUSE_S = 0.01
XL_SUSPEND_LIMIT_S = 60.0
KEPT_WINDOW_S = 20.0


class Processes:
    """All processes of all hosts, by number."""

    def __init__(self) -> None:
        self._last = 100
        self._living: dict[int, Any] = {}

    def start(self, on_death: Any) -> ProcessRef:
        """Begin a process; `on_death` is called when it is killed."""
        self._last += 1
        self._living[self._last] = on_death
        return ProcessRef(pid=self._last, start_ticks=self._last)

    def lives(self, ref: ProcessRef | None) -> bool:
        """Tell whether it is there."""
        return ref is not None and ref.pid in self._living

    def end(self, ref: ProcessRef) -> None:
        """It ends by itself."""
        self._living.pop(ref.pid, None)

    def kill(self, pid: int) -> None:
        """SIGKILL."""
        on_death = self._living.pop(pid, None)
        if on_death is not None:
            on_death()


@dataclass(slots=True)
class Epoch:
    """A checkpoint: how far the guest had got."""

    number: int
    done_s: float


class Session:
    """What both kinds of session have in common."""

    role: Role

    def __init__(self, host: SimHost, spec: dict[str, Any]) -> None:
        self.host = host
        self.world: World = host.world
        self.spec = spec
        self.guest = str(spec["guest"])
        self.status = session_pb2.SessionStatus(
            state=_STATES.SESSION_STATE_CONNECTING, guest=self.guest, pairing=spec["pairing"]
        )
        self.status.progress.peer_heard_age_s = -1.0
        self.heard_at: float | None = None
        self.listeners: list[Any] = []
        self.process = self.world.processes.start(self.died)
        self.xl: ProcessRef | None = None
        self.status.pid = self.process.pid
        self.peer: Session | None = None
        self.task = asyncio.get_running_loop().create_task(self._run())

    @property
    def is_alive(self) -> bool:
        """Whether its process lives."""
        return self.world.processes.lives(self.process)

    def say(self) -> None:
        """Tell whoever listens."""
        age_s = -1.0 if self.heard_at is None else self.world.now - self.heard_at
        self.status.progress.peer_heard_age_s = age_s
        self.status.toolstack_pid = self.xl.pid if self.xl and self.xl_lives else 0
        for listener in list(self.listeners):
            listener()

    @property
    def xl_lives(self) -> bool:
        """Whether its xl does."""
        return self.world.processes.lives(self.xl)

    def broken(self, state: Any, code: str, text: str) -> None:
        """It cannot go on."""
        if self.status.state < state:
            self.status.state, self.status.error_code, self.status.error = state, code, text
        self.say()

    def obey(self, command: session_pb2.SessionCommand) -> None:
        """Take a command of the daemon's."""
        self.status.command_id, self.status.command_error = command.id, ""
        kind = command.WhichOneof("command")
        try:
            getattr(self, f"_on_{kind}")(command)
        except ValueError as error:
            self.status.command_error = str(error)
        self.say()

    def _on_release(self, _: Any) -> None:
        self.end()

    def end(self) -> None:
        """Exit."""
        self.world.processes.kill(self.process.pid)

    def died(self) -> None:
        """The process is gone, by whatever."""
        self.task.cancel()
        self.gone()
        self.say()

    def gone(self) -> None:
        """What its death does to xl."""
        raise NotImplementedError

    async def _run(self) -> None:
        raise NotImplementedError

    async def step(self, seconds: float) -> None:
        """Wait, for longer if the host stands still."""
        await asyncio.sleep(seconds)
        await self.host.goes.wait()


class Receiver(Session):
    """`colod-session receive` and `xl migrate-receive`."""

    role = Role.SECONDARY

    def __init__(self, host: SimHost, spec: dict[str, Any]) -> None:
        self.acked: Epoch | None = None
        self.domain: SimDomain | None = None
        super().__init__(host, spec)
        self.status.listen_address = f"{host.name}:{self.process.pid}"

    async def _run(self) -> None:
        limit_s = float(self.spec["silence_s"])
        born = self.world.now
        while True:
            await self.step(0.2)
            since = self.heard_at if self.heard_at is not None else born + 60
            if self.world.now - since > limit_s:
                self.broken(_STATES.SESSION_STATE_PEER_LOST, "peer.silent", "the sender is silent")
            self.say()

    def connect(self, sender: Session) -> None:
        """The sender is there: xl begins to build the copy."""
        self.peer = sender
        self.xl = self.world.processes.start(self.xl_died)
        self.domain = self.host.xen.create(
            self.guest + INCOMING_SUFFIX,
            pauses=1 if self.world.without == "second pause" else 2,
            is_built=False,
        )
        self.status.second_pause = True
        self.status.peer_connected = True
        self.status.state = _STATES.SESSION_STATE_SYNCING
        self.say()

    def take(self, epoch: Epoch) -> bool:
        """Take a whole epoch; return whether it is acknowledged."""
        if self.status.state >= _STATES.SESSION_STATE_PEER_LOST or not self.xl_lives:
            return False
        self.acked = epoch
        self.status.progress.acked_epoch = epoch.number
        self.status.state = _STATES.SESSION_STATE_REPLICATING
        return True

    def peer_gone(self) -> None:
        """The connection ended."""
        self.broken(_STATES.SESSION_STATE_PEER_LOST, "peer.unreachable", "the sender is gone")

    def xl_died(self) -> None:
        """Killed: the copy stays as it is."""
        self.broken(_STATES.SESSION_STATE_TOOLSTACK_LOST, "toolstack.lost", "xl is gone")

    def _on_hand_over(self, _: Any) -> None:
        if self.acked is None or not self.xl_lives:
            raise ValueError("nothing to hand over")
        asyncio.get_running_loop().create_task(self._let_go())

    async def _let_go(self) -> None:
        await asyncio.sleep(self.world.random.uniform(0.01, 0.5))
        if self.is_alive and self._xl_ends():
            self.status.handed_over = True
            self.say()

    def gone(self) -> None:
        """End of stream: xl takes it for a failover."""
        asyncio.get_running_loop().call_later(self.world.random.uniform(0.001, 0.3), self._xl_ends)

    def _xl_ends(self) -> bool:
        if not self.xl_lives or self.domain is None or not self.host.is_on:
            return False
        assert self.xl is not None
        self.world.processes.end(self.xl)
        domain = self.domain
        if self.acked is None:
            self.host.xen.destroy(domain)
            return False
        domain.done_s = domain.born_s = self.acked.done_s
        domain.is_built = True
        if self.host.xen.find(self.guest) is not None:
            return False
        domain.name = self.guest
        domain.pauses = max(0, domain.pauses - 1)
        self.world.changed()
        return True


class Sender(Session):
    """`colod-session send` and `xl remus`."""

    role = Role.PRIMARY

    def __init__(self, host: SimHost, spec: dict[str, Any], interval_s: float) -> None:
        self._interval_s = interval_s
        self._quiesced = asyncio.Event()
        self._attempt = ""
        super().__init__(host, spec)
        self.xl = self.world.processes.start(self.xl_died)
        self.domain = host.xen.find(self.guest)

    def xl_died(self) -> None:
        """Killed: the guest stays as it is, suspended or not."""
        self.task.cancel()
        self.broken(_STATES.SESSION_STATE_TOOLSTACK_LOST, "toolstack.lost", "xl is gone")

    def gone(self) -> None:
        """A broken pipe: xl makes the guest run again, and ends."""
        if isinstance(self.peer, Receiver) and self.world.data_is_up(self.host, self.peer.host):
            self.peer.peer_gone()
        asyncio.get_running_loop().call_later(
            self.world.random.uniform(0.001, 0.3), self._xl_gives_up
        )

    def _xl_gives_up(self) -> None:
        if not self.xl_lives or not self.host.is_on:
            return
        assert self.xl is not None
        self.world.processes.end(self.xl)
        if self.domain is not None and self.domain.domid in self.host.xen.domains:
            self.domain.suspended = False
            self.world.changed()
        self.say()

    async def _run(self) -> None:
        await self.step(self.world.random.uniform(0.01, 0.2))
        receiver = self.world.receiver_at(str(self.spec["address"]))
        if receiver is None or self.domain is None:
            self.broken(_STATES.SESSION_STATE_PEER_LOST, "peer.unreachable", "nobody listens")
            return
        self.peer = receiver
        receiver.connect(self)
        self.status.peer_connected = True
        self.status.state = _STATES.SESSION_STATE_SYNCING
        self._hear()
        await self._exchange(receiver, FIRST_COPY_S)
        number = 0
        while await self._checkpoint(receiver, number := number + 1):
            self.status.state = _STATES.SESSION_STATE_REPLICATING
            self.say()
            if not await self._exchange(receiver, self._interval_s):
                break
        if self.status.state < _STATES.SESSION_STATE_PEER_LOST:
            self.broken(_STATES.SESSION_STATE_PEER_LOST, "peer.silent", "the receiver is silent")
        await self._suspend(self.domain)  # for a checkpoint that nobody reads any more

    async def _checkpoint(self, receiver: Receiver, number: int) -> bool:
        domain = self.domain
        assert domain is not None
        if not await self._suspend(domain):
            return False
        epoch = Epoch(number, domain.done_s)
        if number == 1:
            domain.is_mute = True  # the gate closes in the first window
            self.status.gate.is_protected = True
            self.status.gate.sound_from = 2
            self.world.changed()
        if self._attempt and not self.status.kept_epoch:
            await self._keep_window(number)
        await self.step(PAUSE_S)
        domain.suspended = False
        self.world.changed()
        if self.world.without == "acknowledgement":
            self.world.released(self.host, domain, epoch.done_s)
        deadline = self.world.now + float(self.spec["silence_s"])
        while self.world.now < deadline:
            await self.step(self.world.latency())
            if receiver.is_alive and self.world.data_is_up(self.host, receiver.host):
                if not await self._deliver(receiver, epoch):
                    return False
                if self.status.progress.acked_epoch == number:
                    return True
            await self.step(0.05)
        return False

    async def _deliver(self, receiver: Receiver, epoch: Epoch) -> bool:
        await receiver.host.goes.wait()
        if not receiver.take(epoch):
            return False
        receiver.heard_at = self.world.now
        await self.step(self.world.latency())
        if self.world.data_is_up(receiver.host, self.host):
            self._hear()
            self.status.progress.acked_epoch = epoch.number
            assert self.domain is not None
            self.world.released(self.host, self.domain, epoch.done_s)
        return True

    async def _suspend(self, domain: SimDomain) -> bool:
        """Suspend the guest; it must run for that. xl gives a paused one up after its time."""
        deadline = self.world.now + XL_SUSPEND_LIMIT_S
        while domain.pauses:
            if self.world.now > deadline:
                assert self.xl is not None
                self.world.processes.end(self.xl)
                self.broken(_STATES.SESSION_STATE_TOOLSTACK_LOST, "toolstack.lost", "no suspend")
                return False
            await self.step(0.2)
            self.say()
        if domain.domid not in self.host.xen.domains or domain.ended:
            return False
        domain.suspended = True
        self.world.changed()
        return True

    async def _keep_window(self, number: int) -> None:
        self.status.quiesce_attempt, self.status.kept_epoch = self._attempt, number
        self._quiesced.clear()
        self.say()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiesced.wait(), KEPT_WINDOW_S)
        is_taken = self._quiesced.is_set()
        self.status.kept_epoch = 0
        self.status.final_epoch = number if is_taken else 0
        if not is_taken:
            self.status.quiesce_attempt = ""
        self._attempt = ""

    def _on_quiesce(self, command: session_pb2.SessionCommand) -> None:
        self._attempt = command.quiesce.attempt

    def _on_quiesced(self, command: session_pb2.SessionCommand) -> None:
        if not self.status.kept_epoch or command.quiesced.attempt != self.status.quiesce_attempt:
            raise ValueError("the window is not kept any more")
        self._quiesced.set()

    async def _exchange(self, receiver: Receiver, seconds: float) -> bool:
        """Let time pass with pings to and fro; return whether the peer is still heard."""
        until = self.world.now + seconds
        while True:
            await self.step(min(0.25, seconds))
            if receiver.is_alive and receiver.host.goes.is_set():
                if self.world.data_is_up(self.host, receiver.host):
                    receiver.heard_at = self.world.now
                if self.world.data_is_up(receiver.host, self.host):
                    self._hear()
            self.say()
            assert self.heard_at is not None
            if self.world.now - self.heard_at > float(self.spec["silence_s"]):
                return False
            if receiver.status.state >= _STATES.SESSION_STATE_PEER_LOST:
                return False
            if self.world.now >= until:
                return True

    def _hear(self) -> None:
        self.heard_at = self.world.now


@dataclass(slots=True)
class Directory:
    """What is left of a session on a host."""

    spec: dict[str, Any] = field(default_factory=dict)
    session: Session | None = None
