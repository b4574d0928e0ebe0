"""Drills of the way back: the replica of a guest is thrown away and rebuilt, on purpose.

It is what a dead secondary would cost, without the death. The guest runs on, unprotected, for as
long as that takes. However the drill ends, the replication goes on: the order to end it is taken
back by the drill, by the daemon's end, or, by a mark on disk, by the next daemon.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from colod.daemon.drill_health import check_healthy
from colod.daemon.drill_keeper import DrillKeeper
from colod.daemon.drill_log import ABORTED, PASSED, SECONDARY, Drill, DrillLog, Mark
from colod.daemon.drill_run import DrillRun, check_alone, record
from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.errors import ColodError, NotAllowedNow, OutcomeUnknown
from colod.failover.effects import State
from colod.failover.view import Wanted
from colod.model import GuestName, Role
from colod.v1 import admin_pb2, types_pb2

DEFAULT_TIMEOUT_S: Final = 1800.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.1
_LOOK_S: Final = 1.0
_DISCARD_S: Final = 120.0
"""Time for the old replica to go: replicated again only after it, the guest is unprotected."""
_REBUILT: Final = "the replica is rebuilt all the same"
_DAEMON_ENDED: Final = f"the daemon ended in the middle of it; {_REBUILT}"


class SecondaryDrills(DrillKeeper[admin_pb2.DrillSecondaryRequest, "RebuildRun"]):
    """The drills of one host's secondaries; the next daemon goes on with their pairings."""

    def __init__(self, host: Host, log: DrillLog) -> None:
        """Have none under way."""
        left, stopped = f"colodctl went away; {_REBUILT}", f"the daemon was stopped; {_REBUILT}"
        super().__init__(host, log, if_left=left, if_stopped=stopped, stop_s=_STOP_S)

    async def _planned(
        self, service: ProtectionService, request: admin_pb2.DrillSecondaryRequest
    ) -> tuple[admin_pb2.DrillReply, Callable[[], RebuildRun]]:
        """Return the plan of a drill, and what begins it.

        Raises:
            NotAllowedNow: If the guest is not well protected from here, or one is under way.
        """
        self.check_idle(service)
        await check_expendable(self._host, service)
        await check_alone(self.log, service, SECONDARY)
        reply = admin_pb2.DrillReply(plan=plan_of(self._host, service), step="planned")
        return reply, lambda: RebuildRun(self._host, self.log, service, request)

    def check_idle(self, service: ProtectionService) -> None:
        """Check that no drill of a guest's secondary is under way.

        Raises:
            NotAllowedNow: If one is; it would take an order of an operator's back for its own.
        """
        if service.guest in self.running:
            raise NotAllowedNow(
                service.state,
                f"a drill of the secondary of {service.guest} is under way",
                advice="wait for it, or interrupt it; see: colodctl drill report",
            )

    async def _clear_left(self) -> None:
        """Have it replicated, and record that it was aborted."""
        for mark in await asyncio.to_thread(self.log.left, SECONDARY):
            service = self._host.services.get(GuestName(mark.drill.guest))
            drill = replace(mark.drill, verdict=ABORTED, detail=_DAEMON_ENDED)
            await _protect_again(self.log, service, drill)


