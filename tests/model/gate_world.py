"""One guest, libxc, a pipe, a session with its gate, sch_plug's counters and a secondary.

Everything that can happen next in a state is one step; `walk` takes all of them. Epochs carry
numbers, packets carry the epoch that made them, and positions in libxl's stream are counted in
*stages*: three for each epoch, its first byte, libxc's CHECKPOINT and libxl's CHECKPOINT_END.

The plug is a model of Linux net/sched/sch_plug.c: a count of the packets since the last BUFFER, a
saved count that BUFFER assigns and RELEASE_ONE moves, and a count of what may leave from the head.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from colod.output.gate import LOCK_STEP_BYTES, Do, Effect, Effects, Gate, Phase

FIRST, CHECKPOINT, END = range(3)
_KERNEL = frozenset({Do.CLOSE, Do.COVER, Do.SET_BARRIER, Do.RELEASE_ONE, Do.OPEN})


def stage(epoch: int, which: int) -> int:
    """Return the position of one stage of one epoch in the stream."""
    return 3 * epoch + which


class Plug(NamedTuple):
    """sch_plug's state; it begins closed."""

    queue: tuple[int, ...] = ()
    current: int = 0
    saved: int = 0
    may_leave: int = 0
    indefinite: bool = False

    def enqueue(self, epoch: int) -> Plug:
        """plug_enqueue(): counted, unless all may pass."""
        current = self.current if self.indefinite else self.current + 1
        return self._replace(queue=(*self.queue, epoch), current=current)

    def change(self, do: Do) -> Plug:
        """plug_change()."""
        match do:
            case Do.SET_BARRIER:
                return self._replace(saved=self.current, current=0, indefinite=False)
            case Do.RELEASE_ONE:
                return self._replace(may_leave=self.may_leave + self.saved, saved=0)
        return Plug(self.queue, indefinite=True)

    def drain(self) -> tuple[Plug, tuple[int, ...]]:
        """plug_dequeue() until it gives nothing; returns what left."""
        count = len(self.queue) if self.indefinite else min(self.may_leave, len(self.queue))
        rest = 0 if self.indefinite else self.may_leave - count
        return self._replace(queue=self.queue[count:], may_leave=rest), self.queue[:count]


class Limits(NamedTuple):
    """How far a walk goes.

    Attributes:
        epochs: Checkpoints that libxc writes.
        packets: Packets that the guest makes in one epoch.
        failures: Calls into the kernel that fail.
        crashes: Deaths of the session.
        shorts: Whether a checkpoint may be short enough to pass a shrunk pipe.
        hot_plugs: Interfaces that are added.
        is_claim_kept: Whether what was called protected once must stay so; not with hot-plugging,
            where the claim is taken back as long as an interface is open.
        reads_on: The error of reading on before the barrier's outcome is known.
        opens_on_death: The error of a gate that does not outlive its session.
    """

    epochs: int = 4
    packets: int = 1
    failures: int = 1
    crashes: int = 1
    shorts: bool = False
    hot_plugs: int = 0
    is_claim_kept: bool = True
    reads_on: bool = False
    opens_on_death: bool = False


class World(NamedTuple):
    """Everything that can differ between two moments.

    Attributes:
        gate: The decisions under test.
        limits: What may still happen.
        plug: The interface's plug.
        redirected: Whether the interface's packets go there.
        ops: Calls into the kernel that were asked for, in order.
        running: The epoch in which the guest runs, or in whose checkpoint it is suspended.
        suspended: Whether it is.
        made: Packets that it made in this epoch.
        ring: Packets that netback has not taken yet.
        wrote: The newest stage in the pipe.
        read: The newest stage that the session took out.
        handled: The newest stage that the session acted upon.
        narrow: Whether the pipe is one page long.
        shorts: Epochs whose checkpoints fit that page.
        drained: The newest epoch of which the session has read more than LOCKED_READ_BYTES.
        sealed: The newest epoch that the session sent whole.
        safe: The newest epoch that the secondary has acknowledged.
        alive: Whether the session lives.
        alone: Whether this host owns the guest alone.
        left: The newest epoch of which a packet left while that could be lost.
        paired: Whether the guest was called protected, and the pairing has not ended since.
        bare: Whether an interface without a plug is there.
    """

    gate: Gate
    limits: Limits
    plug: Plug = Plug()
    redirected: bool = False
    ops: Effects = ()
    running: int = 1
    suspended: bool = False
    made: int = 0
    ring: tuple[int, ...] = ()
    wrote: int = stage(1, FIRST)
    read: int = stage(1, FIRST)
    handled: int = stage(1, FIRST)
    narrow: bool = False
    shorts: frozenset[int] = frozenset()
    drained: int = 0
    sealed: int = 0
    safe: int = 0
    alive: bool = True
    alone: bool = False
    left: int = 0
    paired: bool = False
    bare: bool = False


