"""When a guest's output is held and when it may leave: the gate's decisions, without I/O.

The promise: no packet of epoch N leaves before the secondary has acknowledged epoch N. The kernel's
`plug` qdisc counts packets and knows nothing of epochs, so what keeps the promise is the order of
calls, and the proof that each barrier was set while the guest was suspended. Three rules hold it:

* *Lock-step.* After libxc's CHECKPOINT record of epoch N-1 the pipe is shrunk to one page. A first
  byte of epoch N that was read after that finds libxc blocked and the guest suspended until we read
  on, which we do only when the barrier is in place. Anything else is no certain window.
* *Two-BUFFER rule.* Never a second barrier before the first one's RELEASE_ONE: it would overwrite
  the saved count, and the next release would let newer packets out. A checkpoint that comes while a
  barrier waits for its acknowledgement skips its own; its output joins the next certain one.
* *One way.* A gate closes once, onto a fresh plug, and opens once, when this host owns the guest
  alone. Any doubt in between leaves it closed.

`Gate` is a value: each event returns the next gate and effects, to be carried out in their order.
The effects on the kernel go through one queue that keeps their order; the outcome of each is told
by `done` or `failed`.

Source of the plug's rules: Linux net/sched/sch_plug.c, plug_change() and plug_dequeue():
TCQ_PLUG_BUFFER assigns (not adds) the count of packets since the last BUFFER to the saved count;
TCQ_PLUG_RELEASE_ONE adds the saved count to what may leave *from the head*, whatever is there, and
clears it; TCQ_PLUG_RELEASE_INDEFINITE clears all counts and lets packets in uncounted; a new qdisc
is throttled, so it holds from the start; nothing of this can be read back (there is no dump).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from colod.errors import InvariantBroken
from colod.model import FIRST_PROMOTABLE_EPOCH

PIPE_PAGE_BYTES = 4096
"""What the shrunk pipe holds: one x86 page.

Source: Linux fs/pipe.c, round_pipe_size() and pipe_resize_ring().
"""

LOCKED_READ_BYTES = 16
"""Most that may be read at once from the shrunk pipe: libxl's CHECKPOINT_END and one more header.

Each byte that is read lets libxc write one more, so little is read until the window is used.
"""

LOCK_STEP_BYTES = PIPE_PAGE_BYTES + LOCKED_READ_BYTES
"""A checkpoint of no more than this could have been written whole behind a shrunk pipe.

None is so short (a PV guest's SHARED_INFO and VCPU_BASIC alone are 9272 bytes, an HVM guest's
HVM_CONTEXT is longer than a page), but that is checked and not assumed.
"""


class Phase(StrEnum):
    """Where a gate is on its one way."""

    OPEN = "open"
    """Output flows; the gate waits for the first certain window."""
    CLOSING = "closing"
    """The guest is suspended and its output is being turned into the plugs."""
    HOLDING = "holding"
    """Output leaves by acknowledged epochs."""
    LOST = "lost"
    """Closed, with counts that nobody knows any more: nothing leaves until ownership is settled."""
    OPENING = "opening"
    """This host owns the guest alone; the redirects are being removed."""
    OPENED = "opened"
    """Output flows for good. Another protection takes another gate."""


class Lock(StrEnum):
    """How far lock-step with libxc has come for the next checkpoint."""

    FREE = "free"
    SHRUNK = "shrunk"
    """The pipe is one page long, but what is read next may have been taken out before."""
    LOCKED = "locked"
    """What arrives now was read after the shrink: libxc is at most a page ahead of us."""


class Do(StrEnum):
    """What an effect does. The first six answer by `done` or `failed`, the others by nothing."""

    CLOSE = "close"
    """Redirect every interface into its fresh plug: all of them, or none."""
    COVER = "cover"
    """Give one more interface, `detail`, a fresh plug; redirect it there if the gate is closed."""
    SET_BARRIER = "set_barrier"
    """TCQ_PLUG_BUFFER on every plug."""
    RELEASE_ONE = "release_one"
    """TCQ_PLUG_RELEASE_ONE on every plug."""
    OPEN = "open"
    """TCQ_PLUG_RELEASE_INDEFINITE on every plug, then remove the redirects."""
    SHRINK_PIPE = "shrink_pipe"
    """Set libxl's pipe to PIPE_PAGE_BYTES, at once, before anything more is read."""
    WIDEN_PIPE = "widen_pipe"
    """Set libxl's pipe back to its full size; if that fails, only speed is lost."""
    NOTE_SKIPPED = "note_skipped"
    """Count a window without a barrier; `detail` is a `Skip`."""
    NOTE_LOST = "note_lost"
    """Tell the daemon, with `detail`: only an end of this pairing lets output flow again."""
    NOTE_OVERFLOW = "note_overflow"
    """Alarm: a plug was full and `detail` packets of the guest were dropped."""


