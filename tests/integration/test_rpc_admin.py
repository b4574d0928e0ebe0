"""The operators' socket: its mode, its owner, stale sockets, errors and streams."""
# ruff: noqa: N802 (gRPC names the methods)

import asyncio
import grp
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from colod import errors
from colod.rpc import versions
from colod.rpc.admin_client import AdminClient
from colod.rpc.admin_server import AdminServer, start_admin_server
from colod.v1 import admin_pb2, admin_pb2_grpc


class FakeAdmin(admin_pb2_grpc.AdminServicer):
    """Knows one guest and raises `error` where it is set."""

    error: errors.ColodError | None = None

    def _reply(self) -> admin_pb2.StatusReply:
        if self.error is not None:
            raise self.error
        return admin_pb2.StatusReply(
            host="host-a", protections=[admin_pb2.ProtectionStatus(guest="web")]
        )

    async def Version(self, request: Any, context: Any) -> admin_pb2.VersionReply:
        return admin_pb2.VersionReply(software="0", host="host-a")

    async def Protect(self, request: Any, context: Any) -> admin_pb2.ProtectReply:
        await asyncio.Event().wait()
        raise AssertionError

    async def Unprotect(self, request: Any, context: Any) -> admin_pb2.UnprotectReply:
        return admin_pb2.UnprotectReply()

    async def Suspend(self, request: Any, context: Any) -> admin_pb2.SuspendReply:
        return admin_pb2.SuspendReply()

    async def MakeCheckpoint(self, request: Any, context: Any) -> admin_pb2.MakeCheckpointReply:
        return admin_pb2.MakeCheckpointReply()

    async def Resume(self, request: Any, context: Any) -> admin_pb2.ResumeReply:
        return admin_pb2.ResumeReply()

    async def Status(self, request: Any, context: Any) -> admin_pb2.StatusReply:
        return self._reply()

    async def WatchStatus(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.StatusReply]:
        yield admin_pb2.StatusReply(host="host-a")
        yield self._reply()

    async def Failover(self, request: Any, context: Any) -> admin_pb2.FailoverReply:
        return admin_pb2.FailoverReply()

    async def Switchover(self, request: Any, context: Any) -> admin_pb2.SwitchoverReply:
        return admin_pb2.SwitchoverReply()

    async def Drain(self, request: Any, context: Any) -> admin_pb2.DrainReply:
        return admin_pb2.DrainReply()

    async def FenceConfirm(self, request: Any, context: Any) -> admin_pb2.FenceConfirmReply:
        return admin_pb2.FenceConfirmReply()

    async def SetAutomation(self, request: Any, context: Any) -> admin_pb2.SetAutomationReply:
        return admin_pb2.SetAutomationReply()

    async def History(self, request: Any, context: Any) -> admin_pb2.HistoryReply:
        return admin_pb2.HistoryReply()

    async def Doctor(self, request: Any, context: Any) -> admin_pb2.DoctorReply:
        return admin_pb2.DoctorReply()

    async def Checkpoints(self, request: Any, context: Any) -> admin_pb2.CheckpointsReply:
        return admin_pb2.CheckpointsReply()

    async def ExportCheckpoint(
        self, request: Any, context: Any
    ) -> AsyncIterator[admin_pb2.ExportCheckpointReply]:
        yield admin_pb2.ExportCheckpointReply()

    async def Drill(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.DrillReply]:
        yield admin_pb2.DrillReply()

    async def DrillSecondary(
        self, request: Any, context: Any
    ) -> AsyncIterator[admin_pb2.DrillReply]:
        yield admin_pb2.DrillReply()

    async def DrillLive(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.DrillReply]:
        yield admin_pb2.DrillReply()

    async def DrillChecked(self, request: Any, context: Any) -> admin_pb2.DrillCheckedReply:
        return admin_pb2.DrillCheckedReply()

    async def Drills(self, request: Any, context: Any) -> admin_pb2.DrillsReply:
        return admin_pb2.DrillsReply()

    async def Quarantine(self, request: Any, context: Any) -> admin_pb2.QuarantineReply:
        return admin_pb2.QuarantineReply()

    async def DiscardQuarantined(
        self, request: Any, context: Any
    ) -> admin_pb2.DiscardQuarantinedReply:
        return admin_pb2.DiscardQuarantinedReply()

    async def KeepQuarantined(self, request: Any, context: Any) -> admin_pb2.KeepQuarantinedReply:
        return admin_pb2.KeepQuarantinedReply()


@pytest.fixture
def servicer() -> FakeAdmin:
    return FakeAdmin()


@pytest.fixture
def defects() -> list[BaseException]:
    return []


