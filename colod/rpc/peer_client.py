"""Call the other host, from any thread; every call has a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

import grpc

from colod.errors import ColodError, PeerError, PeerRefused, PeerUnreachable, VersionMismatch
from colod.rpc import limits, status, versions
from colod.rpc.tls import TlsIdentity
from colod.v1 import peer_pb2, peer_pb2_grpc

BEAT_TIMEOUT_S = 2.0
GREET_TIMEOUT_S = 3.0
CALL_TIMEOUT_S = 30.0

_Reply = TypeVar("_Reply")

_UNANSWERED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class PeerClient:
    """The peer's daemon.

    The first call greets by itself; after a disagreement on versions, the next one greets anew, so
    that an upgraded peer is understood without a restart of this host's daemon.

    All calls raise PeerUnreachable when no answer came (it may have been carried out all the same),
    VersionMismatch, or PeerRefused with the peer's own words and code.
    """

    def __init__(self, address: str, tls: TlsIdentity, peer_name: str) -> None:
        """Prepare a channel to `address`; nothing is sent yet.

        Args:
            address: `host:port` of the peer's daemon.
            tls: This host's identity.
            peer_name: DNS name that the server's certificate must have.
        """
        # The address need not be in the certificate: the host's name is.
        options = (
            *limits.PEER_CLIENT,
            ("grpc.ssl_target_name_override", peer_name),
            ("grpc.default_authority", peer_name),
        )
        self._name = peer_name
        self._address = address
        self._channel = grpc.secure_channel(address, tls.channel_credentials(), options)
        self._stub = peer_pb2_grpc.PeerStub(self._channel)
        self._version: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way fail as unreachable."""
        self._channel.close()

    def greet(self, *, timeout_s: float = GREET_TIMEOUT_S) -> peer_pb2.GreetReply:
        """Agree on a version with the peer."""
        reply: peer_pb2.GreetReply = self._send(
            self._stub.Greet, versions.greet_request(), timeout_s, ()
        )
        theirs = (reply.version, reply.version)
        ours = (versions.PEER_VERSION_MIN, versions.PEER_VERSION_MAX)
        version = versions.agree(theirs, ours, who=f"{self._name} ({reply.software})")
        with self._lock:
            self._version = version
        return reply

    def beat(
        self, request: peer_pb2.BeatRequest, *, timeout_s: float = BEAT_TIMEOUT_S
    ) -> peer_pb2.BeatReply:
        """Exchange a heartbeat."""
        return self._call(self._stub.Beat, request, timeout_s)

    def preflight(
        self, request: peer_pb2.PeerPreflightRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> peer_pb2.PeerPreflightReply:
        """Ask whether the peer could take a guest."""
        return self._call(self._stub.Preflight, request, timeout_s)

    def prepare_receive(
        self, request: peer_pb2.PrepareReceiveRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> peer_pb2.PrepareReceiveReply:
        """Have the peer start a receiver; unanswered, one may have been started."""
        return self._call(self._stub.PrepareReceive, request, timeout_s)

    def forget(
        self, request: peer_pb2.ForgetRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> peer_pb2.ForgetReply:
        """Have the peer drop its replica of a guest that is no longer protected."""
        return self._call(self._stub.Forget, request, timeout_s)

    def offer_record(
        self, request: peer_pb2.OfferRecordRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> peer_pb2.OfferRecordReply:
        """Have the peer hold a copy of an ownership record; unanswered, it may hold it."""
        return self._call(self._stub.OfferRecord, request, timeout_s)

    def set_automation(
        self, request: peer_pb2.PeerSetAutomationRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> peer_pb2.PeerSetAutomationReply:
        """Have the peer pause its automation, or act by itself again."""
        return self._call(self._stub.SetAutomation, request, timeout_s)

    def give_back(
        self, request: peer_pb2.GiveBackRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> peer_pb2.GiveBackReply:
        """Have the peer give a guest back; unanswered, it may be on its way."""
        return self._call(self._stub.GiveBack, request, timeout_s)

    def _call(self, method: Callable[..., _Reply], request: Any, timeout_s: float) -> _Reply:
        with self._lock:
            version = self._version
        if version is None:
            version = self.greet(timeout_s=min(timeout_s, GREET_TIMEOUT_S)).version
        try:
            metadata = ((versions.METADATA_KEY, str(version)),)
            return self._send(method, request, timeout_s, metadata)
        except VersionMismatch:
            with self._lock:
                self._version = None
            raise

    def _send(
        self,
        method: Callable[..., _Reply],
        request: Any,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...],
    ) -> _Reply:
        try:
            return method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self._peer_error(error) from error
        except ValueError as error:  # gRPC's word for a channel that was closed meanwhile
            raise PeerUnreachable(f"{self._name}: {error}") from error

    def _peer_error(self, error: Any) -> ColodError:
        """Say what the peer's answer means on this side.

        Its errors are never raised as if they were ours: its missing domain is not missing here.
        """
        text = f"{self._name} ({self._address}): {error.details()}"
        sent = status.error_from(error.details() or "", error.trailing_metadata() or ())
        if isinstance(sent, VersionMismatch):
            return VersionMismatch(text, advice=sent.advice)
        if sent is not None:
            return PeerRefused(f"{text} ({sent.code})", advice=sent.advice)
        code = error.code()
        if code in _UNANSWERED:
            return PeerUnreachable(text, advice=_advice(error.details() or ""))
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return VersionMismatch(text, advice="upgrade the older of the two")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return PeerRefused(text)
        return PeerError(f"{text} ({code.name.lower()})")


def _advice(details: str) -> str:
    """Return what to look at when a connection failed in a way that gRPC names."""
    if "erification" in details or "CERTIFICATE" in details:
        return "compare tls.ca and peer.name here with the certificate there"
    if "refused" in details:
        return "is colod running there? compare peer.address here with peer.listen there"
    return ""
