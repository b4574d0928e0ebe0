"""The port for remote operators over real TLS: each role against each call, and who gets none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from colod import errors
from colod.model import HostName
from colod.rpc import limits, pki, tls
from colod.rpc.admin_client import AdminClient
from colod.rpc.admin_guard import BEGUN, DENIED, DONE, FAILED, Act
from colod.rpc.admin_server import start_admin_server
from colod.rpc.operators import OperatorRole
from colod.rpc.remote_host import RemoteHost
from colod.rpc.remote_server import RemoteServer, start_remote_server
from colod.v1 import admin_pb2
from tests.integration.admin_double import FakeDaemon
from tests.integration.test_rpc_peer import GARBAGE
from tests.operators import remote, sign

T = TypeVar("T")
CALLS = admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods

# Written out, and not taken from the code: who may what is a promise.
VIEWER = {"Version", "Status", "WatchStatus", "History", "Doctor", "Checkpoints", "Drills"} | {
    "Quarantine"
}
OPERATOR = (
    VIEWER
    | {
        "Suspend",
        "Resume",
        "Failover",
        "Switchover",
        "SetAutomation",
        "ExportCheckpoint",
        "MakeCheckpoint",
    }
    | {"Drill", "DrillSecondary", "DrillLive", "DrillChecked", "KeepQuarantined"}
)
ADMIN = OPERATOR | {"Protect", "Unprotect", "Drain", "FenceConfirm", "DiscardQuarantined"}
MAY = {"viewer": VIEWER, "operator": OPERATOR, "admin": ADMIN}


class Noted:
    """Keeps what the audit log is told."""

    def __init__(self) -> None:
        self.acts: list[tuple[Act, str, errors.ColodError | None]] = []

    def note(self, act: Act, outcome: str, error: errors.ColodError | None = None) -> None:
        self.acts.append((act, outcome, error))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a host, and an operator of each role who is called as it is."""
    directory = tmp_path_factory.mktemp("pki")
    pki.create_authority(directory)
    pki.issue_certificate(directory, HostName("host-a"))
    pki.issue_certificate(directory, HostName("host-b"))
    for role in OperatorRole:
        pki.issue_operator(directory, role.word, role)
    return directory


def of(authority: Path, name: str) -> Path:
    return authority / "operators" / f"{name}.pem"


@pytest.fixture
def servicer() -> FakeDaemon:
    double = FakeDaemon()
    double.copies = [admin_pb2.QuarantinedCopy()]
    return double


@pytest.fixture
def audit() -> Noted:
    return Noted()


@pytest.fixture
async def server(
    servicer: FakeDaemon, authority: Path, audit: Noted
) -> AsyncIterator[RemoteServer]:
    issued = authority / "host-a.pem"
    identity = tls.load_identity(
        authority / "ca.pem", issued, issued.with_suffix(".key"), host="host-a"
    )
    started = await start_remote_server(
        servicer, "127.0.0.1:0", identity, audit=audit, denial_s=0.0
    )
    yield started
    await started.stop(0)


async def ask(where: RemoteHost | Path, question: Callable[[AdminClient], T]) -> T:
    def call() -> T:
        with AdminClient(where, operator="myself") as client:
            return question(client)

    return await asyncio.to_thread(call)


def call_all(client: AdminClient) -> dict[str, errors.ColodError | None]:
    """Make each call of the service with an empty request; return what came of each."""
    found: dict[str, errors.ColodError | None] = {}
    for each in CALLS:
        method = getattr(client._stub, each.name)
        request = GetMessageClass(each.input_type)()
        try:
            if each.server_streaming:
                list(client._stream(method, request, 20))
            else:
                client._call(method, request, 20)
        except errors.ColodError as error:
            found[each.name] = error
        else:
            found[each.name] = None
    return found


@pytest.mark.parametrize("role", MAY)
async def test_each_role_may_make_its_calls_and_no_other(
    server: RemoteServer, servicer: FakeDaemon, authority: Path, audit: Noted, role: str
) -> None:
    found = await ask(remote(server.port, authority, of(authority, role)), call_all)
    assert set(found) == {each.name for each in CALLS}
    assert {call for call, error in found.items() if error is None} == MAY[role]
    denied = {call: error for call, error in found.items() if error is not None}
    assert all(type(error) is errors.NotPermitted for error in denied.values())
    assert all("needs an " in str(error) for error in denied.values())
    # Nothing of what was refused has come to the service.
    assert len(servicer.requests) == len(MAY[role]) - len({"Version"})
    outcomes = {(act.call, outcome) for act, outcome, _ in audit.acts}
    assert outcomes == {
        *((call, DENIED) for call in denied),
        *((call, word) for call in MAY[role] - VIEWER for word in (BEGUN, DONE)),
    }