_Next = tuple[str, World, bool]
"""What happens, the state it leads to, and whether it is an accident."""


class Walk(NamedTuple):
    """What a walk found.

    Attributes:
        states: How many there are.
        released: The newest barrier that was released while the guest was protected.
        violation: The first broken promise, "" for none.
        history: The shortest way to it.
    """

    states: int
    released: int
    violation: str = ""
    history: tuple[str, ...] = ()


def walk(gate: type[Gate], limits: Limits, *, max_states: int = 1_000_000) -> Walk:
    """Visit everything that can happen to a fresh `gate`, breadth first.

    In every state the promises must hold, and from every state a way without accidents must lead
    to an open gate with nothing held.

    Raises:
        MemoryError: If there are more states; the walk proves nothing then.
    """
    start = World(gate(), limits)
    came: dict[World, tuple[World, str] | None] = {start: None}
    calm: dict[World, list[World]] = {}
    queue = deque([start])
    released = 0
    while queue:
        state = queue.popleft()
        released = max(released, state.gate.released) if state.paired else released
        if what := broken(state):
            return Walk(len(came), released, what, _history(came, state))
        for name, after, is_fault in steps(state):
            if after not in came:
                came[after] = (state, name)
                queue.append(after)
            if not is_fault:
                calm.setdefault(after, []).append(state)
        if len(came) > max_states:
            raise MemoryError(f"more than {max_states} states")
    stuck = _stuck(came, calm)
    if stuck:
        history = _history(came, stuck)
        return Walk(len(came), released, "no way leads from here to an open gate", history)
    return Walk(len(came), released)


def _history(came: dict[World, tuple[World, str] | None], state: World) -> tuple[str, ...]:
    names: list[str] = []
    while (link := came[state]) is not None:
        state, name = link
        names.append(name)
    return tuple(reversed(names))


def _stuck(came: Iterable[World], calm: dict[World, list[World]]) -> World | None:
    """Go backwards from all good ends; return a state that is not met."""
    met = {state for state in came if is_settled(state)}
    queue = deque(met)
    while queue:
        for before in calm.get(queue.popleft(), ()):
            if before not in met:
                met.add(before)
                queue.append(before)
    return next((state for state in came if state not in met), None)


def steps(world: World) -> Iterator[_Next]:
    """Yield all that can happen next."""
    for name, after, is_fault in _steps(world):
        yield name, _plain(_claimed(after)), is_fault


def _plain(world: World) -> World:
    """Forget what makes no difference any more, so that fewer states are told apart."""
    if world.alone:
        queue = (0,) * len(world.plug.queue)
        return World(
            world.gate,
            world.limits,
            world.plug._replace(queue=queue),
            world.redirected,
            world.ops,
            ring=(0,) * len(world.ring),
            alive=world.alive,
            alone=True,
        )
    if not world.alive:
        return world._replace(
            wrote=0, read=0, handled=0, narrow=False, shorts=frozenset(), sealed=0
        )
    return world


def broken(world: World) -> str:
    """Return which promise does not hold in this state, "" for none."""
    if world.alone:
        return ""
    if world.paired and world.left > world.safe:
        return f"a packet of epoch {world.left} is out, the secondary has {world.safe}"
    if world.gate.is_protected and world.bare:
        return "protected with an open interface"
    return ""


def is_settled(world: World) -> bool:
    """Whether this host owns the guest alone and nothing is held any more."""
    return world.gate.phase is Phase.OPENED and not world.plug.queue and not world.ring


def _claimed(world: World) -> World:
    now = world.gate.is_protected
    return world._replace(paired=now or (world.paired and world.limits.is_claim_kept))


def _steps(world: World) -> Iterator[_Next]:
    yield from _guest(world)
    yield from _libxc(world)
    yield from _secondary(world)
    yield from _owner(world)
    if world.alive:
        yield from _session(world)
    yield from _kernel(world)
    yield from _faults(world)


