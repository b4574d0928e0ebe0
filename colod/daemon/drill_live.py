"""Drills by a failover for real: the guest changes hosts, is protected again, and may come back.

Nothing is done that an operator's `switchover` or `failover` would not do, and by the same rules:
the drill gives the orders, watches, and measures. However it ends, who owns the guest is settled as
ever, and the owner pairs anew by itself. What was ordered and is not decided when the drill ends is
taken back; what is decided goes on.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, NamedTuple

from colod.daemon.drill_health import until_healthy
from colod.daemon.drill_keeper import DrillKeeper
from colod.daemon.drill_live_plan import check_may_begin, plan_of
from colod.daemon.drill_log import ABORTED, LIVE, NOT_CHECKED, PASSED, Drill, DrillLog, Mark
from colod.daemon.drill_run import DETAIL_CHARS, DrillRun, check_alone, record
from colod.daemon.facts import FAILOVER_ASKED_S
from colod.daemon.host import Host
from colod.daemon.peer_calls import PEER_CALLS
from colod.daemon.protection import ProtectionService
from colod.errors import ColodError, NotAllowedNow, PeerUnreachable
from colod.failover.effects import State
from colod.failover.view import Wanted
from colod.model import HostName
from colod.v1 import admin_pb2, peer_pb2

DEFAULT_TIMEOUT_S: Final = 1800.0
_STOP_S: Final = 5.0
_LOOK_S: Final = 1.0
_GIVE_BACK_S: Final = 90.0
_GOES_ON: Final = "who owns the guest is settled all the same; see: colodctl status"


class LiveDrills(DrillKeeper[admin_pb2.DrillLiveRequest, "LiveRun"]):
    """The live drills that were begun on one host."""

    def __init__(self, host: Host, log: DrillLog) -> None:
        """Have none under way."""
        left, stopped = f"colodctl went away; {_GOES_ON}", f"the daemon was stopped; {_GOES_ON}"
        super().__init__(host, log, if_left=left, if_stopped=stopped, stop_s=_STOP_S)

    async def _planned(
        self, service: ProtectionService, request: admin_pb2.DrillLiveRequest
    ) -> tuple[admin_pb2.DrillReply, Callable[[], LiveRun]]:
        """Return the plan of a drill, and what begins it.

        Raises:
            NotAllowedNow: If not all is well, this is the wrong host, or one is under way.
            PeerError: If the other host is needed and cannot be asked.
        """
        await check_may_begin(self._host, service, request)
        await check_alone(self.log, service, LIVE)
        reply = admin_pb2.DrillReply(plan=plan_of(self._host, service, request), step="planned")
        return reply, lambda: LiveRun(self._host, self.log, service, request)

    def probed(self, request: admin_pb2.DrillCheckedRequest) -> bool:
        """Take what the probe of a drill said; return whether one of these waited for it."""
        for running in self.running.values():
            answer = running.answer
            if running.drill.id == request.id and answer is not None and not answer.done():
                answer.set_result(request)
                return True
        return False

    async def _clear_left(self) -> None:
        """Record it; nothing else is left of it."""
        for mark in await asyncio.to_thread(self.log.left, LIVE):
            detail = f"the daemon ended in the middle of it; {_GOES_ON}"
            drill = replace(mark.drill, verdict=ABORTED, detail=detail)
            await record(self.log, drill, "")


class Moved(NamedTuple):
    """When the record named the guest's new owner, and when it was seen to run it (monotonic)."""

    decided: float
    seen: float


