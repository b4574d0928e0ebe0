"""Drills: the newest epoch of a replica, restored beside it and cut off from everything.

The protection is not touched. A drill has a task of its own, so that it is cleared away whoever
goes away; and a mark on disk, written before anything is made, so that the next daemon clears away
what a dead one left.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from colod.daemon.checkpoints import Checkpoints
from colod.daemon.drill_keeper import DrillKeeper
from colod.daemon.drill_log import (
    ABORTED,
    FAILED,
    ISOLATED,
    NOT_CHECKED,
    PASSED,
    Drill,
    DrillLog,
    Mark,
)
from colod.daemon.drill_plan import Plan, make_plan
from colod.daemon.drill_run import DETAIL_CHARS, DrillRun, check_alone, record
from colod.daemon.host import Host
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.errors import CheckpointError, ColodError, NotFound
from colod.model import GuestName
from colod.observe.logs import Event
from colod.session.imagefile import PART_SUFFIX
from colod.toolstack import isolation
from colod.toolstack.port import DomainState
from colod.v1 import admin_pb2

DEFAULT_TIMEOUT_S: Final = 600.0
_STOP_S: Final = 15.0  # systemd gives 30 s; what is left is marked for the next daemon


class Drills(DrillKeeper[admin_pb2.DrillRequest, "IsolatedRun"]):
    """The isolated drills of one host."""

    def __init__(self, host: Host, log: DrillLog) -> None:
        """Have none under way."""
        left, stopped = "colodctl went away", "the daemon was stopped"
        super().__init__(host, log, if_left=left, if_stopped=stopped, stop_s=_STOP_S)
        self._checkpoints = Checkpoints(host.parts)

    async def _planned(
        self, service: ProtectionService, request: admin_pb2.DrillRequest
    ) -> tuple[admin_pb2.DrillReply, Callable[[], IsolatedRun]]:
        """Return the plan of a drill, and what begins it.

        Raises:
            NotAllowedNow: If there is none to be had now, or one is under way.
            PreflightRefused: If it may not be; nothing was touched.
        """
        parts, checkpoints = self._host.parts, self._checkpoints
        # First: the plan would find the other one's domain, and have somebody destroy it.
        await check_alone(self.log, service, ISOLATED)
        plan = await make_plan(parts, checkpoints, service, request)
        await check_alone(self.log, service, ISOLATED)
        reply = admin_pb2.DrillReply(plan=plan.lines, step="planned", domain=plan.domain)
        reply.epoch = plan.epoch
        return reply, lambda: IsolatedRun(parts, checkpoints, self.log, service, request, plan)

    def checked(self, drill_id: str, status: int, said: str) -> None:
        """Take what the check of a drill said.

        Raises:
            NotFound: If no drill of that id waits for it.
        """
        for running in self.running.values():
            if running.drill.id == drill_id and not running.verdict.done():
                running.verdict.set_result((status, said))
                return
        raise NotFound(f"no drill {drill_id} waits for a check", advice="colodctl drill report")

    async def _clear_left(self) -> None:
        """Clear it away, and record that it was given up."""
        for mark in await asyncio.to_thread(self.log.left):
            detail = "the daemon ended in the middle of it"
            drill = replace(mark.drill, verdict=ABORTED, detail=detail)
            await _clear_away(self._host.parts, self.log, mark, drill)

    async def stop(self) -> None:
        """Give up what is under way, and clear it away."""
        if self._clearing is not None:
            self._clearing.cancel()  # what it leaves is marked for the next daemon
        await super().stop()


class IsolatedRun(DrillRun):
    """One drill under way."""

    def __init__(
        self,
        parts: Parts,
        checkpoints: Checkpoints,
        log: DrillLog,
        service: ProtectionService,
        request: admin_pb2.DrillRequest,
        plan: Plan,
    ) -> None:
        drill = Drill(
            id=uuid.uuid4().hex,
            unix_s=time.time(),
            host=parts.host,
            guest=service.guest,
            generation=service.journal.generation,
            operator=request.operator,
            check=request.check,
            network=request.bridge or "none",
        )
        mark = Mark(
            drill=drill,
            domain=plan.domain,
            image=str(plan.image),
            files=(str(plan.config_file),),
            uuid=plan.uuid,
        )
        super().__init__(log, mark, request.timeout_s or DEFAULT_TIMEOUT_S)
        self.verdict: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._parts = parts
        self._checkpoints = checkpoints
        self._service = service
        self._request = request
        self._plan = plan

    def _late(self) -> str:
        return "it was not done in time"

    async def _settle(self) -> None:
        has_run = self.drill.start_s >= 0
        keeps = self._request.keep and has_run and self.drill.verdict != ABORTED
        self._is(is_kept=keeps)
        self._tell("clearing")
        self.drill = await _clear_away(self._parts, self._log, self._mark, self.drill)

    # --- the steps ------------------------------------------------------------------------------

    async def _steps(self) -> None:
        begun = time.monotonic()
        await self._write_image()
        self._is(image_s=time.monotonic() - begun)
        domid = await self._restore()
        await self._check_cut_off(domid)
        started = time.monotonic()
        self._tell("starting", domid=domid)
        await self._parts.toolstack.run_promoted(GuestName(self._plan.domain))
        now = time.monotonic()
        self._is(start_s=now - started, verdict=NOT_CHECKED, detail="no --check was given")
        self._is(rto_s=now - begun)
        if self._request.check:
            await self._check(domid, begun)
        await self._look_once_more()

    async def _write_image(self) -> None:
        plan = self._plan
        await asyncio.to_thread(_prepare, plan)
        async for told in self._checkpoints.write(self._service, plan.image, plan.config_file):
            self._tell("writing", written_bytes=told.written_bytes, total_bytes=told.total_bytes)
            self._is(epoch=told.epoch, rpo_s=told.epoch_age_s)

    async def _restore(self) -> int:
        begun = time.monotonic()
        self._tell("restoring")
        domain = await self._parts.toolstack.restore_paused(
            self._plan.image,
            self._plan.domain,
            timeout_s=self._timeout_s,
        )
        self._is(restore_s=time.monotonic() - begun)
        return domain.domid

    async def _check_cut_off(self, domid: int) -> None:
        """Look at what xl made, while it is still paused.

        Raises:
            CheckpointError: If it is not cut off.
        """
        toolstack, plan = self._parts.toolstack, self._plan
        found = await toolstack.domain_config(plan.domain)
        vifs = await toolstack.vifs(domid)
        texts = list(isolation.differences(plan.config, found, vifs))
        if texts:
            raise CheckpointError(f"{plan.domain} is not cut off, so it never ran: {texts}")

    async def _check(self, domid: int, begun: float) -> None:
        """Have the caller run its check, and take its word."""
        asked = time.monotonic()
        self._is(verdict=FAILED, detail="the check has not ended")
        self._tell("checking", domid=domid)
        status, said = await self.verdict
        now = time.monotonic()
        self._is(check_s=now - asked, rto_s=now - begun)
        if status == 0:
            self._is(verdict=PASSED, detail="")
        else:
            self._is(detail=said[:DETAIL_CHARS] or f"the check ended with {status}", rto_s=-1.0)

    async def _look_once_more(self) -> None:
        """See that the guest is still there and did not end behind the check's back."""
        domain = await self._parts.toolstack.find(self._plan.domain)
        if domain is None or domain.state is not DomainState.RUNNING:
            how = "is gone" if domain is None else f"is {domain.state}"
            self._is(verdict=FAILED, detail=f"{self._plan.domain} {how}", rto_s=-1.0)


