"""A daemon's double at the operators' port: the real server on a real socket, answers as told."""

# ruff: noqa: N802 (gRPC names the methods)

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colod import errors
from colod.rpc.admin_server import start_admin_server
from colod.v1 import admin_pb2, admin_pb2_grpc, types_pb2


class FakeDaemon(admin_pb2_grpc.AdminServicer):
    """Answers from attributes; a test sets them before it runs the command."""

    def __init__(self) -> None:
        """Protect nothing and refuse nothing."""
        self.requests: list[Any] = []
        self.error: errors.ColodError | None = None
        self.reports: list[admin_pb2.StatusReply] = [admin_pb2.StatusReply(host="host-a")]
        self.hang_after_reports = False
        self.plan: list[str] = []
        self.ended: list[str] = []
        self.peer_error = ""
        self.findings: list[admin_pb2.Finding] = []
        self.entries: list[admin_pb2.HistoryEntry] = []
        self.checkpoints = admin_pb2.CheckpointsReply()
        self.exports: list[admin_pb2.ExportCheckpointReply] = []
        self.steps: list[admin_pb2.DrillReply] = []
        self.checked = asyncio.Event()
        self.drills: list[admin_pb2.DrillRecord] = []
        self.copies: list[admin_pb2.QuarantinedCopy] = []

    def _take(self, request: Any) -> None:
        self.requests.append(request)
        if self.error is not None:
            raise self.error

    async def Version(self, request: Any, context: Any) -> admin_pb2.VersionReply:
        return admin_pb2.VersionReply(
            software="9.9", host="host-a", version_min=1, version_max=2, simulated=True
        )

    async def Protect(self, request: Any, context: Any) -> admin_pb2.ProtectReply:
        self._take(request)
        return admin_pb2.ProtectReply(plan=self.plan)

    async def Unprotect(self, request: Any, context: Any) -> admin_pb2.UnprotectReply:
        self._take(request)
        return admin_pb2.UnprotectReply()

    async def MakeCheckpoint(self, request: Any, context: Any) -> admin_pb2.MakeCheckpointReply:
        self._take(request)
        return admin_pb2.MakeCheckpointReply(checkpoints=7)

    async def Suspend(self, request: Any, context: Any) -> admin_pb2.SuspendReply:
        self._take(request)
        return admin_pb2.SuspendReply()

    async def Resume(self, request: Any, context: Any) -> admin_pb2.ResumeReply:
        self._take(request)
        return admin_pb2.ResumeReply()

    async def SetAutomation(self, request: Any, context: Any) -> admin_pb2.SetAutomationReply:
        self._take(request)
        return admin_pb2.SetAutomationReply(peer_error=self.peer_error)

    async def Checkpoints(self, request: Any, context: Any) -> admin_pb2.CheckpointsReply:
        self._take(request)
        return self.checkpoints

    async def ExportCheckpoint(
        self, request: Any, context: Any
    ) -> AsyncIterator[admin_pb2.ExportCheckpointReply]:
        self._take(request)
        for each in self.exports:
            yield each

    async def Drill(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.DrillReply]:
        self._take(request)
        for each in self.steps[:1] if request.dry_run else self.steps:
            yield each
            if each.step == "checking":
                await self.checked.wait()

    async def DrillSecondary(
        self, request: Any, context: Any
    ) -> AsyncIterator[admin_pb2.DrillReply]:
        self._take(request)
        for each in self.steps[:1] if request.dry_run else self.steps:
            yield each

    async def DrillLive(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.DrillReply]:
        self._take(request)
        for each in self.steps[:1] if request.dry_run else self.steps:
            yield each
            if each.step == "probing":
                await self.checked.wait()
                self.checked.clear()

    async def DrillChecked(self, request: Any, context: Any) -> admin_pb2.DrillCheckedReply:
        self._take(request)
        self.checked.set()
        return admin_pb2.DrillCheckedReply()

    async def Drills(self, request: Any, context: Any) -> admin_pb2.DrillsReply:
        self._take(request)
        return admin_pb2.DrillsReply(drills=_newest(self.drills, request))

    async def Quarantine(self, request: Any, context: Any) -> admin_pb2.QuarantineReply:
        self._take(request)
        return admin_pb2.QuarantineReply(copies=self.copies)

    async def DiscardQuarantined(
        self, request: Any, context: Any
    ) -> admin_pb2.DiscardQuarantinedReply:
        self._take(request)
        return admin_pb2.DiscardQuarantinedReply(plan=self.plan, copy=self.copies[0])

    async def KeepQuarantined(self, request: Any, context: Any) -> admin_pb2.KeepQuarantinedReply:
        self._take(request)
        return admin_pb2.KeepQuarantinedReply(copy=self.copies[0])

    async def Status(self, request: Any, context: Any) -> admin_pb2.StatusReply:
        self._take(request)
        return self.reports[-1]

    async def WatchStatus(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.StatusReply]:
        self._take(request)
        for report in self.reports:
            yield report
        if self.hang_after_reports:
            await asyncio.Event().wait()

    async def Failover(self, request: Any, context: Any) -> admin_pb2.FailoverReply:
        self._take(request)
        return admin_pb2.FailoverReply(plan=self.plan, generation=0 if request.dry_run else 4)

    async def Switchover(self, request: Any, context: Any) -> admin_pb2.SwitchoverReply:
        self._take(request)
        return admin_pb2.SwitchoverReply(plan=self.plan, generation=0 if request.dry_run else 4)

    async def Drain(self, request: Any, context: Any) -> admin_pb2.DrainReply:
        self._take(request)
        given = ["db"] if request.switch_over else []
        return admin_pb2.DrainReply(ended=self.ended, given_away=given)

    async def FenceConfirm(self, request: Any, context: Any) -> admin_pb2.FenceConfirmReply:
        self._take(request)
        return admin_pb2.FenceConfirmReply(given_to=["fencing"])

    async def History(self, request: Any, context: Any) -> admin_pb2.HistoryReply:
        self._take(request)
        return admin_pb2.HistoryReply(entries=_newest(self.entries, request))

    async def Doctor(self, request: Any, context: Any) -> admin_pb2.DoctorReply:
        self._take(request)
        return admin_pb2.DoctorReply(findings=self.findings)