async def test_who_may_use_the_socket_may_make_each_call(
    servicer: FakeDaemon, audit: Noted, tmp_path: Path
) -> None:
    server = await start_admin_server(servicer, tmp_path / "s", audit=audit)
    found = await ask(server.path, call_all)
    await server.stop(0)
    assert set(found.values()) == {None}
    assert {(act.name, act.role, act.address) for act, _, _ in audit.acts} == {
        ("myself", "admin", "unix")
    }


async def test_force_is_an_admins(
    server: RemoteServer, servicer: FakeDaemon, authority: Path
) -> None:
    request = admin_pb2.FailoverRequest(guest="web", force_reason="burnt down")
    with pytest.raises(errors.NotPermitted, match="operator is an operator: Failover with force"):
        await ask(
            remote(server.port, authority, of(authority, "operator")),
            lambda client: client.failover(request),
        )
    assert servicer.requests == []
    await ask(
        remote(server.port, authority, of(authority, "admin")),
        lambda client: client.failover(request),
    )
    assert servicer.requests == [request]


async def test_nobody_signs_with_anothers_name(
    server: RemoteServer, servicer: FakeDaemon, authority: Path, audit: Noted
) -> None:
    request = admin_pb2.FenceConfirmRequest(guest="web", reason="saw it off", operator="the boss")
    await ask(
        remote(server.port, authority, of(authority, "admin")),
        lambda client: client.fence_confirm(request),
    )
    assert servicer.requests[0].operator == "admin (admin)"
    (begun, _, _), (done, outcome, _) = audit.acts
    assert (begun, outcome) == (done, DONE)
    assert (done.name, done.role) == ("admin", "admin")
    assert done.address.startswith("ipv4:127.0.0.1:")
    assert done.request == {"guest": "web", "reason": "saw it off"}


async def test_on_the_socket_a_request_keeps_who_signs_it(
    servicer: FakeDaemon, tmp_path: Path
) -> None:
    server = await start_admin_server(servicer, tmp_path / "s")
    request = admin_pb2.FenceConfirmRequest(guest="web", reason="saw it off", operator="ann")
    await ask(server.path, lambda client: client.fence_confirm(request))
    await server.stop(0)
    assert servicer.requests[0].operator == "ann"


async def test_what_failed_is_in_the_audit_log_with_why_and_a_dry_run_is_not(
    server: RemoteServer, servicer: FakeDaemon, authority: Path, audit: Noted
) -> None:
    where = remote(server.port, authority, of(authority, "operator"))
    await ask(where, lambda client: client.switchover(admin_pb2.SwitchoverRequest(dry_run=True)))
    assert audit.acts == []
    servicer.error = errors.NotAllowedNow("SYNCING", "not yet")
    with pytest.raises(errors.NotAllowedNow):
        await ask(where, lambda client: client.suspend("web"))
    assert [outcome for _, outcome, _ in audit.acts] == [BEGUN, FAILED]
    assert audit.acts[1][2] is servicer.error


async def test_long_texts_are_cut_before_they_are_kept(
    server: RemoteServer, authority: Path, audit: Noted
) -> None:
    where = remote(server.port, authority, of(authority, "viewer"))
    with pytest.raises(errors.NotPermitted):
        await ask(where, lambda client: client.suspend("x" * 900_000))
    ((act, _, _),) = audit.acts
    assert len(str(act.request["guest"])) == 1000