class LiveRun(DrillRun):
    """One drill under way.

    Attributes:
        answer: Completed with what the probe says; None while it is not asked.
    """

    def __init__(
        self,
        host: Host,
        log: DrillLog,
        service: ProtectionService,
        request: admin_pb2.DrillLiveRequest,
    ) -> None:
        drill = Drill(
            id=uuid.uuid4().hex,
            unix_s=time.time(),
            host=host.parts.host,
            guest=service.guest,
            kind=LIVE,
            generation=service.journal.generation,
            operator=request.operator,
            check=request.probe,
            as_if_host_died=request.as_if_host_died,
        )
        mark = Mark(drill=drill, domain="", image="")
        super().__init__(log, mark, request.timeout_s or DEFAULT_TIMEOUT_S)
        self.answer: asyncio.Future[admin_pb2.DrillCheckedRequest] | None = None
        self._host = host
        self._service = service
        self._request = request
        self._step = ""
        self._is_ordered = False
        self._final_epoch = 0

    def _late(self) -> str:
        return (
            f"not done within {self._timeout_s:g} s, while {self._step}: "
            f"{self._service.state}: {self._service.trouble}; {_GOES_ON}"
        )

    async def _settle(self) -> None:
        if self._is_ordered:
            self._take_back()
        service = self._service
        self._is(end_owner=self._owner(), end_generation=service.journal.generation)
        self.drill = await record(self._log, self.drill, "")

    def _take_back(self) -> None:
        """Take back what was ordered and is not decided; what is pending at the witness stands."""
        service = self._service
        service.facts.forget_failover()
        if service.journal.switchover:
            service.facts.switchover_failed("the drill was given up")
        service.poke()

    # --- the steps ------------------------------------------------------------------------------

    async def _steps(self) -> None:
        service, request = self._service, self._request
        here, peer = self._host.parts.host, service.journal.peer
        new, former = (here, peer) if request.as_if_host_died else (peer, here)
        await self._probe()
        # Once more, now that it is on disk what is begun.
        await check_may_begin(self._host, service, request)
        old = service.journal.pairing
        began = time.monotonic()
        self._is(generation=service.journal.generation)
        moved = await (self._take_over() if request.as_if_host_died else self._give(peer))
        self._is(
            decide_s=moved.decided - began,
            start_s=moved.seen - moved.decided,
            rto_s=moved.seen - began,
        )
        self._is(outage_s=await self._probe())
        protected = await self._until_protected(new, old)
        self._is(
            unprotected_s=protected - moved.decided,
            protect_s=protected - moved.seen,
        )
        await self._probe()
        self._check_owner(new)
        if request.failback:
            await self._bring_back(former)
        if request.probe:
            self._is(verdict=PASSED)
        else:
            self._is(verdict=NOT_CHECKED, detail="no --probe was given")

    async def _bring_back(self, former: HostName) -> None:
        old = self._service.journal.pairing
        began = time.monotonic()
        is_ours = self._service.journal.is_owner
        moved = await (self._give(former) if is_ours else self._ask_back(former))
        self._is(failback_s=moved.seen - began)
        self._is(failback_outage_s=await self._probe())
        protected = await self._until_protected(former, old)
        self._is(failback_protect_s=protected - moved.seen)
        await self._probe()
        self._check_owner(former)

    async def _give(self, to: HostName) -> Moved:
        """Give the guest, which this host owns, away as a switchover does."""
        service = self._service
        is_back = self.drill.start_s >= 0
        if is_back:
            await until_healthy(self._host, service, stays=f"{service.guest} is not given back")
        self._is_now("giving back" if is_back else "giving away")

        def why_not() -> str:
            journal = service.journal
            if journal.switchover or journal.pending is not None:
                return ""
            return service.facts.why_given_up()

        await self._order(service.switch_over)
        decided = await self._until_decided(to, why_not)
        if not is_back:
            self._note_nothing_lost(to)
        return Moved(decided, await self._until_runs(to))

    def _note_nothing_lost(self, to: HostName) -> None:
        """Note that nothing is lost, where the record and the session say so.

        The record has to be the guest's gift by this very switchover, and the epoch after which it
        was stopped acknowledged.
        """
        found = self._service.journal.record
        is_given = found is not None and found.given and found.owner == to
        is_next = found is not None and found.generation == self.drill.generation + 1
        if is_given and is_next and self._final_epoch:
            self._is(rpo_s=0.0, epoch=self._final_epoch)

    async def _take_over(self) -> Moved:
        """Take the guest over without asking the host that owns it."""
        service, began = self._service, time.monotonic()
        self._is_now("taking over")

        def why_not() -> str:
            is_over = time.monotonic() - began > FAILOVER_ASKED_S
            is_pending = service.journal.pending is not None
            return service.trouble or "the witness refused" if is_over and not is_pending else ""

        await self._order(lambda: service.fail_over(""))
        decided = await self._until_decided(self._host.parts.host, why_not)
        epoch, age_s = self._newest_epoch()
        self._is(epoch=epoch, rpo_s=age_s)
        return Moved(decided, await self._until_runs(self._host.parts.host))

    def _newest_epoch(self) -> tuple[int, float]:
        """Return the newest acknowledged epoch of the replica here, and how old that is in seconds.

        0 and -1 where the session does not say.
        """
        session = self._service.session
        if session is None or session.status is None:
            return 0, -1.0
        progress = session.status.progress
        if progress.last_ack_age_s < 0:
            return progress.acked_epoch, -1.0
        since_s = max(0.0, time.monotonic() - session.status_at)
        return progress.acked_epoch, progress.last_ack_age_s + since_s

    async def _ask_back(self, to: HostName) -> Moved:
        """Have the other host, which owns the guest, give it back."""
        self._is_now("giving back")
        request = peer_pb2.GiveBackRequest(
            guest=self._service.guest,
            generation=self._service.journal.generation,
            operator=self._request.operator,
        )
        give_back = self._host.parts.peer_client.give_back
        asked = asyncio.ensure_future(PEER_CALLS.run(give_back, request, timeout_s=_GIVE_BACK_S))

        def why_not() -> str:
            error = asked.exception() if asked.done() else None
            if isinstance(error, PeerUnreachable):
                return f"it may come yet, but nobody knows whether it was asked for: {error}"
            return str(error or "")

        try:
            decided = await self._until_decided(to, why_not)
            return Moved(decided, await self._until_runs(to))
        finally:
            asked.cancel()  # the call itself goes on; its outcome is in the record
            await asyncio.wait([asked])
            if not asked.cancelled():
                asked.exception()

    # --- what they are made of ------------------------------------------------------------------

    async def _order(self, order: Callable[[], Awaitable[None]]) -> None:
        await order()  # one that is refused is not ours to take back: it may be an operator's
        self._is_ordered = True

    def _is_now(self, step: str) -> None:
        self._step = step
        self._tell(step)

    def _owner(self) -> str:
        found = self._service.journal.record
        return found.owner if found is not None else ""

    async def _until_decided(self, to: HostName, why_not: Callable[[], str]) -> float:
        """Wait until the record names the new owner; return when it was seen to (monotonic).

        Raises:
            NotAllowedNow: If it will not.
        """

        def fits() -> bool:
            view = self._service.facts.view
            if view is not None and 0 < view.final_epoch <= view.acked_epoch:
                self._final_epoch = view.final_epoch
            return self._owner() == to or bool(why_not())

        await self._until(fits)
        if self._owner() != to:
            service = self._service
            raise NotAllowedNow(
                service.state, f"{service.guest} stays on {self._owner()}: {why_not()}"
            )
        self._is_ordered = False
        return time.monotonic()

    async def _until_runs(self, there: HostName) -> float:
        """Wait until the owner was seen running the guest; return when (monotonic).

        Raises:
            NotAllowedNow: If it has given the guest back.
        """
        service = self._service
        await self._until(lambda: self._owner() != there or service.journal.is_activated)
        if self._owner() != there:
            raise NotAllowedNow(
                service.state,
                f"{there} could not run {service.guest}, which went back to {self._owner()}",
            )
        return time.monotonic()

    async def _until_protected(self, owner: HostName, old: str | None) -> float:
        """Wait until the guest is PROTECTED by a new pairing; return when (monotonic).

        Raises:
            NotAllowedNow: If another host owns it by then.
        """
        service = self._service
        self._is_now("protecting")

        def is_protected() -> bool:
            return service.state is State.PROTECTED and service.journal.pairing not in (None, old)

        await self._until(lambda: self._owner() != owner or is_protected())
        self._check_owner(owner)
        return time.monotonic()

    def _check_owner(self, owner: HostName) -> None:
        """Check that the guest is still where the drill has brought it.

        Raises:
            NotAllowedNow: If not.
        """
        service = self._service
        if self._owner() != owner:
            raise NotAllowedNow(
                service.state, f"{service.guest} has gone to {self._owner()} by another order"
            )

    async def _until(self, fits: Callable[[], bool]) -> None:
        """Wait as long as it takes; the drill as a whole has a time limit.

        Raises:
            NotAllowedNow: If the protection ended meanwhile.
        """
        service = self._service
        while not await service.until(fits, timeout_s=_LOOK_S):
            if service.erased.is_set() or service.journal.wanted is Wanted.UNPROTECTED:
                raise NotAllowedNow(service.state, "its protection was ended meanwhile")

    async def _probe(self) -> float:
        """Have the caller's probe say that the guest answers now.

        Returns:
            The longest time without an answer since it was last asked, in seconds; -1 without a
            probe.

        Raises:
            ColodError: If the guest does not answer.
        """
        if not self._request.probe:
            return -1.0
        self.answer = asyncio.get_running_loop().create_future()
        self._is_now("probing")
        said = await self.answer
        if said.status != 0:
            text = said.said or f"the probe ended with {said.status}"
            raise ColodError(f"{self._service.guest} does not answer: {text}"[:DETAIL_CHARS])
        return said.outage_s