class RebuildRun(DrillRun):
    """One drill under way."""

    def __init__(
        self,
        host: Host,
        log: DrillLog,
        service: ProtectionService,
        request: admin_pb2.DrillSecondaryRequest,
    ) -> None:
        drill = Drill(
            id=uuid.uuid4().hex,
            unix_s=time.time(),
            host=host.parts.host,
            guest=service.guest,
            kind=SECONDARY,
            generation=service.journal.generation,
            operator=request.operator,
        )
        mark = Mark(drill=drill, domain="", image="")
        super().__init__(log, mark, request.timeout_s or DEFAULT_TIMEOUT_S)
        self._host = host
        self._service = service

    def _late(self) -> str:
        return f"not PROTECTED within {self._timeout_s:g} s: {self._service.trouble}"

    async def _settle(self) -> None:
        self.drill = await _protect_again(self._log, self._service, self.drill)

    # --- the steps ------------------------------------------------------------------------------

    async def _steps(self) -> None:
        service, old = self._service, self._service.journal.pairing
        # Once more, now that it is on disk what is begun.
        await check_expendable(self._host, service)
        begun = time.monotonic()
        self._tell("discarding")
        await service.want(Wanted.SUSPENDED, instead_of=Wanted.PROTECTED)
        await self._until_discarded()
        rid = time.monotonic()
        self._is(discard_s=rid - begun)
        self._tell("pairing")
        await service.want(Wanted.PROTECTED, instead_of=Wanted.SUSPENDED)
        await self._until(lambda: service.journal.pairing not in (None, old))
        self._tell("syncing")
        await self._until(lambda: service.state is State.PROTECTED)
        now = time.monotonic()
        view = service.facts.view
        if service.journal.pairing in (None, old) or view is None:
            raise OutcomeUnknown(
                f"{service.guest} is PROTECTED by another pairing than the drill's"
            )
        self._is(
            epoch=view.acked_epoch,
            generation=service.journal.generation,
            unprotected_s=now - begun,
            protect_s=now - rid,
            verdict=PASSED,
        )

    async def _until_discarded(self) -> None:
        """Wait until the guest is alone here, and the other host says that nothing is left there.

        Raises:
            OutcomeUnknown: If that takes too long: the guest must not stay unprotected over it.
            NotAllowedNow: If something else was ordered meanwhile.
        """
        peer = self._service.journal.peer
        try:
            async with asyncio.timeout(_DISCARD_S):
                await self._alone_here_and_gone_there()
        except TimeoutError as error:
            raise OutcomeUnknown(
                f"{peer} has not said within {_DISCARD_S:g} s that its replica is gone"
            ) from error

    async def _alone_here_and_gone_there(self) -> None:
        service, asked = self._service, time.monotonic()
        heartbeat = self._host.parts.heartbeat
        while True:
            if service.journal.wanted is not Wanted.SUSPENDED:
                raise NotAllowedNow(service.state, "something else was ordered meanwhile")
            said = heartbeat.answer(service.guest, asked_after=asked)
            is_gone = said is not None and said.replica in _NO_REPLICA and not said.pairing
            if is_gone and service.state is State.SUSPENDED:
                return
            await asyncio.sleep(_POLL_S)

    async def _until(self, fits: Callable[[], bool]) -> None:
        """Wait as long as it takes; the drill as a whole has a time limit.

        Raises:
            NotAllowedNow: If the protection ended meanwhile.
        """
        service = self._service
        while not await service.until(fits, timeout_s=_LOOK_S):
            if service.erased.is_set() or service.journal.wanted is not Wanted.PROTECTED:
                raise NotAllowedNow(service.state, "something else was ordered meanwhile")


_NO_REPLICA: Final = (
    types_pb2.REPLICA_STATE_UNSPECIFIED,
    types_pb2.REPLICA_STATE_NONE,
)


async def check_expendable(host: Host, service: ProtectionService) -> None:
    """Check that nothing is wrong with a protection: only then may its replica be thrown away.

    Raises:
        NotAllowedNow: If anything is, or this host would not pair again by itself.
        ToolstackError: If xl does not answer.
    """
    await check_healthy(
        host,
        service,
        stays=f"the replica of {service.guest} stays",
        advice="see to that first; or, if that is wanted: colodctl suspend, colodctl resume",
    )


def plan_of(host: Host, service: ProtectionService) -> Sequence[str]:
    """Return what a drill would do, for people."""
    peer, guest = service.journal.peer, service.guest
    return [
        f"end the replication of {guest}: {peer} discards its replica; {guest} runs on here, "
        "unprotected",
        f"pair anew at once: all memory of {guest} goes over the link. Until it is PROTECTED "
        f"again, the death of {host.parts.host} loses it",
        f"should {peer} refuse, as for want of memory that it has now, {guest} stays unprotected, "
        "and it is tried again",
        "record how long it was unprotected, and how long it took from the new pairing on",
    ]


async def _protect_again(log: DrillLog, service: ProtectionService | None, drill: Drill) -> Drill:
    """Have the guest replicated again, record the drill, and return the record.

    What cannot be done stays marked for the next daemon.
    """
    left = ""
    try:
        if service is not None and service.journal.role is Role.PRIMARY:
            await service.want(Wanted.PROTECTED, instead_of=Wanted.SUSPENDED)
    except ColodError as error:
        left = f"not replicated: {error}; then: colodctl resume {drill.guest}"
    return await record(log, drill, left)