def _newest(entries: list[Any], request: Any) -> list[Any]:
    """Return what a log of the daemon's answers."""
    return [each for each in entries if request.guest in ("", each.guest)][-request.limit :]


@contextmanager
def serving(daemon: FakeDaemon, path: Path) -> Iterator[None]:
    """Serve `daemon` on the socket `path` from a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="admin-double")
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(start_admin_server(daemon, path), loop).result(30)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def report(*protections: admin_pb2.ProtectionStatus) -> admin_pb2.StatusReply:
    """Return what the daemon of host-a reports."""
    return admin_pb2.StatusReply(host="host-a", protections=protections)


def protection(
    state: str, progress: types_pb2.Progress | None = None, **fields: Any
) -> admin_pb2.ProtectionStatus:
    """Return a protection of the guest `web` on its primary, host-a."""
    terms: dict[str, Any] = {
        "guest": "web",
        "role": types_pb2.ROLE_PRIMARY,
        "peer": "host-b",
        "generation": 3,
        "owner": "host-a",
        "mode": "remus",
        "disks": "none",
        "interval_ms": 200,
        "since_unix_s": 1_700_000_000,
        "witness": "reachable",
        "peer_contact": "up",
        "signals": [admin_pb2.PeerSignal(name="session", heard_age_s=0.25)],
        "standstill_s": 0.0,
        "guest_domain": "running",
    }
    return admin_pb2.ProtectionStatus(state=state, progress=progress, **terms | fields)


def syncing(pages: int, **fields: Any) -> admin_pb2.ProtectionStatus:
    """Return the protection in the middle of its first copy of 1000 pages."""
    progress = types_pb2.Progress(first_copy_pages=pages, domain_pages=1000, lag_s=-1)
    return protection("SYNCING", progress, **fields)


def replicating(**fields: Any) -> admin_pb2.ProtectionStatus:
    """Return the protection with a measured lag."""
    progress = types_pb2.Progress(
        sealed_epoch=12,
        acked_epoch=11,
        stream_bytes=5_000_000,
        unacked_bytes=12_288,
        first_copy_pages=1000,
        domain_pages=1000,
        lag_s=0.25,
        last_ack_age_s=0.125,
        peer_heard_age_s=0.0625,
        pause_s=0.004,
        copy_s=0.0015,
        ack_wait_s=0.02,
        epoch_bytes=544_768,
        epoch_pages=133,
        rtt_s=-1,
    )
    replica = types_pb2.REPLICA_STATE_FOLLOWING
    pairing = "0123456789abcdef0123456789abcdef"
    return protection("REPLICATING", progress, replica=replica, pairing=pairing, **fields)
