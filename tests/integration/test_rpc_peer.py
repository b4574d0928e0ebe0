"""The peer's port over real TLS: who gets in, what hostile input does, what hangs hold up."""
# ruff: noqa: N802 (gRPC names the methods)

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from colod import errors
from colod.model import HostName
from colod.rpc import limits, pki, tls, versions
from colod.rpc.peer_client import PeerClient
from colod.rpc.peer_server import PeerServer, start_peer_server
from colod.v1 import peer_pb2, peer_pb2_grpc
from tests.operators import sign
from tests.pair import free_ports

SERVER, CLIENT, STRANGER = HostName("host-a"), HostName("host-b"), HostName("host-c")

GARBAGE = [
    b"\0" * 4096,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\xff\xff" + b"\xff" * 20000,
    bytes(range(256)) * 64,
]
"""What no TLS server should be moved by."""


@dataclass
class FakePeer(peer_pb2_grpc.PeerServicer):
    """Answers as told; slow calls wait for `gate`."""

    error: errors.ColodError | None = None
    version: int = versions.PEER_VERSION_MAX
    greetings: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def Greet(self, request: Any, context: Any) -> peer_pb2.GreetReply:
        self.greetings += 1
        reply = versions.answer_greet(request)
        reply.version = self.version
        return reply

    def Beat(self, request: Any, context: Any) -> peer_pb2.BeatReply:
        return peer_pb2.BeatReply(sequence=request.sequence)

    def Preflight(self, request: Any, context: Any) -> peer_pb2.PeerPreflightReply:
        if self.error is not None:
            raise self.error
        return peer_pb2.PeerPreflightReply(refusals=[request.guest])

    def PrepareReceive(self, request: Any, context: Any) -> peer_pb2.PrepareReceiveReply:
        self.waiting.release()
        self.gate.wait(60)
        return peer_pb2.PrepareReceiveReply(address="unix:/x")

    def OfferRecord(self, request: Any, context: Any) -> peer_pb2.OfferRecordReply:
        return peer_pb2.OfferRecordReply(accepted=False)

    def Forget(self, request: Any, context: Any) -> peer_pb2.ForgetReply:
        return peer_pb2.ForgetReply()

    def SetAutomation(self, request: Any, context: Any) -> peer_pb2.PeerSetAutomationReply:
        return peer_pb2.PeerSetAutomationReply()

    def GiveBack(self, request: Any, context: Any) -> peer_pb2.GiveBackReply:
        return peer_pb2.GiveBackReply()


Identities = dict[str, tls.TlsIdentity]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ours")
    pki.create_authority(directory)
    return directory