class Skip(StrEnum):
    """Why a checkpoint got no barrier."""

    NOT_LOCKED = "not_locked"
    """Its first byte came before the pipe was shrunk, or the pipe could not be shrunk."""
    UNACKNOWLEDGED = "unacknowledged"
    """An earlier barrier still waits for its acknowledgement."""
    CLOSE_FAILED = "close_failed"
    """The gate could not be closed, and everything is as it was; the next window tries again."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing to do, in its turn.

    Attributes:
        do: What.
        epoch: The epoch that it concerns, 0 for none.
        detail: An interface's name, a reason or a number, as `do` says.
    """

    do: Do
    epoch: int = 0
    detail: str = ""


Effects = tuple[Effect, ...]
_WIDEN = Effect(Do.WIDEN_PIPE)
_MUST_SUCCEED = frozenset({Do.CLOSE, Do.SET_BARRIER, Do.RELEASE_ONE, Do.OPEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The gate of one pairing on its primary.

    Attributes:
        phase: Where it is on its way.
        lock: How far lock-step has come for the next checkpoint.
        window: The epoch whose suspended window is being used, 0 for none: do not read on.
        begun: The newest epoch whose checkpoint has begun; 1 is the first copy.
        resumed: The newest epoch after which libxc let the guest run on.
        sealed: The newest whole epoch.
        acked: The newest acknowledged epoch.
        released: The newest epoch whose barrier was released.
        barrier: The epoch that must be acknowledged before the next RELEASE_ONE, 0 for no barrier.
        sound_from: The epoch from whose acknowledgement on nothing that left can be lost, 0 while
            it is not known.
        uncovered: Interfaces of the guest that CLOSE and SET_BARRIER do not reach yet.
    """

    phase: Phase = Phase.OPEN
    lock: Lock = Lock.FREE
    window: int = 0
    begun: int = 1
    resumed: int = 0
    sealed: int = 0
    acked: int = 0
    released: int = 0
    barrier: int = 0
    sound_from: int = 0
    uncovered: frozenset[str] = frozenset()

    @classmethod
    def adopt(cls) -> Gate:
        """Return the gate for plugs that a session left closed: only `owner_alone` opens it."""
        return cls(phase=Phase.LOST)

    # -- what can be seen

    @property
    def is_closed(self) -> bool:
        """Whether output of the guest is, or may be, held."""
        return self.phase not in (Phase.OPEN, Phase.OPENED)

    @property
    def is_protected(self) -> bool:
        """Whether all that ever left is of epochs that the secondary has."""
        return self.phase is Phase.HOLDING and 0 < self.sound_from <= self.acked

    @property
    def read_limit_bytes(self) -> int | None:
        """How much may be read from libxl's pipe at once: 0 for nothing, None for any amount."""
        if self.window:
            return 0
        return None if self.lock is Lock.FREE else LOCKED_READ_BYTES

    def is_certain(self, epoch: int) -> bool:
        """Whether the guest, at the first byte of `epoch`, is proved suspended until we read on."""
        return self.lock is Lock.LOCKED and FIRST_PROMOTABLE_EPOCH <= epoch == self.resumed + 1

    # -- the stream

    def may_resume(self, epoch: int, checkpoint_bytes: int) -> tuple[Gate, Effects]:
        """Take note of libxc's CHECKPOINT record of `epoch`: the guest runs on from here.

        Args:
            epoch: Its number.
            checkpoint_bytes: Length of the epoch so far, from its first byte through that record.
        """
        _expect(epoch == self.begun == self.resumed + 1 and not self.window, "CHECKPOINT", self)
        gate = replace(self, resumed=epoch, lock=Lock.FREE)
        if epoch > 1 and checkpoint_bytes <= LOCK_STEP_BYTES:
            gate = gate._after_short(epoch)
        wanted = gate.phase in (Phase.OPEN, Phase.HOLDING)
        return gate, (Effect(Do.SHRINK_PIPE, epoch + 1),) if wanted else ()

    def reading(self) -> tuple[Gate, Effects]:
        """Take note that the pipe is about to be read, within `read_limit_bytes`.

        What was read before the shrink proves nothing, so only this arms the lock.
        """
        _expect(not self.window, "read", self)
        armed = self.lock is Lock.SHRUNK
        return (replace(self, lock=Lock.LOCKED) if armed else self), ()

    def checkpoint_begun(self, epoch: int) -> tuple[Gate, Effects]:
        """Take note of the first byte of `epoch`'s checkpoint; read on by `read_limit_bytes`."""
        _expect(epoch == self.begun + 1 and not self.window, "checkpoint", self)
        gate = replace(self, begun=epoch, lock=Lock.FREE)
        if self.phase not in (Phase.OPEN, Phase.HOLDING):
            return gate, (_WIDEN,)
        if not self.is_certain(epoch):
            return gate._skip(Skip.NOT_LOCKED)
        if self.phase is Phase.OPEN:
            return gate._close(epoch)
        if not self._may_set_barrier():
            return gate._sound(epoch)._skip(Skip.UNACKNOWLEDGED)
        return replace(gate, window=epoch), (Effect(Do.SET_BARRIER, epoch),)

    def sealed_whole(self, epoch: int) -> tuple[Gate, Effects]:
        """Take note of libxl's CHECKPOINT_END of `epoch`."""
        _expect(self.sealed < epoch <= self.resumed, "seal", self)
        return replace(self, sealed=epoch), ()

    def acknowledged(self, epoch: int) -> tuple[Gate, Effects]:
        """Take note that the secondary has all of `epoch`, and so of those before it."""
        _expect(self.acked < epoch <= self.sealed, "ACK", self)
        gate = replace(self, acked=epoch)
        if self.phase is not Phase.HOLDING or not self._may_release(epoch):
            return gate, ()
        return replace(gate, barrier=0), (Effect(Do.RELEASE_ONE, self.barrier),)

    # -- outcomes

    def done(self, effect: Effect) -> tuple[Gate, Effects]:
        """Take note that `effect` was carried out."""
        match effect.do:
            case Do.SHRINK_PIPE if self.begun == self.resumed == effect.epoch - 1:
                return replace(self, lock=Lock.SHRUNK), ()
            case Do.CLOSE if self.phase is Phase.CLOSING:
                gate = replace(self, phase=Phase.HOLDING, window=0)
                return gate._sound(effect.epoch), (_WIDEN,)
            case Do.SET_BARRIER if self.window == effect.epoch:
                gate = replace(self, barrier=effect.epoch, window=0)
                return gate._sound(effect.epoch), (_WIDEN,)
            case Do.RELEASE_ONE:
                return replace(self, released=max(self.released, effect.epoch)), ()
            case Do.COVER:
                return replace(self, uncovered=self.uncovered - {effect.detail}), ()
            case Do.OPEN if self.phase is Phase.OPENING:
                return replace(self, phase=Phase.OPENED), ()
        return self, ()

    def failed(self, effect: Effect, why: str, *, undone: bool = False) -> tuple[Gate, Effects]:
        """Take note that `effect` failed, or that nobody knows whether it was carried out.

        Args:
            effect: Which.
            why: For people.
            undone: For CLOSE: whether the network is verified to be as it was before.
        """
        if effect.do is Do.CLOSE and self.phase is Phase.CLOSING and undone:
            return replace(self, phase=Phase.OPEN, window=0)._skip(Skip.CLOSE_FAILED)
        if effect.do in _MUST_SUCCEED and self.is_closed:
            return self._lose(why)
        return self, ()

    def overflowed(self, packets: int) -> tuple[Gate, Effects]:
        """Take note of packets that a full plug dropped: a loss to the guest, none to the promise.

        sch_plug counts only what it queues, so a dropped packet shifts no release.
        """
        return self, (Effect(Do.NOTE_OVERFLOW, self.begun, str(packets)),)

    # -- interfaces and ownership

    def interface_seen(self, name: str) -> tuple[Gate, Effects]:
        """Take note of an interface that came after the set-up, or of one that is not closed.

        What it let out before it was covered may be lost, so the guest counts as protected again
        only from the acknowledgement of the next certain window. Say it again after COVER failed.
        """
        if self.phase in (Phase.OPENING, Phase.OPENED):
            return self, ()
        gate = replace(self, uncovered=self.uncovered | {name}, sound_from=0)
        return gate, (Effect(Do.COVER, self.begun, name),)

    def interface_gone(self, name: str) -> tuple[Gate, Effects]:
        """Take note that an interface is no more; what it let out stays out."""
        return replace(self, uncovered=self.uncovered - {name}), ()

    def owner_alone(self) -> tuple[Gate, Effects]:
        """Open, for good: the witness confirmed that this host owns the guest alone."""
        if self.phase is Phase.OPENED:
            return self, ()
        gate = replace(self, phase=Phase.OPENING, window=0, lock=Lock.FREE, barrier=0)
        return replace(gate, sound_from=0), (_WIDEN, Effect(Do.OPEN))

    # -- rules

    def _may_set_barrier(self) -> bool:
        """Whether no saved count would be overwritten (the two-BUFFER rule)."""
        return not self.barrier

    def _may_release(self, acked: int) -> bool:
        """Whether all packets before the barrier are of acknowledged epochs."""
        return 0 < self.barrier <= acked

    def _close(self, epoch: int) -> tuple[Gate, Effects]:
        gate = replace(self, phase=Phase.CLOSING, window=epoch)
        return gate, (Effect(Do.CLOSE, epoch),)

    def _skip(self, why: Skip) -> tuple[Gate, Effects]:
        return self, (Effect(Do.NOTE_SKIPPED, self.begun, why), _WIDEN)

    def _lose(self, why: str) -> tuple[Gate, Effects]:
        effects: Effects = (Effect(Do.NOTE_LOST, self.begun, why),)
        gate = replace(self, phase=Phase.LOST, window=0, lock=Lock.FREE, sound_from=0)
        return gate, (*effects, _WIDEN) if self.window else effects

    def _sound(self, epoch: int) -> Gate:
        """Count from `epoch` on: in its window the guest is suspended and all is closed."""
        is_new = not self.sound_from and not self.uncovered
        return replace(self, sound_from=epoch) if is_new else self

    def _after_short(self, epoch: int) -> Gate:
        """Take back what was built on the window of a checkpoint that fits a shrunk pipe.

        The guest may have run on before the barrier, so newer packets may stand before it; they
        are of the next epoch, or of a later one only if that was as short.
        """
        barrier = epoch + 1 if self.barrier == epoch else self.barrier
        sound_from = 0 if self.sound_from == epoch else self.sound_from
        return replace(self, barrier=barrier, sound_from=sound_from)


def _expect(condition: bool, what: str, gate: Gate) -> None:
    """Stop a caller that tells things in an order that they cannot have."""
    if not condition:
        raise InvariantBroken(f"gate: {what} out of order: {gate}")
