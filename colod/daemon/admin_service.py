"""Answer operators; who they are and what they may is settled before (`colod.rpc.admin_guard`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from colod.daemon.checkpoints import Checkpoints
from colod.daemon.colo_checkpoint import make_checkpoint
from colod.daemon.doctor import examine
from colod.daemon.drill_live import LiveDrills
from colod.daemon.drill_log import drill_message
from colod.daemon.drill_secondary import SecondaryDrills
from colod.daemon.drills import Drills
from colod.daemon.handover_plan import check_failover, failover_plan, switchover_plan
from colod.daemon.host import Host
from colod.daemon.image_schedule import ImageSchedule
from colod.daemon.peer_calls import PEER_CALLS
from colod.daemon.protection import ProtectionService
from colod.daemon.quarantine import Quarantine
from colod.daemon.status import history_of, reply_of
from colod.daemon.switching import give_all_away, switched_over
from colod.errors import ColodError, NotAllowedNow, OutcomeUnknown, PreflightRefused
from colod.failover.record import MAX_REASON_CHARS
from colod.model import Disks, Generation, Mode, Role, parse_guest_name, parse_host_name
from colod.rpc import versions
from colod.v1 import admin_pb2, admin_pb2_grpc, peer_pb2

_WATCH_S = 1.0
_FAILOVER_S = 150.0
_UNPROTECT_S = 60.0
_SUSPEND_S = 60.0


class AdminService(admin_pb2_grpc.AdminServicer):
    """The Admin service of one host; all methods are coroutines in the daemon's loop."""

    def __init__(
        self,
        host: Host,
        drills: Drills,
        rebuilds: SecondaryDrills,
        failovers: LiveDrills,
        schedule: ImageSchedule,
        *,
        simulated: bool,
    ) -> None:
        """Serve `host`, its drills of each kind, and the `schedule` of its images."""
        self._host = host
        self._simulated = simulated
        self._checkpoints = Checkpoints(host.parts)
        self._drills = drills
        self._rebuilds = rebuilds
        self._failovers = failovers
        self._schedule = schedule
        self._quarantine = Quarantine(host)

    async def Version(self, request: admin_pb2.VersionRequest, context: Any) -> Any:
        """Say who this is."""
        return admin_pb2.VersionReply(
            software=versions.SOFTWARE,
            host=self._host.parts.host,
            version_min=versions.ADMIN_VERSION_MIN,
            version_max=versions.ADMIN_VERSION_MAX,
            simulated=self._simulated,
        )

    async def Protect(self, request: admin_pb2.ProtectRequest, context: Any) -> Any:
        """Begin to protect a guest."""
        guest = _parsed(parse_guest_name, request.guest)
        to = _parsed(parse_host_name, request.to)
        disks = _parsed(Disks, request.disks)
        plan = await self._host.protect(
            guest,
            to,
            disks,
            request.interval_ms,
            mode=_parsed(Mode, request.mode) if request.mode else None,
            dry_run=request.dry_run,
        )
        return admin_pb2.ProtectReply(plan=plan)

    async def Unprotect(self, request: admin_pb2.UnprotectRequest, context: Any) -> Any:
        """End a protection; return once it is gone from witness and journal."""
        service = self._host.find(request.guest)
        await self._host.unprotect(request.guest)
        if not await service.until(service.erased.is_set, timeout_s=_UNPROTECT_S):
            raise _not_yet(service, "is not unprotected yet")
        return admin_pb2.UnprotectReply()

    async def Suspend(self, request: admin_pb2.SuspendRequest, context: Any) -> Any:
        """End a replication until it is resumed; return once its pairing has ended."""
        service = self._host.find(request.guest)
        await self._rebuilds.cleared()
        self._rebuilds.check_idle(service)
        await self._host.suspend(request.guest)
        if not await service.until(service.is_drained, timeout_s=_SUSPEND_S):
            raise _not_yet(service, "is still paired")
        return admin_pb2.SuspendReply()

    async def MakeCheckpoint(self, request: admin_pb2.MakeCheckpointRequest, context: Any) -> Any:
        """Make a checkpoint of a guest in COLO; return once it is made."""
        checkpoints = await make_checkpoint(self._host.find(request.guest))
        return admin_pb2.MakeCheckpointReply(checkpoints=checkpoints)

    async def Resume(self, request: admin_pb2.ResumeRequest, context: Any) -> Any:
        """Begin to replicate again."""
        await self._host.resume(request.guest)
        return admin_pb2.ResumeReply()

    async def Status(self, request: admin_pb2.StatusRequest, context: Any) -> Any:
        """Return how everything stands."""
        return self.status(request.guest)

    async def WatchStatus(
        self, request: admin_pb2.StatusRequest, context: Any
    ) -> AsyncIterator[admin_pb2.StatusReply]:
        """Return it again and again."""
        while True:
            yield self.status(request.guest)
            await self._wait_for_change(request.guest)

    async def _wait_for_change(self, guest: str) -> None:
        service = self._host.services.get(parse_guest_name(guest)) if guest else None
        if service is None:
            await asyncio.sleep(_WATCH_S)
            return
        shown = service.state
        with contextlib.suppress(TimeoutError):
            await service.until(lambda: service.state is not shown, timeout_s=_WATCH_S)

    async def Failover(self, request: admin_pb2.FailoverRequest, context: Any) -> Any:
        """Make this host the owner of a guest; return once it runs here."""
        service = self._host.find(request.guest)
        if request.force_reason:
            _check_reason(request.force_reason)
        service.check_failover(request.force_reason)
        check_failover(self._host, service, may_fence=request.fence)
        plan = failover_plan(self._host, service, request.force_reason)
        if request.dry_run:
            return admin_pb2.FailoverReply(plan=plan, generation=service.journal.generation)
        before = service.journal.generation
        await service.fail_over(request.force_reason)
        if not await service.until(
            lambda: _has_taken_over(service) or _has_not_taken_over(service, before),
            timeout_s=_FAILOVER_S,
        ):
            raise _not_yet(service, "does not run here yet")
        if not _has_taken_over(service):
            raise _stays(service)
        return admin_pb2.FailoverReply(plan=plan, generation=service.journal.generation)

    async def Switchover(self, request: admin_pb2.SwitchoverRequest, context: Any) -> Any:
        """Give a guest of this host to the other one; return once it runs there."""
        service = self._host.find(request.guest)
        service.check_switchover()
        plan = switchover_plan(service)
        if request.dry_run:
            return admin_pb2.SwitchoverReply(plan=plan, generation=service.journal.generation)
        await switched_over(service)
        return admin_pb2.SwitchoverReply(plan=plan, generation=service.journal.generation)

    async def Drain(self, request: admin_pb2.DrainRequest, context: Any) -> Any:
        """Give up all pairings of this host; before that, if asked, its guests to the other one."""
        given: list[str] = []
        if request.switch_over:
            given.extend(await give_all_away(self._host.services.values()))
        return admin_pb2.DrainReply(ended=await self._host.drain(), given_away=given)

    async def FenceConfirm(self, request: admin_pb2.FenceConfirmRequest, context: Any) -> Any:
        """Take an operator's word that the other host is off."""
        service = self._host.find(request.guest)
        _check_reason(request.reason)
        if not request.operator.strip():
            raise PreflightRefused(["a confirmation needs the name of who gives it"])
        given_to = await service.confirm_peer_off(request.reason, request.operator)
        return admin_pb2.FenceConfirmReply(given_to=given_to)

    async def SetAutomation(self, request: admin_pb2.SetAutomationRequest, context: Any) -> Any:
        """Pause automation here and at the peer, or let both act by themselves again."""
        if request.paused:
            _check_reason(request.reason)
        await self._host.set_automation(
            paused=request.paused, operator=request.operator, reason=request.reason
        )
        error = "" if request.here_only else await self._tell_peer(request)
        return admin_pb2.SetAutomationReply(peer_error=error)

    async def _tell_peer(self, request: admin_pb2.SetAutomationRequest) -> str:
        """Have the peer do the same; return why it did not, "" if it did."""
        told = peer_pb2.PeerSetAutomationRequest(
            paused=request.paused, operator=request.operator, reason=request.reason
        )
        try:
            await PEER_CALLS.run(self._host.parts.peer_client.set_automation, told)
        except ColodError as error:
            return str(error)
        return ""

    async def History(self, request: admin_pb2.HistoryRequest, context: Any) -> Any:
        """Return changes of state, oldest first."""
        return history_of(self._host.parts.history.of(request.guest, request.limit))

    async def Doctor(self, request: admin_pb2.DoctorRequest, context: Any) -> Any:
        """Examine the host and its surroundings."""
        return admin_pb2.DoctorReply(findings=await examine(self._host, request.guest))

    async def Checkpoints(self, request: admin_pb2.CheckpointsRequest, context: Any) -> Any:
        """Return of which replicas images can be written, and which were."""
        services = self._services(request.guest)
        reply = await self._checkpoints.listing(services)
        if (schedule := self._schedule.told(services)) is not None:
            reply.schedule.CopyFrom(schedule)
        return reply

    async def ExportCheckpoint(
        self, request: admin_pb2.ExportCheckpointRequest, context: Any
    ) -> AsyncIterator[admin_pb2.ExportCheckpointReply]:
        """Write an image of a replica's newest epoch."""
        service = self._host.find(request.guest)
        image = await self._checkpoints.check(service)
        path = await self._checkpoints.path_of(service, request.name)
        plan = [
            f"write epoch {image.epoch} of {service.guest}, or a newer one, to {path}",
            f"about {-(-image.image_bytes >> 20)} MiB; replication goes on meanwhile",
        ]
        yield admin_pb2.ExportCheckpointReply(plan=plan, path=str(path), epoch=image.epoch)
        if request.dry_run:
            return
        async for told in self._checkpoints.write(service, path):
            yield admin_pb2.ExportCheckpointReply(
                path=str(path),
                epoch=told.epoch,
                epoch_age_s=told.epoch_age_s,
                written_bytes=told.written_bytes,
                total_bytes=told.total_bytes,
                is_done=told.is_done,
            )

    async def Drill(
        self, request: admin_pb2.DrillRequest, context: Any
    ) -> AsyncIterator[admin_pb2.DrillReply]:
        """Restore a replica's newest epoch beside it, and have it checked."""
        if not request.operator.strip():
            raise PreflightRefused(["a drill needs the name of who asks for it"])
        for text in (request.check, request.operator):
            if len(text) > MAX_REASON_CHARS:
                raise PreflightRefused([f"a text of more than {MAX_REASON_CHARS} characters"])
        async with aclosing(self._drills.run(request)) as replies:
            async for reply in replies:
                yield reply

    async def DrillSecondary(
        self, request: admin_pb2.DrillSecondaryRequest, context: Any
    ) -> AsyncIterator[admin_pb2.DrillReply]:
        """Throw a guest's replica away and rebuild it."""
        if not 0 < len(request.operator.strip()) <= MAX_REASON_CHARS:
            raise PreflightRefused(["a drill needs the name of who asks for it"])
        async with aclosing(self._rebuilds.run(request)) as replies:
            async for reply in replies:
                yield reply

    async def DrillLive(
        self, request: admin_pb2.DrillLiveRequest, context: Any
    ) -> AsyncIterator[admin_pb2.DrillReply]:
        """Fail a guest over for real, and measure it."""
        if not request.operator.strip():
            raise PreflightRefused(["a drill needs the name of who asks for it"])
        for text in (request.probe, request.operator):
            if len(text) > MAX_REASON_CHARS:
                raise PreflightRefused([f"a text of more than {MAX_REASON_CHARS} characters"])
        async with aclosing(self._failovers.run(request)) as replies:
            async for reply in replies:
                yield reply

    async def DrillChecked(self, request: admin_pb2.DrillCheckedRequest, context: Any) -> Any:
        """Take what the operator's check or probe said."""
        if not self._failovers.probed(request):
            self._drills.checked(request.id, request.status, request.said)
        return admin_pb2.DrillCheckedReply()

    async def Drills(self, request: admin_pb2.DrillsRequest, context: Any) -> Any:
        """Return drills of this host, oldest first."""
        return self.past_drills(request.guest, request.limit)

    def past_drills(self, guest: str, limit: int) -> admin_pb2.DrillsReply:
        """Return the newest `limit` drills of this host, of a guest or of all, oldest first."""
        found = self._drills.log.of(guest, limit)
        return admin_pb2.DrillsReply(drills=[drill_message(each) for each in found])

    async def Quarantine(self, request: admin_pb2.QuarantineRequest, context: Any) -> Any:
        """Return the copies that another generation has left here."""
        return admin_pb2.QuarantineReply(copies=await self._quarantine.listing(request.guest))

    async def DiscardQuarantined(
        self, request: admin_pb2.DiscardQuarantinedRequest, context: Any
    ) -> Any:
        """Throw one of them away; return once it is gone."""
        if request.force_reason:
            _check_reason(request.force_reason)
        return await self._quarantine.discard(request)

    async def KeepQuarantined(self, request: admin_pb2.KeepQuarantinedRequest, context: Any) -> Any:
        """Have one of them kept, or give that order up."""
        if not request.withdraw:
            _check_reason(request.reason)
            if not request.operator.strip():
                raise PreflightRefused(["an order needs the name of who gives it"])
        return await self._quarantine.keep(request)

    def _services(self, guest: str) -> list[ProtectionService]:
        return [self._host.find(guest)] if guest else list(self._host.services.values())

    def status(self, guest: str = "") -> admin_pb2.StatusReply:
        """Return how one protection stands, or all; in the daemon's loop only.

        Raises:
            NotFound: If there is none of `guest`.
        """
        return reply_of(
            self._host,
            self._services(guest),
            simulated=self._simulated,
            last_drill=self._drills.log.last_success,
            last_image=self._schedule.last,
        )


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise PreflightRefused([str(error)]) from error