@pytest.fixture(scope="module")
def identities(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """Hosts of one authority, and `forged`: the client's name from another authority."""
    ours, other = authority, tmp_path_factory.mktemp("other")
    pki.create_authority(other)
    made: Identities = {host: identity(ours, host) for host in (SERVER, CLIENT, STRANGER)}
    forged = identity(other, CLIENT)
    made["forged"] = tls.TlsIdentity(made[CLIENT].ca, forged.certificate, forged.key)
    return made


def identity(directory: Path, host: str) -> tls.TlsIdentity:
    issued = pki.issue_certificate(directory, HostName(host))
    return tls.load_identity(directory / "ca.pem", issued.certificate, issued.key, host=host)


@pytest.fixture
def servicer() -> FakePeer:
    return FakePeer()


@pytest.fixture
def defects() -> list[BaseException]:
    return []


@pytest.fixture
def server(
    servicer: FakePeer, identities: Identities, defects: list[BaseException]
) -> Iterator[PeerServer]:
    started = start_peer_server(
        servicer, "127.0.0.1:0", identities[SERVER], CLIENT, on_defect=defects.append
    )
    yield started
    servicer.gate.set()
    started.stop(0)


def connect(server: PeerServer, who: tls.TlsIdentity, *, expects: str = SERVER) -> PeerClient:
    return PeerClient(f"127.0.0.1:{server.port}", who, expects)


@pytest.fixture
def client(server: PeerServer, identities: Identities) -> Iterator[PeerClient]:
    with connect(server, identities[CLIENT]) as made:
        yield made


@pytest.fixture
def channel(server: PeerServer, identities: Identities) -> Iterator[grpc.Channel]:
    """A caller with the right certificate that does not use our client."""
    made = grpc.secure_channel(
        f"127.0.0.1:{server.port}",
        identities[CLIENT].channel_credentials(),
        [("grpc.ssl_target_name_override", SERVER)],
    )
    yield made
    made.close()


def beat(client: PeerClient, sequence: int = 1) -> int:
    reply = client.beat(peer_pb2.BeatRequest(sequence=sequence), timeout_s=20)
    return reply.sequence


def test_the_configured_peer_is_greeted_and_heard(client: PeerClient) -> None:
    assert client.greet(timeout_s=20).version == versions.PEER_VERSION_MAX
    assert beat(client, 7) == 7
    request = peer_pb2.PeerPreflightRequest(guest="web")
    assert list(client.preflight(request).refusals) == ["web"]
    client.forget(peer_pb2.ForgetRequest(guest="web"))


def test_a_host_of_the_same_authority_that_is_not_the_peer_is_refused(
    server: PeerServer, identities: Identities
) -> None:
    with (
        connect(server, identities[STRANGER]) as stranger,
        pytest.raises(errors.PeerRefused, match="caller is host-c, not the configured peer host-b"),
    ):
        stranger.greet(timeout_s=20)


def test_refusal_of_a_stranger_is_permission_denied_in_grpcs_words(
    server: PeerServer, identities: Identities
) -> None:
    channel = grpc.secure_channel(
        f"127.0.0.1:{server.port}",
        identities[STRANGER].channel_credentials(),
        [("grpc.ssl_target_name_override", SERVER)],
    )
    with channel, pytest.raises(grpc.RpcError) as caught:
        peer_pb2_grpc.PeerStub(channel).Greet(versions.greet_request(), timeout=20)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("hosts", [(), (CLIENT,)])
def test_an_operator_is_no_host_whatever_names_its_certificate_has(
    server: PeerServer,
    servicer: FakePeer,
    identities: Identities,
    authority: Path,
    hosts: tuple[str, ...],
) -> None:
    made = sign(authority, "ann", names=[CLIENT], units=["colod-admin"], hosts=hosts)
    key = made.with_suffix(".key").read_bytes()
    ann = tls.TlsIdentity(identities[CLIENT].ca, made.read_bytes(), key)
    with (
        connect(server, ann) as operator,
        pytest.raises(errors.PeerRefused, match=r"caller is an operator \(colod-admin\)") as caught,
    ):
        operator.greet(timeout_s=20)
    assert "colodctl --host" in caught.value.advice
    assert servicer.greetings == 0


def test_the_right_name_from_another_authority_is_refused(
    server: PeerServer, identities: Identities
) -> None:
    with (
        connect(server, identities["forged"]) as forger,
        pytest.raises(errors.PeerUnreachable),
    ):
        forger.greet(timeout_s=20)


def test_a_server_that_is_not_the_peer_is_not_talked_to(
    server: PeerServer, identities: Identities
) -> None:
    with (
        connect(server, identities[CLIENT], expects=STRANGER) as client,
        pytest.raises(errors.PeerUnreachable) as caught,
    ):
        client.greet(timeout_s=20)
    assert "peer.name" in caught.value.advice


def test_a_caller_without_a_certificate_gets_no_answer(
    server: PeerServer, identities: Identities
) -> None:
    channel = grpc.secure_channel(
        f"127.0.0.1:{server.port}",
        grpc.ssl_channel_credentials(identities[SERVER].ca),
        [("grpc.ssl_target_name_override", SERVER)],
    )
    with channel, pytest.raises(grpc.RpcError) as caught:
        peer_pb2_grpc.PeerStub(channel).Greet(versions.greet_request(), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_caller_without_tls_gets_no_answer(server: PeerServer) -> None:
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
    with channel, pytest.raises(grpc.RpcError):
        peer_pb2_grpc.PeerStub(channel).Greet(versions.greet_request(), timeout=20)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_on_the_port_is_cut_off_and_harms_nobody(
    server: PeerServer, client: PeerClient, garbage: bytes
) -> None:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as rude,
        contextlib.suppress(OSError),
    ):
        rude.sendall(garbage)
        rude.shutdown(socket.SHUT_WR)
        while rude.recv(65536):
            pass
    assert beat(client) == 1


def test_garbage_inside_of_tls_harms_nobody(
    server: PeerServer, client: PeerClient, identities: Identities, tmp_path: Path
) -> None:
    context = ssl.create_default_context(cadata=identities[CLIENT].ca.decode())
    (tmp_path / "pair.pem").write_bytes(identities[CLIENT].key + identities[CLIENT].certificate)
    context.load_cert_chain(tmp_path / "pair.pem")
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    with (
        context.wrap_socket(plain, server_hostname=SERVER) as rude,
        contextlib.suppress(OSError),
    ):
        rude.sendall(b"\xff" * 20000)
        while rude.recv(65536):
            pass
    assert beat(client) == 1


def test_a_message_above_the_bound_is_refused(channel: grpc.Channel, client: PeerClient) -> None:
    request = peer_pb2.PeerPreflightRequest(domain_config=b"x" * (limits.MESSAGE_MAX_BYTES + 1))
    with pytest.raises(grpc.RpcError) as caught:
        peer_pb2_grpc.PeerStub(channel).Preflight(
            request, timeout=20, metadata=((versions.METADATA_KEY, "1"),)
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert beat(client) == 1


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel, client: PeerClient) -> None:
    call: Any = channel.unary_unary("/colod.v1.Peer/Beat")
    with pytest.raises(grpc.RpcError):
        call(b"\xff\xff\xff", timeout=20, metadata=((versions.METADATA_KEY, "1"),))
    assert beat(client) == 1


@pytest.mark.parametrize("metadata", [(), ((versions.METADATA_KEY, "99"),)])
def test_a_call_without_an_agreed_version_is_refused(
    channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        peer_pb2_grpc.PeerStub(channel).Beat(peer_pb2.BeatRequest(), timeout=20, metadata=metadata)
    metadata_back: Any = caught.value.trailing_metadata()
    trailers = dict(metadata_back)
    assert trailers["colod-code"] == "peer.version_mismatch"


def test_a_disagreement_on_versions_is_clear_and_ends_when_the_peer_is_upgraded(
    client: PeerClient, servicer: FakePeer
) -> None:
    servicer.version = 99
    with pytest.raises(errors.VersionMismatch, match=r"host-a .* speaks protocol versions 99"):
        beat(client)
    servicer.version = versions.PEER_VERSION_MAX
    assert beat(client) == 1


def test_a_version_that_the_peer_no_longer_takes_is_agreed_on_anew(
    client: PeerClient, servicer: FakePeer
) -> None:
    beat(client)
    beat(client)
    assert servicer.greetings == 1
    servicer.error = errors.VersionMismatch("upgraded meanwhile")
    with pytest.raises(errors.VersionMismatch, match="upgraded meanwhile"):
        client.preflight(peer_pb2.PeerPreflightRequest())
    beat(client)
    assert servicer.greetings == 2


def test_a_refusal_of_the_peer_keeps_its_words_code_and_advice(
    client: PeerClient, servicer: FakePeer
) -> None:
    servicer.error = errors.NotAllowedNow("SYNCING", "busy", advice="wait")
    with pytest.raises(errors.PeerRefused, match=r"host-a .*busy .*\(state.not_allowed\)") as seen:
        client.preflight(peer_pb2.PeerPreflightRequest())
    assert seen.value.advice == "wait"


def test_a_defect_on_the_other_host_is_reported_there_and_is_none_here(
    client: PeerClient, servicer: FakePeer, defects: list[BaseException]
) -> None:
    servicer.error = errors.InvariantBroken("two copies")
    with pytest.raises(errors.PeerError) as caught:
        client.preflight(peer_pb2.PeerPreflightRequest())
    assert type(caught.value) is errors.PeerError
    assert defects == [servicer.error]


def test_nobody_at_the_address_is_unreachable(identities: Identities) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            PeerClient(address, identities[CLIENT], SERVER) as client,
            pytest.raises(errors.PeerUnreachable, match="host-a"),
        ):
            client.greet(timeout_s=20)


def test_a_peer_that_does_not_answer_is_given_up_at_the_deadline(client: PeerClient) -> None:
    client.greet(timeout_s=20)
    with pytest.raises(errors.PeerUnreachable, match="Deadline"):
        client.prepare_receive(peer_pb2.PrepareReceiveRequest(), timeout_s=0.3)


def test_a_closed_client_is_unreachable(client: PeerClient) -> None:
    client.close()
    with pytest.raises(errors.PeerUnreachable):
        client.greet()


def test_heartbeats_are_answered_while_every_slow_call_hangs(
    client: PeerClient, servicer: FakePeer
) -> None:
    client.greet(timeout_s=20)
    request = peer_pb2.PrepareReceiveRequest()
    with ThreadPoolExecutor(limits.PEER_SLOW_CALLS) as pool:
        hanging = [
            pool.submit(client.prepare_receive, request, timeout_s=60)
            for _ in range(limits.PEER_SLOW_CALLS)
        ]
        for _ in hanging:
            assert servicer.waiting.acquire(timeout=60)
        assert beat(client) == 1
        with pytest.raises(errors.PeerRefused, match="already waiting"):
            client.prepare_receive(request)
        # What those may wait for: the news of an activation.
        assert not client.offer_record(peer_pb2.OfferRecordRequest()).accepted
        servicer.gate.set()
        assert [call.result().address for call in hanging] == ["unix:/x"] * len(hanging)


def test_health_is_told_to_the_peer(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    reply = stub.Check(health_pb2.HealthCheckRequest(service="colod.v1.Peer"), timeout=20)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_a_stream_of_health_would_hold_a_thread_and_is_not_served(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    version = ((versions.METADATA_KEY, str(versions.PEER_VERSION_MAX)),)
    with pytest.raises(grpc.RpcError) as caught:
        next(iter(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20, metadata=version)))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_port_that_is_taken_is_a_clear_error(
    server: PeerServer, servicer: FakePeer, identities: Identities
) -> None:
    with pytest.raises(errors.NetworkError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        start_peer_server(servicer, f"127.0.0.1:{server.port}", identities[SERVER], CLIENT)


def test_a_further_address_that_cannot_be_used_does_not_keep_the_others_from_serving(
    servicer: FakePeer, identities: Identities, server: PeerServer
) -> None:
    taken, free = f"127.0.0.1:{server.port}", f"127.0.0.2:{server.port}"
    second = start_peer_server(
        servicer, "127.0.0.1:0", identities[SERVER], CLIENT, more=(taken, free)
    )
    try:
        assert second.unheard == [taken]
        for address in (f"127.0.0.1:{second.port}", free):
            with PeerClient(address, identities[CLIENT], SERVER) as client:
                assert beat(client) == 1
    finally:
        second.stop(0)


def test_the_caller_has_to_prove_itself_on_a_further_address_too(
    servicer: FakePeer, identities: Identities
) -> None:
    free = free_ports(1)[0]
    served = start_peer_server(
        servicer, "127.0.0.1:0", identities[SERVER], CLIENT, more=(f"127.0.0.2:{free}",)
    )
    try:
        with (
            PeerClient(f"127.0.0.2:{free}", identities[SERVER], SERVER) as client,
            pytest.raises(errors.PeerRefused, match="not the configured peer"),
        ):
            beat(client)
    finally:
        served.stop(0)


def test_a_peer_that_comes_back_is_heard_by_the_same_client(
    servicer: FakePeer, identities: Identities
) -> None:
    first = start_peer_server(servicer, "127.0.0.1:0", identities[SERVER], CLIENT)
    with connect(first, identities[CLIENT]) as client:
        assert beat(client) == 1
        first.stop(0)
        with pytest.raises(errors.PeerUnreachable):
            beat(client)
        second = start_peer_server(servicer, f"127.0.0.1:{first.port}", identities[SERVER], CLIENT)
        try:
            assert heard_again(client)
        finally:
            second.stop(0)


def heard_again(client: PeerClient) -> bool:
    """Beat until it is answered; the client waits a quarter of a second or more between tries."""
    for _ in range(100_000):
        with contextlib.suppress(errors.PeerUnreachable):
            return beat(client) == 1
    return False


def test_requests_that_cannot_be_read_are_refused_and_use_up_no_connection(
    channel: grpc.Channel,
) -> None:
    call: Any = channel.unary_unary("/colod.v1.Peer/Beat")
    version = ((versions.METADATA_KEY, str(versions.PEER_VERSION_MAX)),)
    for _ in range(limits.ADMIN_CONCURRENT_CALLS + 10):
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff", timeout=20, metadata=version)
        status: Any = refused.value
        assert status.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "cannot be read" in status.details()
    assert call(b"", timeout=20, metadata=version) == b""


def test_what_a_stranger_sends_is_not_even_read(server: PeerServer, identities: Identities) -> None:
    strange = grpc.secure_channel(
        f"127.0.0.1:{server.port}",
        identities[STRANGER].channel_credentials(),
        [("grpc.ssl_target_name_override", SERVER)],
    )
    call: Any = strange.unary_unary("/colod.v1.Peer/Beat")
    with strange, pytest.raises(grpc.RpcError) as refused:
        call(b"\xff", timeout=20)
    status: Any = refused.value
    assert "not the configured peer" in status.details()
