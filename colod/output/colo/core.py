"""What the COLO proxy lets out, and when: its decisions, without sockets. Pure.

Before COLO begins, and when this host owns the guest alone, what the primary sends passes. From the
first checkpoint on it is compared, and each checkpoint releases what is held and begins anew.

**Where a checkpoint cuts the two inputs.** libxl says COLO_CHECKPOINT on a socket of its own, while
both copies are suspended; it waits for no answer and resumes them. So what the inputs bring around
that word may be from before or from after it, and a mistake would break the promise:

* A frame of the primary taken for older than it is leaves without proof. One taken for newer is
  held, at worst until the next checkpoint. So the primary's is cut *early*: what is released is
  what was taken in before the word was seen, and the caller looks for the word after it has read
  frames and before it hands them over. The word was sent before the primary ran on, so a frame
  sent after that cannot have been read by a caller that has not seen the word.
* A frame of the secondary taken for newer than it is proves what the secondary has forgotten. One
  taken for older is dropped and proves nothing. So the secondary's is cut *late*, and that is the
  harder half: the word says that the secondary is suspended, yet what it sent before may still be
  on its way from the other host, on a connection with its own losses and queues. Neither silence
  nor time proves that all has come. Proof is a mark in the stream, made by colod's relay on the
  secondary's host while its copy is suspended; or a *fence*, by somebody who knows that both copies
  are suspended and that all they sent was read here. Without either, the secondary's frames prove
  nothing from that checkpoint on, and output waits for checkpoints as in Remus.

QEMU's colo-compare takes whatever comes after the word for new.

Source: Xen tools/libs/light/libxl_colo_save.c, colo_read_svm_ready_done() (the word goes out
between CHECKPOINT_SVM_READY and the primary's resume) and libxl_colo_restore.c,
libxl__colo_restore_domain_resume_callback() (the secondary resumes right after sending that).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from colod.errors import NotAllowedNow, PeerRefused
from colod.output.colo.counts import Counts
from colod.output.colo.framing import Mark
from colod.output.compare.checkpoints import CheckpointOptions, Checkpoints, Step
from colod.output.compare.comparator import Comparator
from colod.output.compare.decisions import (
    Decisions,
    Drop,
    Lose,
    Reason,
    Release,
    RequestCheckpoint,
    Side,
)
from colod.output.compare.limits import Limits

_OVERHEAD_BYTES = 128
"""What is counted for a set aside frame besides its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """How the proxy of one guest decides.

    Attributes:
        limits: Bounds of the comparison.
        checkpoints: How often checkpoints are made.
        has_marks: Whether the secondary's frames come by colod's relay, with marks.
        are_cuts_assumed: Whether a checkpoint that was cut by neither mark nor fence is taken to be
            cut where the secondary's input was empty. **Not safe**: a frame that the network held
            back may then prove what the secondary has forgotten. It is what QEMU's comparator does.
            Such a guest must not be called protected.
        set_aside_bytes: Most that is set aside between a cut and its checkpoint. The guest is
            suspended for all of that time, so little can come.
    """

    limits: Limits = field(default_factory=Limits)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    has_marks: bool = False
    are_cuts_assumed: bool = False
    set_aside_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ValueError: If cuts are both marked and assumed, or nothing can be set aside.
        """
        if self.has_marks and self.are_cuts_assumed:
            raise ValueError("are_cuts_assumed: there is nothing to assume where there are marks")
        if self.set_aside_bytes <= 0:
            raise ValueError(f"set_aside_bytes {self.set_aside_bytes}: want more than 0")


class Phase(StrEnum):
    """What happens to the primary's output."""

    PASSING = "passing"
    """It passes: COLO has not begun."""
    COMPARING = "comparing"
    """It leaves when the secondary has said the same, or with a checkpoint."""
    ALONE = "alone"
    """It passes: this host owns the guest alone."""


