"""The sender's side of the output gate: what `Gate` decides, done to libxl's pipe and the plugs.

The effects on the plugs go through one queue and one thread, so that they happen in the order in
which they were decided. The pipe is narrowed at once, before anything more is read from it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol, TypeVar

from colod.errors import ColodError, NetworkError
from colod.measures import Measure, Measures
from colod.output.gate import (
    LOCKED_READ_BYTES,
    PIPE_PAGE_BYTES,
    Do,
    Effect,
    Effects,
    Gate,
    Phase,
)
from colod.output.port import NotClosed, Plugs, Survey
from colod.session.progress import UNKNOWN
from colod.session.quiesce import Quiesce
from colod.stream.events import EpochOpened, EpochSealed, Event, GuestMayResume
from colod.v1 import types_pb2

SURVEY_S: Final = 0.5
STEP_S: Final = 15.0
_ERROR_CHARS: Final = 500
_PHASES: Final = {
    Phase.OPEN: types_pb2.GATE_PHASE_OPEN,
    Phase.CLOSING: types_pb2.GATE_PHASE_CLOSING,
    Phase.HOLDING: types_pb2.GATE_PHASE_HOLDING,
    Phase.LOST: types_pb2.GATE_PHASE_LOST,
    Phase.OPENING: types_pb2.GATE_PHASE_OPENING,
    Phase.OPENED: types_pb2.GATE_PHASE_OPENED,
}

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Resizable(Protocol):
    """A pipe whose room can be changed."""

    def resize(self, octets: int) -> int:
        """Make room for `octets` bytes; return for how many there is.

        Raises:
            OSError: If it holds more than that, or may not have so much.
        """


class Holding:
    """Holds one guest's output until its epoch is acknowledged."""

    def __init__(
        self,
        plugs: Plugs,
        pipe: Resizable,
        pipe_bytes: int,
        changed: Callable[[], None],
        step_s: float = STEP_S,
        measures: Measures | None = None,
    ) -> None:
        """Begin with an open gate; nothing is touched before `prepare`.

        Args:
            plugs: Of the guest.
            pipe: libxl's stream.
            pipe_bytes: The pipe's size for bulk.
            changed: Called when the gate is in another phase, or protects, or does not any more.
            step_s: Longest wait for one call to the plugs; a guest may be suspended for so long,
                once.
            measures: Where to count how long output was held.
        """
        self.gate = Gate()
        self.quiesce = Quiesce()
        self._plugs = plugs
        self._pipe = pipe
        self._pipe_bytes = pipe_bytes
        self._changed = changed
        self._step_s = step_s
        self._measures = measures or Measures()
        self._queue: asyncio.Queue[Effect] = asyncio.Queue()  # bounded by the gate: see its rules
        self._thread = ThreadPoolExecutor(1, "plugs")
        # A look must not stand before a barrier: the guest is suspended while that waits.
        self._looker = ThreadPoolExecutor(1, "survey")
        self._used = asyncio.Event()
        self._shrink: Effect | None = None
        self._is_widening_due = False
        self._opened_at_byte = 0
        self._survey = Survey()
        self._error = ""
        self._barriers = 0
        self._skipped: Counter[str] = Counter()
        self._oldest_at = 0.0
        self._waiting_since: dict[int, float] = {}
        self._hold_s = UNKNOWN

    # -- what happens

    async def prepare(self) -> None:
        """Make the plugs, before the guest's output is touched.

        Raises:
            NetworkError: If that cannot be done.
        """
        await self._run(self._plugs.prepare)

    def on_event(self, event: Event) -> None:
        """Take note of the stream's next event, before anything more is read."""
        match event:
            case EpochOpened():
                self._opened_at_byte = event.offset
                if event.epoch > 1:
                    self._shrink = None
                    is_certain = self.gate.is_certain(event.epoch)
                    self.quiesce.window(event.epoch, is_certain=is_certain)
                    self._apply(self.gate.checkpoint_begun(event.epoch))
                    if self.quiesce.kept_epoch:
                        self._changed()
            case GuestMayResume():
                length = event.offset - self._opened_at_byte
                self.quiesce.may_resume(event.epoch, length)
                self._apply(self.gate.may_resume(event.epoch, length))
            case EpochSealed():
                self._apply(self.gate.sealed_whole(event.epoch))

    def acknowledged(self, epoch: int) -> None:
        """Take note that the secondary has all of `epoch`."""
        self._apply(self.gate.acknowledged(epoch))

    @property
    def waits_for(self) -> str:
        """What `may_read` waits for now, as `waits_for` in types.proto; "" for nothing."""
        if self.gate.window:
            return "gate"
        return "switchover" if self.quiesce.kept_epoch else ""

    async def may_read(self, record_rest_bytes: int) -> int | None:
        """Wait until the pipe may be read; return how much at once, None for any amount.

        Args:
            record_rest_bytes: What the record in which the stream stands still lacks. All of it
                belongs to the present epoch, so it may be read even in lock-step.
        """
        while self.gate.window:
            self._used.clear()
            await self._used.wait()
        await self.quiesce.passed()
        if self._is_widening_due:
            self._widen()
        if self._shrink is not None:
            self._try_shrink(self._shrink)
        self._apply(self.gate.reading())
        limit = self.gate.read_limit_bytes
        if limit is None and self._shrink is None:
            return None
        return max(LOCKED_READ_BYTES, record_rest_bytes)

    async def run(self) -> None:
        """Carry out the effects on the plugs, in their order; never returns."""
        while True:
            effect = await self._queue.get()
            try:
                await self._run(partial(self._carry_out, effect))
            except (ColodError, OSError) as error:
                _log.warning("gate.failed effect=%s error=%r", effect.do, str(error))
                undone = isinstance(error, NotClosed) and error.undone
                self._error = f"{effect.do}: {error}"[:_ERROR_CHARS]
                self._apply(self.gate.failed(effect, str(error), undone=undone))
            else:
                self._book(effect, time.monotonic())
                self._apply(self.gate.done(effect))

    async def watch(self) -> None:
        """Look now and then what the plugs hold and which interfaces there are; never returns."""
        while True:
            await asyncio.sleep(SURVEY_S)
            try:
                self._surveyed(await self._run(self._plugs.survey, self._looker))
            except (ColodError, OSError) as error:
                _log.warning("gate.not_surveyed error=%r", str(error))

    def status(self) -> types_pb2.Gate:
        """Return how the gate stands."""
        gate, survey = self.gate, self._survey
        return types_pb2.Gate(
            phase=_PHASES[gate.phase],
            is_protected=gate.is_protected,
            sound_from=gate.sound_from,
            released_epoch=gate.released,
            barriers=self._barriers,
            skipped=dict(self._skipped),
            held_packets=survey.packets,
            held_bytes=survey.octets,
            dropped_packets=survey.dropped,
            hold_s=self._hold_s,
            uncovered=sorted(gate.uncovered),
            error=self._error,
            not_in_replica=sorted(survey.added),
        )

    # -- what is done

    async def _run(self, work: Callable[[], T], thread: ThreadPoolExecutor | None = None) -> T:
        """Do something with the plugs; what takes too long has failed, and may still happen."""
        doing = asyncio.get_running_loop().run_in_executor(thread or self._thread, work)
        try:
            async with asyncio.timeout(self._step_s):  # wait_for can swallow a cancellation
                return await doing
        except TimeoutError as error:
            raise NetworkError(f"no answer within {self._step_s:g} s") from error

    def _apply(self, step: tuple[Gate, Effects]) -> None:
        before = self.gate
        self.gate, effects = step
        for effect in effects:
            self._begin(effect)
        if not self.gate.window:
            self._used.set()
        if (before.phase, before.is_protected) != (self.gate.phase, self.gate.is_protected):
            _log.info("gate.changed phase=%s protected=%s", self.gate.phase, self.gate.is_protected)
            self._changed()

    def _begin(self, effect: Effect) -> None:
        match effect.do:
            case Do.SHRINK_PIPE:
                self._shrink = effect
                self._try_shrink(effect)
            case Do.WIDEN_PIPE:
                self._widen()
            case Do.NOTE_SKIPPED:
                self._skipped[effect.detail] += 1
            case Do.NOTE_LOST:
                self._error = effect.detail[:_ERROR_CHARS]
                _log.error("gate.lost epoch=%d reason=%r", effect.epoch, effect.detail)
            case Do.NOTE_OVERFLOW:
                _log.error("gate.overflowed epoch=%d packets=%s", effect.epoch, effect.detail)
            case _:
                self._queue.put_nowait(effect)

    def _try_shrink(self, effect: Effect) -> None:
        """Narrow the pipe; what fills it is read first, and then it is tried again."""
        try:
            is_narrow = self._pipe.resize(PIPE_PAGE_BYTES) <= PIPE_PAGE_BYTES
        except OSError:
            return
        self._shrink = None
        if is_narrow:
            self._apply(self.gate.done(effect))
        else:
            self._apply(self.gate.failed(effect, "the pipe is longer than a page"))

    def _widen(self) -> None:
        # A wide pipe takes the rest of the checkpoint although nobody reads, and the guest runs on.
        self._is_widening_due = bool(self.quiesce.kept_epoch)
        if self._is_widening_due:
            return
        try:
            self._pipe.resize(self._pipe_bytes)
        except OSError as error:  # a loss of speed
            _log.debug("pipe.not_widened error=%r", str(error))

    def _carry_out(self, effect: Effect) -> None:
        match effect.do:
            case Do.CLOSE:
                self._plugs.close()
            case Do.COVER:
                self._plugs.cover(effect.detail)
            case Do.SET_BARRIER:
                self._plugs.set_barrier()
            case Do.RELEASE_ONE:
                self._plugs.release_one()
            case Do.OPEN:
                self._plugs.open()
            case _:
                raise NetworkError(f"{effect.do} is nothing for a plug")

    def _book(self, effect: Effect, now: float) -> None:
        if effect.do is Do.SET_BARRIER:
            self._barriers += 1
            self._waiting_since[effect.epoch] = self._oldest_at
        if effect.do in (Do.CLOSE, Do.SET_BARRIER):
            self._oldest_at = now
        if effect.do is Do.RELEASE_ONE:
            self._hold_s = now - self._waiting_since.pop(effect.epoch, now)
            self._measures.observe(Measure.HOLD, self._hold_s)
            self._waiting_since.clear()

    def _surveyed(self, survey: Survey) -> None:
        dropped = survey.dropped - self._survey.dropped
        self._survey = survey
        if dropped > 0:
            self._apply(self.gate.overflowed(dropped))
        for name in sorted(survey.appeared):
            _log.warning("gate.interface_uncovered interface=%s", name)
            self._apply(self.gate.interface_seen(name))
        for name in sorted(survey.vanished):
            self._apply(self.gate.interface_gone(name))