@pytest.mark.parametrize(
    ("stem", "wanted", "said"),
    [
        ("none", {}, "names no role"),
        ("unknown", {"units": ["colod-root"]}, "not known, colod-root"),
        ("several", {"units": ["colod-admin", "colod-viewer"]}, "several roles"),
        ("both", {"units": ["colod-admin"], "hosts": ["host-b"]}, r"a host too \(host-b\)"),
        ("host-b", None, "host-b names no role"),
    ],
)
async def test_who_has_not_one_role_may_not_even_look(
    server: RemoteServer,
    servicer: FakeDaemon,
    authority: Path,
    audit: Noted,
    stem: str,
    wanted: dict[str, Any] | None,
    said: str,
) -> None:
    made = authority / "host-b.pem" if wanted is None else sign(authority, stem, **wanted)
    where = remote(server.port, authority, made)
    for question in (AdminClient.version, AdminClient.drain):
        with pytest.raises(errors.NotPermitted, match=said) as caught:
            await ask(where, question)
        assert "issue-operator" in caught.value.advice
    assert servicer.requests == []
    ((act, outcome, _),) = audit.acts
    assert (act.call, act.name, act.role, outcome) == ("Drain", "", "", DENIED)


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
async def test_a_certificate_out_of_date_is_told_of_before_anything_is_asked(
    server: RemoteServer, servicer: FakeDaemon, authority: Path, days: tuple[int, int]
) -> None:
    made = sign(authority, "old", units=["colod-admin"], days=days)
    with pytest.raises(errors.NotPermitted, match="valid from") as caught:
        await ask(remote(server.port, authority, made), AdminClient.drain)
    assert "issue-operator" in caught.value.advice
    assert (await asyncio.to_thread(bare_call, server.port, authority, made)) == "UNAVAILABLE"
    assert servicer.requests == []


def bare_call(port: int, authority: Path, certificate: Path | None) -> str:
    """Return the status of a call by a client that is not ours."""
    key = certificate.with_suffix(".key").read_bytes() if certificate else None
    pem = certificate.read_bytes() if certificate else None
    credentials = grpc.ssl_channel_credentials((authority / "ca.pem").read_bytes(), key, pem)
    options = [("grpc.ssl_target_name_override", "host-a")]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        call: Any = channel.unary_unary("/colod.v1.Admin/Drain")
        try:
            call(b"", timeout=20)
        except grpc.RpcError as error:
            code: Any = error
            return str(code.code().name)
    return "OK"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("foreign")
    pki.create_authority(directory)
    pki.issue_operator(directory, "admin", OperatorRole.ADMIN)
    return directory


async def test_a_certificate_of_another_authority_is_refused(
    server: RemoteServer, servicer: FakeDaemon, authority: Path, foreign: Path, tmp_path: Path
) -> None:
    theirs = of(foreign, "admin")
    with pytest.raises(errors.NotPermitted, match="is not of the authority in"):
        await ask(remote(server.port, authority, theirs), AdminClient.drain)
    with pytest.raises(errors.DaemonUnreachable, match="is not host-a: "):
        await ask(remote(server.port, foreign, theirs), AdminClient.drain)
    both = (authority / "ca.pem").read_bytes() + (foreign / "ca.pem").read_bytes()
    (tmp_path / "ca.pem").write_bytes(both)
    with pytest.raises(errors.DaemonUnreachable, match="closed the connection") as caught:
        await ask(remote(server.port, tmp_path, theirs), AdminClient.drain)
    assert "tls.ca" in caught.value.advice
    for certificate in (theirs, None):
        status = await asyncio.to_thread(bare_call, server.port, authority, certificate)
        assert status == "UNAVAILABLE"
    assert servicer.requests == []


async def test_a_host_of_another_name_is_not_asked(
    server: RemoteServer, servicer: FakeDaemon, authority: Path
) -> None:
    where = remote(server.port, authority, of(authority, "admin"), name="host-b")
    with pytest.raises(errors.DaemonUnreachable, match="is not host-b") as caught:
        await ask(where, AdminClient.drain)
    assert "--host-name" in caught.value.advice
    assert servicer.requests == []


async def test_an_operator_who_serves_is_no_host(servicer: FakeDaemon, authority: Path) -> None:
    """Else an operator could have others' orders by taking a host's address."""
    pki.issue_operator(authority, "host-a", OperatorRole.ADMIN, force=True)
    issued = of(authority, "host-a")
    identity = tls.TlsIdentity(
        (authority / "ca.pem").read_bytes(),
        issued.read_bytes(),
        issued.with_suffix(".key").read_bytes(),
    )
    fake = await start_remote_server(servicer, "127.0.0.1:0", identity)
    with pytest.raises(errors.DaemonUnreachable, match="is not host-a"):
        await ask(remote(fake.port, authority, of(authority, "admin")), AdminClient.drain)
    await fake.stop(0)


