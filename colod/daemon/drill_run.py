"""A drill under way, of whatever kind: it ends in order and is recorded, whoever goes away.

A drill has a task of its own, and a mark on disk that is written before anything is touched, so
that the next daemon sees to what a dead one left.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, replace
from typing import Any, Final

import structlog

from colod.daemon.drill_log import ABORTED, FAILED, Drill, DrillLog, Mark, drill_message
from colod.daemon.protection import ProtectionService
from colod.daemon.unbroken import unbroken
from colod.errors import ColodError, NotAllowedNow
from colod.observe.logs import Event
from colod.v1 import admin_pb2

DETAIL_CHARS: Final = 500

_log = structlog.get_logger()


class DrillRun(ABC):
    """One drill under way.

    Attributes:
        told: What its caller is told, None at the end.
        drill: Its record so far.
    """

    def __init__(self, log: DrillLog, mark: Mark, timeout_s: float) -> None:
        """Begin nothing yet.

        Args:
            log: Where it is marked and recorded.
            mark: What the next daemon has to know of it.
            timeout_s: Longest drill, without what is done at its end.
        """
        self.told: asyncio.Queue[admin_pb2.DrillReply | None] = asyncio.Queue()
        self.drill = mark.drill
        self._log = log
        self._mark = mark
        self._timeout_s = timeout_s
        self._why = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None]:
        """What carries it out, once it was started."""
        assert self._task is not None
        return self._task

    def start(self, on_end: Callable[[], object]) -> None:
        """Begin; `on_end` is called when all is done."""
        running, guest = self._log.running, self.drill.guest
        running[guest] = self.drill
        self._task = asyncio.create_task(self._run(), name=f"drill {guest}")
        self._task.add_done_callback(lambda _: running.pop(guest, None))
        self._task.add_done_callback(lambda _: on_end())

    def give_up(self, why: str) -> None:
        """End it in order, unless it has ended."""
        if not self._why and not self.task.done():
            self._why = why
            self.task.cancel()

    async def follow(
        self, first: admin_pb2.DrillReply, *, if_left: str
    ) -> AsyncGenerator[admin_pb2.DrillReply, None]:
        """Yield `first` and what is told from then on; closing this early gives the drill up."""
        try:
            yield first
            while (told := await self.told.get()) is not None:
                yield told
        finally:
            self.give_up(if_left)

    @abstractmethod
    async def _steps(self) -> None:
        """Do what is to be tried out, and note what comes of it."""

    @abstractmethod
    def _late(self) -> str:
        """Return what to say of a drill whose time is over."""

    @abstractmethod
    async def _settle(self) -> None:
        """See to what the drill leaves, and record it in `drill`."""

    async def _run(self) -> None:
        try:
            await self._carry_out()
        finally:
            self.told.put_nowait(None)

    async def _carry_out(self) -> None:
        _log.info(Event.DRILL_STARTED, protection=self.drill.guest, operator=self.drill.operator)
        try:
            await asyncio.to_thread(self._log.begin, self._mark)
            async with asyncio.timeout(self._timeout_s):
                await self._steps()
        except asyncio.CancelledError:
            # What follows is to be done all the same: nobody else knows of what was begun.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            self._is(verdict=ABORTED, detail=self._why)
        except TimeoutError:
            self._is(verdict=ABORTED, detail=self._late()[:DETAIL_CHARS])
        except (ColodError, OSError) as error:
            self._is(verdict=FAILED, detail=str(error)[:DETAIL_CHARS])
        except Exception as error:
            # A defect of ours: what was begun is to be ended all the same.
            _log.exception(Event.DEFECT_DETECTED, protection=self.drill.guest)
            self._is(verdict=FAILED, detail=f"a defect of colod: {error!r}"[:DETAIL_CHARS])
        await unbroken(self._end())

    async def _end(self) -> None:
        await self._settle()
        self._tell("done", record=drill_message(self.drill))

    def _is(self, **changes: Any) -> None:
        self.drill = replace(self.drill, **changes)

    def _tell(self, step: str, **fields: Any) -> None:
        self.told.put_nowait(
            admin_pb2.DrillReply(
                id=self.drill.id,
                step=step,
                domain=self._mark.domain,
                epoch=self.drill.epoch,
                **fields,
            )
        )


async def check_alone(log: DrillLog, service: ProtectionService, kind: str) -> None:
    """Check that no drill of a guest is under way here, and that none of another kind is marked.

    A guest has one mark: the next one would hide what that drill has left. Nothing else may be
    awaited between this and the drill's start.

    Raises:
        NotAllowedNow: If one is.
    """
    guest = service.guest
    marked = await asyncio.to_thread(log.marked, guest)
    if (other := log.running.get(guest)) is not None:
        by = f", asked for by {other.operator}" if other.operator else ""
        raise NotAllowedNow(
            service.state,
            f"a drill ({other.kind}) of {guest} is under way here{by}",
            advice="wait for it, or interrupt it; see: colodctl drill report",
        )
    if marked not in ("", kind):
        raise NotAllowedNow(
            service.state,
            f"what a drill ({marked}) of {guest} has left here is not cleared away",
            advice="restart colod, which tries again; see: colodctl drill report",
        )


async def record(
    log: DrillLog, drill: Drill, left: str, *, event: Event = Event.DRILL_FINISHED
) -> Drill:
    """Record how a drill ended, and return the record.

    Args:
        log: Where to.
        drill: What came of it.
        left: What could not be seen to, in words: it stays marked for the next daemon. Or "".
        event: How the daemon's own log calls it.
    """
    drill = replace(drill, detail=_joined(drill.detail, left))
    try:
        if not log.has(drill.id):  # else it was recorded, and could not be seen to then
            await asyncio.to_thread(log.add, drill)
    except OSError as error:
        drill = replace(drill, detail=_joined(drill.detail, f"record: {error}"))
    try:
        # Also where there is no record: what the mark has seen to must not be seen to again, when
        # something else may be wanted.
        if not left:
            await asyncio.to_thread(log.cleared, drill.guest)
    except OSError as error:
        drill = replace(drill, detail=_joined(drill.detail, f"mark: {error}"))
    fields = {key: value for key, value in asdict(drill).items() if key not in ("guest", "host")}
    _log.info(event, protection=drill.guest, **fields)
    return drill


def _joined(*texts: str) -> str:
    return "; ".join(filter(None, texts))