def _guest(world: World) -> Iterator[_Next]:
    """Make packets while running; netback takes them from the ring at any time."""
    if not world.suspended and world.made < world.limits.packets and not world.alone:
        made = world._replace(made=world.made + 1)
        if not world.ring:
            yield "the guest sends", made._replace(ring=(world.running,)), False
        if world.bare:
            yield "the guest sends by its new interface", _out(made, (world.running,)), False
    if world.ring:
        taken = world._replace(ring=world.ring[1:])
        if world.redirected:
            queued = taken._replace(plug=world.plug.enqueue(world.ring[0]))
            yield "netback queues", _drained(queued), False
        else:
            yield "netback lets out", _out(taken, world.ring[:1]), False


def _libxc(world: World) -> Iterator[_Next]:
    """Write the stream as far as the pipe and the session allow."""
    if not world.alive or world.alone:
        return
    epoch, which = divmod(world.wrote + 1, 3)
    after = world._replace(wrote=world.wrote + 1)
    if which == FIRST and epoch <= world.limits.epochs and world.wrote - world.read < 3:
        yield f"suspended, first byte of {epoch}", after._replace(suspended=True), False
        if world.limits.shorts and epoch > 1:
            short = after._replace(suspended=True, shorts=world.shorts | {epoch})
            yield f"suspended, first byte of {epoch}, a short one", short, False
    elif which == CHECKPOINT and _fits(world, epoch):
        resumed = after._replace(running=epoch + 1, suspended=False, made=0)
        yield f"CHECKPOINT of {epoch}, the guest runs", resumed, False
    elif which == END:
        yield f"CHECKPOINT_END of {epoch}", after, False


def _fits(world: World, epoch: int) -> bool:
    """Whether libxc can write the rest of the checkpoint."""
    return not world.narrow or epoch in world.shorts or epoch <= world.drained


def _secondary(world: World) -> Iterator[_Next]:
    if world.alone:
        return
    if world.safe < world.sealed:
        yield f"the secondary has {world.safe + 1}", world._replace(safe=world.safe + 1), False
    if world.alive and world.gate.acked < world.safe:
        name = f"ACK of {world.safe}"
        yield from _told(name, world, world.gate.acknowledged(world.safe))


def _session(world: World) -> Iterator[_Next]:
    """Read some stages at once, act on them one by one."""
    if world.handled < world.read:
        if not world.gate.window:
            yield from _act(world._replace(handled=world.handled + 1))
        return
    limit = world.gate.read_limit_bytes
    if limit == 0:
        if world.limits.reads_on:
            yield "reads on", world._replace(drained=world.gate.window), False
        return
    gate = world.gate.reading()[0]
    for until in range(world.read + 1, world.wrote + 1):
        if limit is not None and until % 3 == CHECKPOINT:
            break  # what is before that record does not fit so small a read
        drained = until // 3 if limit is None else world.drained
        after = world._replace(gate=gate, read=until, drained=drained)
        yield f"reads to {divmod(until, 3)}", after, False


def _act(world: World) -> Iterator[_Next]:
    epoch, which = divmod(world.handled, 3)
    match which:
        case 0:
            yield from _told(f"sees {epoch}", world, world.gate.checkpoint_begun(epoch))
        case 1:
            size = LOCK_STEP_BYTES + (epoch not in world.shorts)
            yield from _told(f"sees CHECKPOINT {epoch}", world, world.gate.may_resume(epoch, size))
        case _:
            sealed = world._replace(sealed=epoch)
            yield from _told(f"seals {epoch}", sealed, world.gate.sealed_whole(epoch))


def _told(name: str, world: World, change: tuple[Gate, Effects]) -> Iterator[_Next]:
    """Carry out what concerns the pipe at once, and queue what concerns the kernel."""
    gate, effects = change
    after = world._replace(gate=gate)
    kernel = tuple(effect for effect in effects if effect.do in _KERNEL)
    after = after._replace(ops=(*after.ops, *kernel))
    for effect in effects:
        if effect.do is Do.WIDEN_PIPE:
            after = after._replace(narrow=False)
        elif effect.do is Do.SHRINK_PIPE:
            yield f"{name}, cannot shrink", after._replace(gate=gate.failed(effect, "")[0]), False
            if not _holds_pages(after):
                shrunk = after._replace(gate=gate.done(effect)[0], narrow=True)
                yield f"{name}, shrinks", shrunk, False
            return
    yield name, after, False