def _check_reason(reason: str) -> None:
    """Check what is to be recorded for good.

    Raises:
        PreflightRefused: If nobody could make anything of it, or no record could hold it.
    """
    if not reason.strip():
        raise PreflightRefused(["reason: say why, for whoever reads the history later"])
    if len(reason) > MAX_REASON_CHARS:
        raise PreflightRefused([f"reason: at most {MAX_REASON_CHARS} characters"])


def _not_yet(service: ProtectionService, what: str) -> OutcomeUnknown:
    """Return what is said of an order that was taken, and is still to be carried out."""
    return OutcomeUnknown(
        f"{service.guest} {what} (state {service.state}): {service.trouble}",
        advice=service.decision.advice or "it goes on by itself; watch colodctl status",
    )


def _has_taken_over(service: ProtectionService) -> bool:
    journal = service.journal
    return journal.role is Role.PRIMARY and journal.is_owner and journal.is_activated


def _has_not_taken_over(service: ProtectionService, before: Generation) -> bool:
    """Whether a takeover asked for at generation `before` has been decided, for the other host."""
    journal = service.journal
    is_decided = journal.pending is None and journal.generation > before
    return is_decided and not journal.is_owner and not service.facts.is_failover_asked


def _stays(service: ProtectionService) -> NotAllowedNow:
    """Return what is said of a takeover that was given up, or lost."""
    record = service.journal.record
    owner = record.owner if record is not None else "nobody"
    return NotAllowedNow(
        service.state,
        f"{service.guest} is owned by {owner}, by generation {service.journal.generation}: either "
        "the replica could not run here and was handed back, or the other host was first",
        advice=f"colodctl history {service.guest} tells which; once it is PROTECTED, ask again",
    )
