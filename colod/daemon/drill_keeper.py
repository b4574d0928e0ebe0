"""The drills of one kind on one host: one at a time for each guest, ended in order, and cleared."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from colod.daemon.drill_log import DrillLog
from colod.daemon.drill_run import DrillRun
from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.errors import PreflightRefused
from colod.v1 import admin_pb2


class AnyRequest(Protocol):
    """What a request for a drill of any kind has."""

    guest: str
    dry_run: bool
    timeout_s: float


RequestT = TypeVar("RequestT", bound=AnyRequest)
RunT = TypeVar("RunT", bound=DrillRun)


class DrillKeeper(ABC, Generic[RequestT, RunT]):
    """Keeps what is under way, and sees to what a daemon that died has left.

    Attributes:
        log: Where drills are marked and recorded.
        running: What is under way, by guest.
    """

    def __init__(
        self, host: Host, log: DrillLog, *, if_left: str, if_stopped: str, stop_s: float
    ) -> None:
        """Have none under way.

        Args:
            host: Whose drills they are.
            log: Where drills are marked and recorded.
            if_left: What becomes of one whose caller goes away, for its record.
            if_stopped: What becomes of one when the daemon is stopped, for its record.
            stop_s: Most seconds that stopping waits for those under way.
        """
        self.log = log
        self.running: dict[str, RunT] = {}
        self._host = host
        self._if_left = if_left
        self._if_stopped = if_stopped
        self._stop_s = stop_s
        self._clearing: asyncio.Task[None] | None = None

    async def run(self, request: RequestT) -> AsyncGenerator[admin_pb2.DrillReply, None]:
        """Carry a drill out; yield its plan, its steps, and at last its record.

        Closing this early gives the drill up, and it ends in order.

        Raises:
            ColodError: If it may not be now; nothing was touched.
        """
        service = self._host.find(request.guest)
        if not 0 <= request.timeout_s < math.inf:  # nor NaN, which no clock ever reaches
            raise PreflightRefused(
                [f"timeout_s: {request.timeout_s} is no number of seconds; 0 is the default"]
            )
        await self.cleared()
        first, begun = await self._planned(service, request)
        if request.dry_run:
            yield first
            return
        running = self.running[service.guest] = begun()
        running.start(lambda: self.running.pop(service.guest, None))
        async with aclosing(running.follow(first, if_left=self._if_left)) as replies:
            async for told in replies:
                yield told

    @abstractmethod
    async def _planned(
        self, service: ProtectionService, request: RequestT
    ) -> tuple[admin_pb2.DrillReply, Callable[[], RunT]]:
        """Return the plan of a drill, and what begins it.

        Raises:
            ColodError: If it may not be now.
        """

    def begin(self) -> None:
        """See to what a daemon that died has left, and record that it was given up."""
        self._clearing = asyncio.create_task(self._clear_left(), name=type(self).__name__)

    async def cleared(self) -> None:
        """Wait until what was left has been dealt with."""
        if self._clearing is not None:
            await asyncio.wait([self._clearing])

    @abstractmethod
    async def _clear_left(self) -> None:
        """See to what a daemon that died has left, and record it."""

    async def stop(self) -> None:
        """Give up what is under way."""
        running = tuple(self.running.values())
        for each in running:
            each.give_up(self._if_stopped)
        if running:
            await asyncio.wait([each.task for each in running], timeout=self._stop_s)
