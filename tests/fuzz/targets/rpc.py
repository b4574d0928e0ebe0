"""gRPC over loopback: any bytes as a request, of any caller, to real servers and their guards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from colod.daemon.host import Host
from colod.daemon.peer_service import PeerService
from colod.model import HostName
from colod.rpc import pki, tls, versions
from colod.rpc.operators import OperatorRole
from colod.rpc.peer_server import PeerServer, start_peer_server
from colod.rpc.permissions import ADMINS_FIELDS, LEAST
from colod.rpc.remote_server import RemoteServer, start_remote_server
from colod.v1 import admin_pb2, peer_pb2
from tests.fuzz.target import Reader, Target, demand, same
from tests.fuzz.targets.folder import make_folder
from tests.fuzz.targets.peer import QuietPeer, quiet_loop, some_requests
from tests.integration.admin_double import FakeDaemon

_PEER_CALLS = peer_pb2.DESCRIPTOR.services_by_name["Peer"].methods
_ADMIN_CALLS = admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods
_SERVER, _CLIENT, _STRANGER = HostName("host-a"), HostName("host-b"), HostName("host-c")
_CALL_S = 20.0
_READY_S = 60.0
_Code = grpc.StatusCode
_CALLERS = ("host-b", "host-c", "viewer", "operator", "admin", "nobody")
_DEFECTS: list[BaseException] = []
_OF_COLOD = {
    _Code.OK,
    _Code.PERMISSION_DENIED,
    _Code.FAILED_PRECONDITION,
    _Code.INVALID_ARGUMENT,
    _Code.NOT_FOUND,
    _Code.UNIMPLEMENTED,
    _Code.RESOURCE_EXHAUSTED,
    _Code.DATA_LOSS,
}
"""What sound requests may come to; UNKNOWN is an exception that nobody foresaw."""


@cache
def _authority() -> Path:
    directory = make_folder()
    pki.create_authority(directory)
    for host in (_SERVER, _CLIENT, _STRANGER):
        pki.issue_certificate(directory, host)
    for role in OperatorRole:
        pki.issue_operator(directory, role.word, role)
    return directory


def _identity(certificate: Path) -> tls.TlsIdentity:
    files = (_authority() / "ca.pem", certificate, certificate.with_suffix(".key"))
    return tls.TlsIdentity(*(path.read_bytes() for path in files))


@cache
def _peer_server() -> PeerServer:
    service = PeerService(cast("Host", QuietPeer()), quiet_loop())
    identity = _identity(_authority() / f"{_SERVER}.pem")
    return start_peer_server(service, "127.0.0.1:0", identity, _CLIENT, on_defect=_DEFECTS.append)


@cache
def _admin_server() -> RemoteServer:
    double = FakeDaemon()
    double.copies = [admin_pb2.QuarantinedCopy()]
    double.checked.set()
    identity = _identity(_authority() / f"{_SERVER}.pem")
    starting = start_remote_server(
        double, "127.0.0.1:0", identity, on_defect=_DEFECTS.append, denial_s=0.0
    )
    return asyncio.run_coroutine_threadsafe(starting, quiet_loop()).result(_CALL_S)


@cache
def _channel(port: int, caller: str) -> grpc.Channel:
    """Return a channel of `caller`, open already; nobody's stays closed."""
    if caller == "nobody":
        credentials = grpc.ssl_channel_credentials((_authority() / "ca.pem").read_bytes())
    else:
        folder = _authority() if caller.startswith("host") else _authority() / "operators"
        credentials = _identity(folder / f"{caller}.pem").channel_credentials()
    options = (("grpc.ssl_target_name_override", str(_SERVER)), ("grpc.enable_retries", 0))
    channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
    if caller != "nobody":
        grpc.channel_ready_future(channel).result(_READY_S)
    return channel


def _metadata(number: int) -> tuple[tuple[str, str | bytes], ...]:
    """Return the version that a caller claims: the right one, mostly."""
    odd: dict[int, tuple[tuple[str, str | bytes], ...]] = {
        0: (),
        1: ((versions.METADATA_KEY, "2"),),
        2: ((versions.METADATA_KEY, "999999999999"),),
        3: ((versions.METADATA_KEY, "-1"),),
    }
    return odd.get(number % 16, ((versions.METADATA_KEY, "1"),))


def _ask(port: int, caller: str, path: str, raw: bytes, metadata: Any, *, streams: bool) -> Any:
    """Return the status of one call."""
    channel = _channel(port, caller)
    make: Callable[..., Any] = channel.unary_stream if streams else channel.unary_unary
    call = make(path, request_serializer=None, response_deserializer=None)
    try:
        answer = call(raw, timeout=_CALL_S, metadata=metadata)
        if streams:
            for _ in answer:
                pass
    except grpc.RpcError as error:
        status: Any = error
        return status.code()
    return _Code.OK