class Event(StrEnum):
    """What somebody should know of, in the order in which it happened."""

    BEGUN = "begun"
    """From here on output is compared."""
    COMMITTED = "committed"
    """A checkpoint was made."""
    OVERDUE = "overdue"
    """A checkpoint was asked for and does not come: ask whether the secondary still lives."""
    LOST = "lost"
    """The first frames since the last checkpoint were lost for want of room, or of a way out."""
    PRIMARY_GONE = "primary_gone"
    """The primary's device model has closed its input: nothing more comes to be sent."""
    SECONDARY_GONE = "secondary_gone"
    """The secondary's has, or its host: output waits for checkpoints, if those still come."""
    OUT_GONE = "out_gone"
    """Nobody takes what may leave: it is lost."""
    LIBXL_GONE = "libxl_gone"
    """Nobody makes checkpoints any more: what is held stays held until `owner_alone`."""


class Effects(NamedTuple):
    """What to do now.

    Attributes:
        send: Frames of the primary to send, in this order.
        request: Whether to ask libxl for a checkpoint.
        events: What to tell.
    """

    send: Sequence[bytes] = ()
    request: bool = False
    events: Sequence[Event] = ()


class _SetAside(NamedTuple):
    side: Side
    frame: bytes
    checkpoint: int


class ProxyCore:
    """The decisions of one guest's proxy.

    `now` is in seconds, monotonic, never less than in a call before. Do what is returned, then look
    at `next_deadline`.
    """

    def __init__(
        self, options: ProxyOptions, observe: Callable[[float], None] = lambda _: None
    ) -> None:
        """Begin by letting everything pass.

        Args:
            options: How to decide.
            observe: Is told for how long each frame that was compared was held, in seconds.
        """
        self.phase = Phase.PASSING
        self._observe = observe
        self._arrived: dict[int, float] = {}
        self._options = options
        self._counts = Counts()
        self._comparator = Comparator(options.limits)
        self._checkpoints: Checkpoints | None = None
        self._has_begun = False
        self._committed = 0
        self._is_fenced = False
        self._secondary_at: int | None = None
        self._aside: list[_SetAside] = []
        self._aside_bytes = 0
        self._has_lost = False
        self._send: list[bytes] = []
        self._request = False
        self._events: list[Event] = []

    # -- what can be seen

    @property
    def checkpoint(self) -> int:
        """The number of the last checkpoint of this pairing, 0 before the first."""
        return self._committed

    @property
    def is_cut_proved(self) -> bool:
        """Whether what the secondary sends now is proved to be newer than the last checkpoint."""
        is_known = self._secondary_at is not None and self._secondary_at >= self._committed
        return is_known and not self._options.are_cuts_assumed

    def counts(self) -> Counts:
        """Return a copy of what was counted."""
        counts = copy.deepcopy(self._counts)
        counts.held_frames = self._comparator.held_frames + len(self._aside)
        counts.held_bytes = self._comparator.held_bytes + self._aside_bytes
        counts.connections = self._comparator.connections
        if self._checkpoints is not None:
            counts.requested += self._checkpoints.requested
            counts.made += self._checkpoints.made
            counts.unasked += self._checkpoints.unasked
            counts.overdue += self._checkpoints.overdue
        return counts

    def next_deadline(self) -> float | None:
        """Return when to call `on_deadline`, in seconds; None for never."""
        if self.phase is not Phase.COMPARING or self._checkpoints is None:
            return None
        deadlines = (self._comparator.next_deadline(), self._checkpoints.next_deadline())
        return min((each for each in deadlines if each is not None), default=None)

    # -- frames

    def primary(self, frames: Iterable[bytes], now: float) -> Effects:
        """Take frames that the primary wants to send.

        The caller has looked for COLO_CHECKPOINT after it read them: see the module.

        Args:
            frames: Ethernet frames with whole checksums.
            now: See the class.
        """
        for frame in frames:
            self._counts.primary_frames += 1
            self._counts.primary_bytes += len(frame)
            if self._is_fenced:
                self._set_aside(Side.PRIMARY, frame, self._committed + 1)
            elif self.phase is not Phase.COMPARING:
                self._counts.passed_frames += 1
                self._send.append(frame)
            else:
                self._arrived[id(frame)] = now
                self._decide(self._comparator.primary(frame, now), now)
        return self._effects()

    def secondary(self, items: Iterable[bytes | Mark], now: float) -> Effects:
        """Take frames that the secondary would send, and marks between them.

        Args:
            items: In the order in which they came.
            now: See the class.

        Raises:
            PeerRefused: If a mark goes back. End the connection.
        """
        for item in items:
            if isinstance(item, Mark):
                self._mark(item.checkpoint)
                continue
            self._counts.secondary_frames += 1
            self._counts.secondary_bytes += len(item)
            at = self._secondary_at
            if at is None or at < self._committed or not self._has_begun:
                self._counts.stale_frames += 1
            elif at == self._committed:
                self._secondary(item, now)
            else:
                self._set_aside(Side.SECONDARY, item, at)
        return self._effects()

    def lost(self, frames: int) -> Effects:
        """Take note of frames that were to be sent, and found no way out."""
        for _ in range(frames):
            self._lose()
        return self._effects()

    def secondary_connected(self) -> None:
        """Take note that the secondary's frames come by a new connection.

        What was in the old one may be lost, and what waits in the new one may be old: it proves
        nothing before the next cut.
        """
        self._secondary_at = None

    def _secondary(self, frame: bytes, now: float) -> None:
        if self.phase is Phase.COMPARING:
            self._decide(self._comparator.secondary(frame, now), now)
        else:
            self._counts.stale_frames += 1

    # -- checkpoints

    def begin(self) -> None:
        """Take note that libxl begins a pairing: its checkpoints count from 1.

        Raises:
            NotAllowedNow: If one is being compared still: its end must be settled first, by
                `owner_alone`, or a guest would be mute during the whole first copy.
        """
        if self.phase is Phase.COMPARING:
            raise NotAllowedNow(self.phase, "the COLO proxy still serves another pairing")
        self._has_begun = True
        self._committed = 0
        self._forget_aside()

    def fence(self) -> None:
        """Cut both inputs here, for the checkpoint that is being made.

        Call it when both copies are suspended for it, and all that they had sent was taken in;
        before either can run on.

        Raises:
            NotAllowedNow: If libxl has not begun.
        """
        if not self._has_begun:
            raise NotAllowedNow(self.phase, "no pairing to cut: libxl has not begun")
        self._is_fenced = True
        if not self._options.has_marks:
            self._secondary_at = self._committed + 1

    def ask(self, reason: Reason, now: float) -> Effects:
        """Ask for a checkpoint, if output is compared."""
        if self.phase is Phase.COMPARING:
            self._ask(reason, now)
        return self._effects()

    def checkpoint_committed(self, now: float) -> Effects:
        """Take note of COLO_CHECKPOINT: release what the primary sent before, compare anew.

        With `are_cuts_assumed`, hand over all that the secondary's input has before this.
        """
        if not self._has_begun:
            # Of a libxl whose pairing was ended by `owner_alone`.
            return self._effects()
        self._committed += 1
        self._cut()
        if self.phase is Phase.COMPARING and self._checkpoints is not None:
            self._checkpoints.committed(now)
            self._decide(self._comparator.checkpoint_committed(), now)
            # Nothing waits any more: what is left here was sent with a clamped window, or lost.
            self._arrived.clear()
            self._events.append(Event.COMMITTED)
        else:
            self.phase = Phase.COMPARING
            self._comparator = Comparator(self._options.limits)
            self._checkpoints = Checkpoints(self._options.checkpoints, now)
            self._counts.unasked += 1
            self._events.append(Event.BEGUN)
        self._has_lost = False
        self._take_back(now)
        return self._effects()

    def owner_alone(self, now: float) -> Effects:
        """Release all, for good: the witness confirmed that this host owns the guest alone.

        Another pairing begins with another connection of libxl.
        """
        if self.phase is Phase.COMPARING:
            self._decide(self._comparator.owner_alone(), now)
            aside = [each.frame for each in self._aside if each.side is Side.PRIMARY]
            self._counts.released_frames += len(aside)
            self._send.extend(aside)
        self._arrived.clear()
        self._fold()
        self.phase = Phase.ALONE
        self._has_begun = False
        self._committed = 0
        self._secondary_at = None
        self._forget_aside()
        return self._effects()

    def on_deadline(self, now: float) -> Effects:
        """Do what is due."""
        deadline = self.next_deadline()
        if deadline is not None and now >= deadline and self._checkpoints is not None:
            self._decide(self._comparator.on_deadline(now), now)
            self._step(self._checkpoints.on_deadline(now))
        return self._effects()

    def _mark(self, checkpoint: int) -> None:
        if self._secondary_at is not None and checkpoint < self._secondary_at:
            raise PeerRefused(f"mark {checkpoint} after mark {self._secondary_at}")
        self._secondary_at = checkpoint

    def _cut(self) -> None:
        """Note whether what the secondary sends next is proved to be newer than this checkpoint."""
        self._is_fenced = False
        if self._options.are_cuts_assumed:
            if self._secondary_at != self._committed:
                self._counts.assumed += 1
                self._secondary_at = self._committed
        elif self._secondary_at is None or self._secondary_at < self._committed:
            # A mark may still come, and prove what follows it.
            self._counts.uncut += 1

    # -- frames that belong to the next checkpoint's time

    def _set_aside(self, side: Side, frame: bytes, checkpoint: int) -> None:
        cost_bytes = len(frame) + _OVERHEAD_BYTES
        if self._aside_bytes + cost_bytes <= self._options.set_aside_bytes:
            self._aside.append(_SetAside(side, frame, checkpoint))
            self._aside_bytes += cost_bytes
        elif side is Side.PRIMARY:
            self._lose()
        else:
            self._counts.stale_frames += 1

    def _take_back(self, now: float) -> None:
        """Compare what was set aside for the checkpoint that was made."""
        aside = self._aside
        self._forget_aside()
        for side, frame, checkpoint in aside:
            if checkpoint > self._committed:
                self._set_aside(side, frame, checkpoint)
            elif side is Side.PRIMARY:
                self._decide(self._comparator.primary(frame, now), now)
            elif checkpoint == self._committed:
                self._decide(self._comparator.secondary(frame, now), now)
            else:
                self._counts.stale_frames += 1

    def _forget_aside(self) -> None:
        self._aside = []
        self._aside_bytes = 0
        self._is_fenced = False

    # -- carrying decisions out

    def _decide(self, decisions: Decisions, now: float) -> None:
        for each in decisions:
            match each:
                case Release(frame):
                    self._counts.released_frames += 1
                    # Held, it was the same object; one whose window was clamped is another.
                    self._observe(now - self._arrived.pop(id(frame), now))
                    self._send.append(frame)
                case Drop():
                    self._counts.matched_frames += 1
                case Lose():
                    self._lose()
                case RequestCheckpoint(reason):
                    self._ask(reason, now)

    def _ask(self, reason: Reason, now: float) -> None:
        if self._checkpoints is not None:
            self._step(self._checkpoints.ask(reason, now))

    def _step(self, step: Step | None) -> None:
        if step is Step.REQUEST:
            self._request = True
        elif step is Step.OVERDUE:
            self._events.append(Event.OVERDUE)

    def _lose(self) -> None:
        self._counts.lost_frames += 1
        if not self._has_lost:
            self._has_lost = True
            self._events.append(Event.LOST)

    def _fold(self) -> None:
        """Keep what was counted of a pairing that is over."""
        counts = self.counts()
        counts.held_frames = counts.held_bytes = counts.connections = 0
        self._counts = counts
        self._checkpoints = None
        self._comparator = Comparator(self._options.limits)

    def _effects(self) -> Effects:
        effects = Effects(tuple(self._send), self._request, tuple(self._events))
        self._send.clear()
        self._events.clear()
        self._request = False
        return effects