def _holds_pages(world: World) -> bool:
    """Whether more than a page is unread, so that the pipe cannot be shrunk."""
    unread = range(world.read + 1, world.wrote + 1)
    return any(s % 3 == CHECKPOINT and s // 3 not in world.shorts for s in unread)


def _kernel(world: World) -> Iterator[_Next]:
    """Carry out the oldest call; its outcome is known at once."""
    if not world.ops:
        return
    effect, rest = world.ops[0], world.ops[1:]
    applied = _applied(world._replace(ops=rest), effect)
    yield from _told(f"{effect.do} {effect.epoch} done", applied, applied.gate.done(effect))
    if not world.limits.failures:
        return
    limits = world.limits._replace(failures=world.limits.failures - 1)
    unknown = applied._replace(limits=limits)
    failed = world._replace(ops=rest, limits=limits)
    late = world._replace(limits=limits)
    outcomes = {"unknown, but done": unknown, "unknown, still to be done": late, "failed": failed}
    for name, after in outcomes.items():
        change = after.gate.failed(effect, name)
        yield from _as_faults(_told(f"{effect.do} {effect.epoch} {name}", after, change))
    if effect.do is Do.CLOSE:
        change = failed.gate.failed(effect, "undone", undone=True)
        yield from _as_faults(_told("close failed and undone", failed, change))


def _applied(world: World, effect: Effect) -> World:
    match effect.do:
        case Do.CLOSE:
            return world._replace(plug=Plug(), redirected=True)
        case Do.COVER:
            return world._replace(bare=False)
        case Do.OPEN:
            opened = world._replace(plug=world.plug.change(Do.OPEN), redirected=False)
            return _drained(opened)._replace(bare=False)
    return _drained(world._replace(plug=world.plug.change(effect.do)))


def _drained(world: World) -> World:
    plug, left = world.plug.drain()
    return _out(world._replace(plug=plug), left)


def _out(world: World, epochs: tuple[int, ...]) -> World:
    return world._replace(left=max(world.left, *epochs)) if epochs else world


def _owner(world: World) -> Iterator[_Next]:
    """Settle ownership: after an ending, or at any time because the peer was lost."""
    if world.alone:
        retried = world.gate.phase is Phase.LOST
        if retried:
            yield from _told("opens again", world, world.gate.owner_alone())
        if is_settled(world) and not world.ops:
            yield "a new pairing", World(type(world.gate)(), world.limits), True
        return
    is_over = not world.alive or world.gate.phase is Phase.LOST or _is_at_end(world)
    alone = world._replace(alone=True)
    told = _told("owns the guest alone", alone, world.gate.owner_alone())
    yield from told if is_over else _as_faults(told)


def _is_at_end(world: World) -> bool:
    return world.handled == stage(world.limits.epochs, END) and world.gate.acked == world.safe


def _faults(world: World) -> Iterator[_Next]:
    limits = world.limits
    if world.alive and limits.crashes and not world.alone:
        dead = world._replace(limits=limits._replace(crashes=limits.crashes - 1), alive=False)
        yield "the session dies", _adopted(dead._replace(ops=())), True
        if world.ops:
            late = _applied(dead._replace(ops=()), world.ops[0])
            yield "the session dies in a call", _adopted(late), True
    if limits.hot_plugs and world.alive and not world.bare and not world.alone:
        fewer = limits._replace(hot_plugs=limits.hot_plugs - 1)
        told = world.gate.interface_seen("vif1.1")
        added = world._replace(limits=fewer, bare=True)
        yield from _as_faults(_told("an interface is added", added, told))


def _adopted(world: World) -> World:
    """xl resumes the guest when its transport is gone; the daemon finds what is in the kernel."""
    running = world.running + world.suspended
    made = 0 if world.suspended else world.made
    gate = type(world.gate).adopt()
    if world.limits.opens_on_death:
        world = _applied(world, Effect(Do.OPEN))
    return world._replace(gate=gate, running=running, suspended=False, made=made)


def _as_faults(nexts: Iterator[_Next]) -> Iterator[_Next]:
    for name, after, _ in nexts:
        yield name, after, True