async def _clear_away(parts: Parts, log: DrillLog, mark: Mark, drill: Drill) -> Drill:
    """Clear a drill away, record it, and return the record; what is left stays marked."""
    left = ""
    try:
        if not drill.is_kept:
            await parts.toolstack.discard_restored(Path(mark.image), await _uuid_of(mark))
        await asyncio.to_thread(_remove, mark)
    except (ColodError, OSError) as error:
        left = f"not cleared away: {error}"
    event = Event.DRILL_FINISHED if not left else Event.DRILL_CLEARED
    return await record(log, drill, left, event=event)


async def _uuid_of(mark: Mark) -> str:
    """Return the UUID of the domain that a drill made, "" where it can have made none.

    An older colod's mark has none, but names the drill's configuration, which is written before
    anything is restored and removed after the domain.
    """
    if mark.uuid:
        return mark.uuid
    try:
        config = json.loads(await asyncio.to_thread(Path(mark.files[0]).read_bytes))
        return str(config["c_info"]["uuid"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _prepare(plan: Plan) -> None:
    """Write the configuration, and remove what an earlier drill may have left."""
    _unlink(plan.image)
    _unlink(plan.config_file)
    plan.config_file.touch(mode=0o600)
    plan.config_file.write_text(json.dumps(plan.config, indent=4) + "\n")


def _remove(mark: Mark) -> None:
    for path in (mark.image, *mark.files):
        _unlink(Path(path))


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
    # Without it a session that still writes the image cannot give it its name.
    path.with_name(path.name + PART_SUFFIX).unlink(missing_ok=True)