@pytest.fixture
async def server(
    servicer: FakeAdmin, tmp_path: Path, defects: list[BaseException]
) -> AsyncIterator[AdminServer]:
    started = await start_admin_server(servicer, tmp_path / "admin.sock", on_defect=defects.append)
    yield started
    await started.stop(0)


async def ask(server: AdminServer, guest: str = "") -> admin_pb2.StatusReply:
    def call() -> admin_pb2.StatusReply:
        with AdminClient(server.path) as client:
            return client.status(guest)

    return await asyncio.to_thread(call)


async def test_operators_get_their_answer(server: AdminServer) -> None:
    assert (await ask(server)).protections[0].guest == "web"


async def test_the_socket_is_closed_to_others(server: AdminServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660


async def test_the_socket_is_gone_after_an_orderly_end(servicer: FakeAdmin, tmp_path: Path) -> None:
    server = await start_admin_server(servicer, tmp_path / "s")
    await server.stop(0)
    assert not (tmp_path / "s").exists()


async def test_a_socket_that_a_dead_daemon_left_is_replaced(
    servicer: FakeAdmin, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    server = await start_admin_server(servicer, tmp_path / "s")
    assert (await ask(server)).host == "host-a"
    await server.stop(0)


async def test_the_socket_of_a_daemon_that_lives_is_left_alone(
    server: AdminServer, servicer: FakeAdmin
) -> None:
    with pytest.raises(errors.NetworkError, match="another daemon answers"):
        await start_admin_server(servicer, server.path)
    assert (await ask(server)).host == "host-a"


async def test_where_the_group_does_not_exist_only_the_owner_is_served(
    servicer: FakeAdmin, tmp_path: Path
) -> None:
    server = await start_admin_server(servicer, tmp_path / "s", group="no-such-group")
    assert "admin.group: this host has no group 'no-such-group'" in server.trouble
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert (await ask(server)).host == "host-a"
    await server.stop(0)


async def test_the_group_gets_the_socket(servicer: FakeAdmin, tmp_path: Path) -> None:
    gid = os.getegid()
    server = await start_admin_server(servicer, tmp_path / "s", group=grp.getgrgid(gid).gr_name)
    assert server.path.stat().st_gid == gid
    assert (server.trouble, stat.S_IMODE(server.path.stat().st_mode)) == ("", 0o660)
    await server.stop(0)


async def test_an_error_reaches_the_operator_with_its_class_and_advice(
    server: AdminServer, servicer: FakeAdmin
) -> None:
    servicer.error = errors.NotAllowedNow("SYNCING", "not yet", advice="wait")
    with pytest.raises(errors.NotAllowedNow, match="not yet") as caught:
        await ask(server)
    assert (caught.value.state, caught.value.advice) == ("SYNCING", "wait")


async def test_an_error_in_the_middle_of_a_stream_reaches_the_operator(
    server: AdminServer, servicer: FakeAdmin
) -> None:
    servicer.error = errors.NotFound("web is not protected any more")

    def watch() -> str:
        with AdminClient(server.path) as client:
            replies = client.watch_status()
            host = next(replies).host
            with pytest.raises(errors.NotFound):
                next(replies)
            return host

    assert await asyncio.to_thread(watch) == "host-a"


async def test_a_stream_that_ends_is_a_daemon_that_goes(server: AdminServer) -> None:
    def watch() -> int:
        with AdminClient(server.path) as client:
            return len(list(client.watch_status()))

    assert await asyncio.to_thread(watch) == 2


async def test_a_defect_goes_to_the_daemon_and_not_to_the_operator(
    server: AdminServer, servicer: FakeAdmin, defects: list[BaseException]
) -> None:
    servicer.error = errors.IllegalTransition("from here to there")
    with pytest.raises(errors.ColodError, match="the daemon failed") as caught:
        await ask(server)
    assert caught.value.code == "internal"
    assert defects == [servicer.error]


async def test_a_request_without_an_answer_has_an_unknown_outcome(server: AdminServer) -> None:
    def drain() -> None:
        with AdminClient(server.path) as client:
            client._call(client._stub.Protect, admin_pb2.ProtectRequest(), 0.3)

    with pytest.raises(errors.OutcomeUnknown, match="no answer in time"):
        await asyncio.to_thread(drain)


async def test_nobody_at_the_socket_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(errors.DaemonUnreachable, match="No such file"):
        AdminClient(tmp_path / "none")


async def test_an_operators_tool_of_another_version_is_told_so(server: AdminServer) -> None:
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="speaks protocol version '99'"):
            await stub.Status(
                admin_pb2.StatusRequest(), metadata=((versions.METADATA_KEY, "99"),), timeout=20
            )


async def test_health_is_told_on_the_socket(server: AdminServer) -> None:
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(
            health_pb2.HealthCheckRequest(service="colod.v1.Admin"), timeout=20
        )
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
