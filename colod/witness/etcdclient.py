"""Requests to an etcd cluster: endpoints in turn, TLS, authentication, bounds in time.

Every request made through this client must be safe to repeat, as one that failed on an endpoint is
sent to the next, and may have been carried out on the first. The witness's are: reads, and
transactions conditional on a revision (see `colod.witness.settle`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from colod.errors import WitnessError, WitnessUnreachable
from colod.witness.etcdpb import rpc_pb2 as pb
from colod.witness.etcdpb import rpc_pb2_grpc as rpc

_ROUND_PAUSE_S = 0.1

# A failed channel is thrown away, and with it the pause before the next try and a connection that
# may be half open; so channels must not share these with each other either. Proxies from the
# environment are not meant for a cluster's inside.
_CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 1 << 20),
)

# What etcd answers when the token is stale, missing, or older than its users and roles. Only the
# first has a status of its own. Spec: etcd api/v3rpc/rpctypes/error.go.
_TOKEN_COMPLAINTS = ("user name is empty", "revision of auth store is old")

# What every member would answer alike: asking on is of no use.
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


class _Answer(Protocol):
    @property
    def header(self) -> pb.ResponseHeader: ...


_Reply = TypeVar("_Reply", bound=_Answer)
Metadata = tuple[tuple[str, str], ...]
Call = Callable[[grpc.aio.Channel, Metadata, float], Awaitable[_Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where a cluster is and how one is let in.

    Attributes:
        endpoints: `host:port` of one or more members.
        secure: Whether to use TLS.
        ca_file: What the members' certificates are checked against; None for the system's.
        cert_file: Our certificate, with `key_file`, where members ask for one.
        key_file: Its key.
        user: etcd user, with `password_file`, where authentication is on.
        password_file: Its first line is the password.
    """

    endpoints: Sequence[str]
    secure: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one endpoint says of itself.

    Attributes:
        endpoint: Its `host:port`.
        version: Of etcd; "" if it did not answer.
        problems: What stands in the way of its use, each a sentence; empty when all is well.
    """

    endpoint: str
    version: str
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Link:
    channel: grpc.aio.Channel
    users: int = 0


class EtcdClient:
    """Sends each request to the endpoint that answered last, then to the others in turn."""

    def __init__(self, cluster: Cluster, *, timeout_s: float) -> None:
        """Prepare to talk to `cluster`; each request ends after `timeout_s` seconds at most."""
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._endpoints = list(cluster.endpoints)
        self._links: dict[str, _Link] = {}
        self._token: str | None = None
        self._cluster_id = 0

    async def range(self, key: bytes) -> pb.RangeResponse:
        """Return what the cluster holds under `key`, linearizable.

        Raises:
            WitnessUnreachable: If no endpoint answered.
            WitnessError: If all refused, or one answered for another cluster.
        """
        request = pb.RangeRequest(key=key)
        return await self._request(
            lambda channel, metadata, timeout_s: rpc.KVStub(channel).Range(
                request, metadata=metadata, timeout=timeout_s
            )
        )

    async def txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        """Carry out a transaction that is safe to repeat.

        Raises:
            WitnessError: If no endpoint answered as it should; it may have happened, and may yet.
        """
        return await self._request(
            lambda channel, metadata, timeout_s: rpc.KVStub(channel).Txn(
                request, metadata=metadata, timeout=timeout_s
            )
        )

    async def status(self) -> tuple[MemberStatus, ...]:
        """Ask every endpoint how it is; never raises for one that does not answer."""
        return tuple(await asyncio.gather(*map(self._member_status, self._cluster.endpoints)))

    async def close(self) -> None:
        """Close all connections."""
        links, self._links = self._links, {}
        for link in links.values():
            await link.channel.close()

    async def _request(self, call: Call[_Reply]) -> _Reply:
        failures: dict[str, str] = {}
        refusals: set[str] = set()
        async for endpoint, timeout_s in self._turns(refusals):
            try:
                reply = await self._ask(endpoint, call, timeout_s)
            except (TimeoutError, OSError, grpc.aio.AioRpcError) as error:
                failures[endpoint] = _describe(error)
                if isinstance(error, grpc.aio.AioRpcError) and error.code() in _REFUSALS:
                    refusals.add(endpoint)
                continue
            self._check_cluster(endpoint, reply.header.cluster_id)
            self._endpoints.sort(key=lambda other: other != endpoint)
            return reply
        problem = "; ".join(f"{at}: {what}" for at, what in failures.items())
        raise WitnessError(problem) if refusals >= set(failures) else WitnessUnreachable(problem)

    async def _turns(self, refusals: set[str]) -> AsyncIterator[tuple[str, float]]:
        """Yield endpoints that did not refuse, each with its seconds, until the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while left := [one for one in self._endpoints if one not in refusals]:
            for position, endpoint in enumerate(left):
                left_s = deadline - loop.time()
                if left_s <= 0:
                    return
                yield endpoint, left_s / (len(left) - position)
            await asyncio.sleep(min(_ROUND_PAUSE_S, max(0.0, deadline - loop.time())))

    async def _ask(self, endpoint: str, call: Call[_Reply], timeout_s: float) -> _Reply:
        """Ask one endpoint, with a new token if it finds ours stale."""
        async with asyncio.timeout(timeout_s), self._channel(endpoint) as channel:
            metadata = await self._credentials(channel, timeout_s)
            try:
                return await call(channel, metadata, timeout_s)
            except grpc.aio.AioRpcError as error:
                if not metadata or not _is_about_token(error):
                    raise
            if metadata == (("token", self._token),):
                self._token = None
            return await call(channel, await self._credentials(channel, timeout_s), timeout_s)

    async def _credentials(self, channel: grpc.aio.Channel, timeout_s: float) -> Metadata:
        if self._cluster.user is None or self._cluster.password_file is None:
            return ()
        token = self._token
        if token is None:
            secret = await asyncio.to_thread(_read_password, self._cluster.password_file)
            request = pb.AuthenticateRequest(
                name=self._cluster.user, password=secret.partition("\n")[0]
            )
            answer = await rpc.AuthStub(channel).Authenticate(request, timeout=timeout_s)
            token = self._token = answer.token
        return (("token", token),)

    @contextlib.asynccontextmanager
    async def _channel(self, endpoint: str) -> AsyncIterator[grpc.aio.Channel]:
        """Lend the channel to `endpoint`; one whose use failed is lent to nobody again.

        It is closed when its last user is done: closing it earlier would cancel their calls.
        """
        link = self._links.get(endpoint)
        if link is None:
            opened = await self._open(endpoint)
            link = self._links.setdefault(endpoint, _Link(opened))
        link.users += 1
        try:
            yield link.channel
        except BaseException:
            if self._links.get(endpoint) is link:
                del self._links[endpoint]
            raise
        finally:
            link.users -= 1
            if link.users == 0 and self._links.get(endpoint) is not link:
                await link.channel.close()

    async def _open(self, endpoint: str) -> grpc.aio.Channel:
        if not self._cluster.secure:
            return grpc.aio.insecure_channel(endpoint, _CHANNEL_OPTIONS)
        credentials = await asyncio.to_thread(_tls_credentials, self._cluster)
        return grpc.aio.secure_channel(endpoint, credentials, _CHANNEL_OPTIONS)

    def _check_cluster(self, endpoint: str, cluster_id: int) -> None:
        # Two clusters would be two witnesses, and each could name another owner.
        self._cluster_id = self._cluster_id or cluster_id
        if cluster_id == 0 or cluster_id != self._cluster_id:
            raise WitnessError(
                f"{endpoint} answers for etcd cluster {cluster_id:x}, not {self._cluster_id:x}: "
                "the endpoints belong to different clusters, or the cluster was restored"
            )

    async def _member_status(self, endpoint: str) -> MemberStatus:
        try:
            answer = await self._ask(endpoint, _ask_status, self._timeout_s)
        except (TimeoutError, OSError, grpc.aio.AioRpcError) as error:
            return MemberStatus(endpoint, "", (_describe(error),))
        problems = list(answer.errors)
        if answer.leader == 0:
            problems.append("it knows no leader: the cluster has no quorum")
        if answer.isLearner:
            problems.append("it is a learner: it does not answer linearizable reads")
        return MemberStatus(endpoint, answer.version, tuple(problems))


def _read_password(path: Path) -> str:
    """Return what the file holds.

    Raises:
        OSError: If it cannot be read, or holds what can be no password for etcd.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"it is not UTF-8 (byte {error.start})", str(path)) from error


async def _ask_status(
    channel: grpc.aio.Channel, metadata: Metadata, timeout_s: float
) -> pb.StatusResponse:
    stub = rpc.MaintenanceStub(channel)
    return await stub.Status(pb.StatusRequest(), metadata=metadata, timeout=timeout_s)


def _tls_credentials(cluster: Cluster) -> grpc.ChannelCredentials:
    def content(path: Path | None) -> bytes | None:
        return None if path is None else path.read_bytes()

    return grpc.ssl_channel_credentials(
        content(cluster.ca_file), content(cluster.key_file), content(cluster.cert_file)
    )


def _is_about_token(error: grpc.aio.AioRpcError) -> bool:
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or any(
        complaint in details for complaint in _TOKEN_COMPLAINTS
    )


def _describe(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or "timed out"