def status_of(client: AdminClient) -> str:
    return client.status().host


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("inside_of_tls", [False, True])
async def test_garbage_on_the_port_harms_nobody(
    server: RemoteServer, authority: Path, garbage: bytes, *, inside_of_tls: bool
) -> None:
    def pour() -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            rude: socket.socket = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.port), timeout=30)
            )
            if inside_of_tls:
                context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
                own = of(authority, "viewer")
                context.load_cert_chain(own, own.with_suffix(".key"))
                context.set_alpn_protocols(["h2"])
                rude = stack.enter_context(context.wrap_socket(rude, server_hostname="host-a"))
            rude.sendall(garbage)
            if not inside_of_tls:
                rude.shutdown(socket.SHUT_WR)
            rude.settimeout(3)
            while rude.recv(65536):
                pass

    await asyncio.to_thread(pour)
    where = remote(server.port, authority, of(authority, "viewer"))
    assert await ask(where, status_of) == "host-a"


async def test_a_request_above_the_bound_is_refused(
    server: RemoteServer, servicer: FakeDaemon, authority: Path
) -> None:
    where = remote(server.port, authority, of(authority, "admin"))
    with pytest.raises(errors.ColodError, match="resource_exhausted"):
        await ask(where, lambda client: client.suspend("x" * (limits.MESSAGE_MAX_BYTES + 1)))
    assert servicer.requests == []


async def test_more_connections_than_there_is_room_for_are_closed_and_room_comes_back(
    server: RemoteServer, authority: Path
) -> None:
    def crowd() -> int:
        with contextlib.ExitStack() as stack:
            crowded = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30))
                for _ in range(limits.REMOTE_CONNECTIONS + 8)
            ]
            deadline = time.monotonic() + 20
            while (closed := sum(map(is_closed, crowded))) < 8 and time.monotonic() < deadline:
                time.sleep(0.05)
        return closed

    assert await asyncio.to_thread(crowd) == 8
    where = remote(server.port, authority, of(authority, "viewer"))

    def patiently() -> str:
        deadline = time.monotonic() + 20
        while True:
            try:
                with AdminClient(where) as client:
                    return status_of(client)
            except errors.DaemonUnreachable:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    assert await asyncio.to_thread(patiently) == "host-a"


def is_closed(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return not link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_one_operator_leaves_room_for_others(
    server: RemoteServer, servicer: FakeDaemon, authority: Path
) -> None:
    servicer.hang_after_reports = True

    def crowd() -> Iterator[str]:
        viewer = remote(server.port, authority, of(authority, "viewer"))
        with AdminClient(viewer) as client:
            watches = [client.watch_status(timeout_s=60) for _ in range(limits.REMOTE_CALLS_EACH)]
            for each in watches:
                next(each)
            with pytest.raises(errors.NotPermitted, match="8 calls under way"):
                client.status()
            with AdminClient(remote(server.port, authority, of(authority, "admin"))) as other:
                yield status_of(other)
        deadline = time.monotonic() + 20
        with AdminClient(viewer) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(errors.NotPermitted):
                    yield status_of(client)
                    return
                time.sleep(0.05)

    assert await asyncio.to_thread(lambda: list(crowd())) == ["host-a", "host-a"]


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/colod.v1.Admin/Reboot",
        "/colod.v1.Peer/Beat",
    ],
)
async def test_nothing_else_is_served_there(
    server: RemoteServer, authority: Path, method: str
) -> None:
    def call() -> grpc.StatusCode:
        with AdminClient(remote(server.port, authority, of(authority, "admin"))) as client:
            method_: Any = client._channel.unary_unary(method)
            with pytest.raises(grpc.RpcError) as caught:
                method_(b"", timeout=20)
            error: Any = caught.value
            code: grpc.StatusCode = error.code()
            return code

    assert await asyncio.to_thread(call) is grpc.StatusCode.UNIMPLEMENTED


async def test_who_may_not_waits_to_hear_so(servicer: FakeDaemon, authority: Path) -> None:
    issued = authority / "host-a.pem"
    identity = tls.load_identity(
        authority / "ca.pem", issued, issued.with_suffix(".key"), host="host-a"
    )
    server = await start_remote_server(servicer, "127.0.0.1:0", identity, denial_s=0.4)
    begin = time.monotonic()
    with pytest.raises(errors.NotPermitted):
        await ask(remote(server.port, authority, of(authority, "viewer")), AdminClient.drain)
    assert time.monotonic() - begin >= 0.4
    await server.stop(0)
    with pytest.raises(errors.NetworkError, match="for operators"):
        await start_remote_server(servicer, "192.0.2.254:7413", identity)