def _is_sound(method: Any, raw: bytes) -> bool:
    try:
        GetMessageClass(method.input_type).FromString(raw)
    except DecodeError:
        return False
    return True


def _run_peer(octets: bytes) -> Hashable:
    reader = Reader(octets)
    who, is_other = reader.byte(), reader.flag()
    caller = _CALLERS[who % len(_CALLERS) if is_other else 0]
    number, version, raw = reader.byte(), reader.byte(), reader.rest()
    method = _PEER_CALLS[number % len(_PEER_CALLS)]
    name = method.name if number < 200 else "NoSuch"
    code = _ask(
        _peer_server().port,
        caller,
        f"/colod.v1.Peer/{name}",
        raw,
        _metadata(version),
        streams=False,
    )
    same("defects", _DEFECTS, [])
    if caller == "nobody":
        same("a call without a certificate", code, _Code.UNAVAILABLE)
    elif name == "NoSuch":
        same("a call that there is not", code, _Code.UNIMPLEMENTED)
    elif caller != _CLIENT:
        same(f"{name} of {caller}", code, _Code.PERMISSION_DENIED)
    elif version % 16 < 4 and name != "Greet":
        same(f"{name} of another version", code, _Code.UNIMPLEMENTED)
    elif not _is_sound(method, raw):
        same("bytes that are no message", code, _Code.PERMISSION_DENIED)
    else:
        demand(code in _OF_COLOD, f"{name} came to {code}")
    return caller, name, code.value[0]


def _run_admin(octets: bytes) -> Hashable:
    reader = Reader(octets)
    is_operator, who = reader.byte() % 8, reader.byte()
    caller = _CALLERS[2:][who % 4] if is_operator else _CALLERS[0]
    number, version, raw = reader.byte(), reader.byte(), reader.rest()
    method = _ADMIN_CALLS[number % len(_ADMIN_CALLS)]
    code = _ask(
        _admin_server().port,
        caller,
        f"/colod.v1.Admin/{method.name}",
        raw,
        _metadata(version),
        streams=method.server_streaming,
    )
    same("defects", _DEFECTS, [])
    if caller == "nobody":
        same("a call without a certificate", code, _Code.UNAVAILABLE)
    elif not _is_sound(method, raw):
        demand(code in (_Code.INTERNAL, _Code.UNKNOWN), f"bytes that are no message: {code}")
    elif not _may(caller, method, raw):
        same(f"{method.name} of {caller}", code, _Code.PERMISSION_DENIED)
    elif version % 16 in (1, 2, 3):
        same(f"{method.name} of another version", code, _Code.UNIMPLEMENTED)
    else:
        same(f"{method.name} of {caller}", code, _Code.OK)
    return caller, method.name, code.value[0]


def _may(caller: str, method: Any, raw: bytes) -> bool:
    if caller.startswith("host"):
        return False
    role = OperatorRole[caller.upper()]
    request = GetMessageClass(method.input_type).FromString(raw)
    is_admins = any(getattr(request, each) for each in ADMINS_FIELDS.get(method.name, ()))
    return role >= (OperatorRole.ADMIN if is_admins else LEAST[method.name])


def _peer_seeds() -> Iterable[bytes]:
    numbers = {method.name: number for number, method in enumerate(_PEER_CALLS)}
    for name, request in some_requests():
        raw = request.SerializeToString()
        yield bytes((0, 0, numbers[name], 9)) + raw
        for caller in range(1, len(_CALLERS)):
            yield bytes((caller, 1, numbers[name], 9)) + raw
    yield bytes((0, 0, numbers["Beat"], 0))
    yield bytes((0, 0, 200, 9))


def _admin_seeds() -> Iterable[bytes]:
    request = admin_pb2.FailoverRequest(guest="web", force_reason="burnt", dry_run=True)
    for number, method in enumerate(_ADMIN_CALLS):
        raw = request.SerializeToString() if method.name == "Failover" else b"\x0a\x03web"
        for caller in range(4):
            yield bytes((1, caller, number, 9)) + raw
        yield bytes((0, 0, number, 9)) + raw


# Other threads answer, so their memory is not this run's.
PEER = Target(run=_run_peer, seeds=_peer_seeds, held_bytes=None, max_bytes=1 << 12)
ADMIN = Target(run=_run_admin, seeds=_admin_seeds, held_bytes=None, max_bytes=1 << 12)
