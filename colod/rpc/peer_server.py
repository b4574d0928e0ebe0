"""Serve the other host's calls: a small thread pool of its own, independent of the daemon's loop.

Heartbeats are answered while the daemon's asyncio loop is busy. So the servicer's methods run in
threads; `Beat` must return at once, the others may wait, bounded, for the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, Final, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from colod.config import split_address
from colod.errors import ColodError, NetworkError, PeerRefused
from colod.rpc import limits, status, versions
from colod.rpc.tls import TlsIdentity, caller_names, caller_roles
from colod.v1 import peer_pb2, peer_pb2_grpc

_SERVICE: Final = peer_pb2.DESCRIPTOR.services_by_name["Peer"].full_name
_GREET: Final = f"/{_SERVICE}/Greet"
_BEAT: Final = f"/{_SERVICE}/Beat"
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
_OFFER: Final = f"/{_SERVICE}/OfferRecord"
_GIVE_BACK: Final = f"/{_SERVICE}/GiveBack"
_QUICK: Final = frozenset({_GREET, _BEAT, _HEALTH_CHECK})

OnDefect = Callable[[BaseException], None]
_Call = Callable[[Any, grpc.ServicerContext], Any]


class PeerServer:
    """The running server; `stop` it before the process ends.

    Attributes:
        port: Where it listens.
        unheard: Those of the further addresses that cannot be listened on.
    """

    def __init__(
        self, server: grpc.Server, port: int, health_servicer: Any, unheard: Sequence[str] = ()
    ) -> None:
        """Keep what `start_peer_server` made."""
        self.port = port
        self.unheard = unheard
        self._server = server
        self._health = health_servicer

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, let running ones finish for `grace_s` seconds, and close the port."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()


def start_peer_server(
    servicer: peer_pb2_grpc.PeerServicer,
    listen: str,
    tls: TlsIdentity,
    allowed_peer: str,
    *,
    on_defect: OnDefect | None = None,
    more: Sequence[str] = (),
) -> PeerServer:
    """Serve `servicer` on `listen`, and on `more`, to the one host `allowed_peer`.

    A `ColodError` of the servicer reaches the caller with its code. A defect (`IllegalTransition`,
    `InvariantBroken`) is given to `on_defect` in the call's thread, since gRPC would swallow it.

    Args:
        servicer: Implementation; its methods run in threads.
        listen: `address:port`; port 0 takes a free one, see `PeerServer.port`.
        tls: This host's identity.
        allowed_peer: DNS name that the caller's certificate must have.
        on_defect: Must end the process.
        more: Further addresses, as `listen`. One that cannot be used is left out: a network that
            is there for when another fails must not keep the daemon from serving that one.

    Raises:
        NetworkError: If the address `listen` cannot be listened on.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(limits.PEER_THREADS, thread_name_prefix="peer-rpc"),
        interceptors=[_Guard(allowed_peer, on_defect)],
        options=limits.PEER_SERVER,
        maximum_concurrent_rpcs=limits.PEER_CONCURRENT_CALLS,
    )
    peer_pb2_grpc.add_PeerServicer_to_server(servicer, server)
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    for each in (listen, *more):
        split_address(each)
    credentials = tls.server_credentials()
    try:
        port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise NetworkError(f"cannot listen on {listen} for the peer: {error}") from error
    unheard = [each for each in more if not _is_heard(server, each, credentials)]
    for name in ("", _SERVICE):
        health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    server.start()
    return PeerServer(server, port, health_servicer, unheard)


def _is_heard(server: grpc.Server, address: str, credentials: grpc.ServerCredentials) -> bool:
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError:
        return False
    return True


class _Guard(grpc.ServerInterceptor):
    """Admits one host at a known version, keeps threads for heartbeats, and maps errors."""

    def __init__(self, allowed_peer: str, on_defect: OnDefect | None) -> None:
        self._allowed_peer = allowed_peer
        self._on_defect = on_defect
        self._rooms = {
            _OFFER: threading.BoundedSemaphore(limits.PEER_OFFERS),
            _GIVE_BACK: threading.BoundedSemaphore(limits.PEER_GIFTS),
        }
        self._slow_calls = threading.BoundedSemaphore(limits.PEER_SLOW_CALLS)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        # Streams (only the health service has one) would hold a thread for as long as they like.
        if handler is None or handler.unary_unary is None:
            return None
        call = self._wrap(handler_call_details.method, handler)
        # The bytes as they came: grpcio 1.85 never ends a call whose request it cannot read, and a
        # connection with as many of them as it may have calls carries no other one any more.
        return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> _Call:
        call = handler.unary_unary
        assert call is not None

        def guarded(raw: bytes, context: grpc.ServicerContext) -> Any:
            try:
                self._admit(method, context)
                request = _parsed(handler, raw)
                if method in _QUICK:
                    return call(request, context)
                return self._call_slowly(method, call, request, context)
            except status.DEFECTS as defect:
                if self._on_defect is not None:
                    self._on_defect(defect)
                raise
            except ColodError as error:
                context.set_trailing_metadata(status.trailers_of(error))
                context.abort(status.status_of(error), status.text_of(error))

        return guarded

    def _admit(self, method: str, context: grpc.ServicerContext) -> None:
        # gRPC's types have bytes where it gives a list of them.
        proven = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
        self._refuse_operators(proven)
        names = caller_names(proven)
        if self._allowed_peer not in names:
            raise PeerRefused(
                f"caller is {', '.join(names) or 'nobody'}, not the configured peer "
                f"{self._allowed_peer}",
                advice="compare peer.name here with host.name and the certificate there",
            )
        if method not in (_GREET, _HEALTH_CHECK):
            ours = (versions.PEER_VERSION_MIN, versions.PEER_VERSION_MAX)
            versions.check_version(context.invocation_metadata(), ours, required=True)

    def _refuse_operators(self, proven: Mapping[str, Sequence[bytes]]) -> None:
        try:
            roles = caller_roles(proven)
        except ValueError as error:
            raise PeerRefused(f"the caller's certificate cannot be read: {error}") from error
        if roles:
            raise PeerRefused(
                f"caller is an operator ({', '.join(roles)}), not the configured peer "
                f"{self._allowed_peer}",
                advice="operators are heard at admin.listen: colodctl --host",
            )

    def _call_slowly(
        self, method: str, call: _Call, request: Any, context: grpc.ServicerContext
    ) -> Any:
        room = self._rooms.get(method, self._slow_calls)
        if not room.acquire(blocking=False):
            text = "too many such calls are already waiting on this host"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        try:
            return call(request, context)
        finally:
            room.release()


def _parsed(handler: grpc.RpcMethodHandler[Any, Any], raw: bytes) -> Any:
    """Return the request that came as `raw`.

    Raises:
        PeerRefused: If it is none.
    """
    parse = handler.request_deserializer
    try:
        return raw if parse is None else parse(raw)
    except DecodeError as error:
        raise PeerRefused(f"the request cannot be read: {error}") from error
