"""Transport `grpc`: one bidirectional stream of gRPC over mutual TLS, for networks that pass gRPC.

Both hosts prove themselves with the files of `[tls]`, exactly as the daemons do to each other. The
port is the session's own: the daemon may die and be upgraded while epochs go on, so what they go by
cannot end in its process. A receiver listens only until its sender is in, so one fixed `port` does
for any number of guests, one at a time. gRPC is imported with this module, and by no other kind.

The messages are those of `colod.transport.messages`; the listener's first one, empty, says that the
caller is let in. Options: `colod.transport.inet`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, cast

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # a session starts xl while it runs

import grpc
import grpc.aio

from colod.errors import ConfigError, NetworkError, PeerError, PeerRefused, PeerUnreachable
from colod.model import Credentials
from colod.transport.crowd import Grumble
from colod.transport.inet import (
    Interface,
    connect_to,
    format_address,
    parse_address,
    parse_interface,
)
from colod.transport.messages import CHUNK_MAX_BYTES, LINGER_S, MessageConnection

_SERVICE: Final = "colod.v1.Carrier"
_METHOD: Final = "Carry"
_WELCOME: Final = b""
_CALLS_MAX: Final = 16
_WAITING_MAX: Final = 8
_FOR_EVER_S: Final = 10.0 * 365 * 86400
_MESSAGE_MAX_BYTES: Final = CHUNK_MAX_BYTES + 1

_COMMON: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_MAX_BYTES),
    # What may be on its way to a side that does not read: a fixed window instead of a guess that
    # grows with the link. 4 MiB fill 1.6 Gbit/s at a round trip of 20 ms.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.http2.max_frame_size", 256 << 10),
    ("grpc.max_metadata_size", 32 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),
)
_OF_SERVERS: Final = (
    *_COMMON,
    # Two sessions on one port would each get half of the callers.
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_concurrent_streams", 1),
)
_OF_CLIENTS: Final = (
    *_COMMON,
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_BROKEN: Final = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
_REFUSALS: Final = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)
# Words of gRPC's and BoringSSL's where a certificate was the reason, and not the network.
_DISBELIEF: Final = ("certificate_verify_failed", "verification check failed", "_alert_")

_log = logging.getLogger(__name__)


class GrpcTransport:
    """Connects the sessions of two hosts that trust one authority by gRPC."""

    def __init__(self, interface: Interface, credentials: Credentials) -> None:
        """Keep where to listen, and where to find what proves the hosts."""
        self._interface = interface
        self._credentials = credentials

    @classmethod
    def from_options(
        cls, options: Mapping[str, str], credentials: Credentials | None = None
    ) -> Self:
        """Make the transport from its configuration table.

        Raises:
            ConfigError: With every problem of `options`.
        """
        interface = parse_interface(options)
        if credentials is None:
            raise ConfigError(["transport.kind: grpc needs the files of the table [tls]"])
        return cls(interface, credentials)

    async def listen(self) -> GrpcListener:
        """Start to listen on this host.

        Raises:
            NetworkError: If the address or one of the files cannot be used.
        """
        where = format_address(self._interface.listen, self._interface.port)
        try:
            credentials = await asyncio.to_thread(_server_credentials, self._credentials)
            options = _with_mark(_OF_SERVERS, self._interface.dscp)
            server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_CALLS_MAX)
            port = server.add_secure_port(where, credentials)
        except (OSError, RuntimeError) as error:
            raise NetworkError(f"cannot listen on {where}: {error}") from error
        host = self._interface.advertise or self._interface.listen
        listener = GrpcListener(server, format_address(host, port), self._credentials.peer)
        await server.start()
        return listener

    async def connect(self, address: str, *, timeout_s: float) -> MessageConnection:
        """Connect to the peer's listener at `address`, `host:port` or `[v6]:port`.

        Raises:
            PeerUnreachable: If nobody answers within `timeout_s`, or this side's files cannot be
                read.
            PeerRefused: If it is not the peer, or does not take this host for its own.
        """
        try:
            target = "dns:///" + format_address(*parse_address(address))
            async with asyncio.timeout(timeout_s):
                # gRPC goes on for 20 s with an attempt that was given up, its socket open: so it
                # is tried where somebody answers only.
                dscp = self._interface.dscp
                await (await connect_to(address, timeout_s=timeout_s, dscp=dscp)).close()
                credentials = await asyncio.to_thread(_channel_credentials, self._credentials)
                options = _with_mark(_OF_CLIENTS, dscp)
                return await _called(target, address, credentials, self._credentials.peer, options)
        except (OSError, ValueError) as error:  # a TimeoutError is an OSError
            reason = str(error) or f"no answer within {timeout_s:g} s"
            raise PeerUnreachable(f"cannot connect to {address[:128]!r}: {reason}") from error


class GrpcListener:
    """A server of its own; `accept` gives the calls of the peer."""

    def __init__(self, server: grpc.aio.Server, address: str, peer: str) -> None:
        """Take over `server`, which is not started yet."""
        self._server = server
        self._address = address
        self._peer = peer
        self._waiting: deque[MessageConnection] = deque()
        self._news = asyncio.Event()
        self._calls: set[asyncio.Future[None]] = set()
        self._grumble = Grumble(_log)
        self._ending: asyncio.Task[None] | None = None
        handler: Any = grpc.stream_stream_rpc_method_handler(cast("Any", self._carry))
        service = grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})
        server.add_generic_rpc_handlers((service,))

    @property
    def address(self) -> str:
        """What the sender passes to `connect`."""
        return self._address

    async def accept(self) -> MessageConnection:
        """Return the next connection to the peer.

        Raises:
            NetworkError: If the listener was closed.
        """
        while not self._waiting:
            if self._ending is not None:
                raise NetworkError(f"cannot accept on {self._address}: closed")
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    async def close(self) -> None:
        """Stop listening; accepted connections live on, the others end."""
        if self._ending is not None:
            return
        self._ending = asyncio.create_task(self._end())
        self._news.set()
        while self._waiting:
            await self._waiting.popleft().abandon()
        await asyncio.sleep(0)  # the server is told to take nobody any more

    async def _end(self) -> None:
        """Close the port at once, and the server when the last connection is over."""
        stopping = asyncio.create_task(self._server.stop(_FOR_EVER_S))
        await asyncio.sleep(0)
        while self._calls:
            await asyncio.wait(self._calls)
        await asyncio.wait([stopping], timeout=LINGER_S)
        if not stopping.done():  # an end that the other side does not take
            await self._server.stop(None)
        await stopping

    async def _carry(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Serve one call for as long as its connection lasts."""
        if refusal := self._refusal(context):
            words = (context.peer(), refusal)
            self._grumble.log(logging.WARNING, "caller.refused address=%s reason=%r", *words)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        if self._ending is not None or len(self._waiting) >= _WAITING_MAX:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "nobody is taken any more")
        over = asyncio.get_running_loop().create_future()
        self._calls.add(over)
        try:
            await self._carry_on(context)
        finally:
            self._calls.discard(over)
            over.set_result(None)

    async def _carry_on(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.write(_WELCOME)
        connection = MessageConnection(_ServerStream(context), _readable(context.peer()))
        if self._ending is not None:  # closed while the caller was welcomed
            await connection.abandon()
        else:
            self._waiting.append(connection)
            self._news.set()
        try:
            is_orderly = await connection.parted()
        except asyncio.CancelledError:  # the link broke, or the caller gave the call up
            connection.fail("the call was broken off: by a cut, or by the other side")
            raise
        if not is_orderly:
            await context.abort(grpc.StatusCode.ABORTED, "broken off")

    def _refusal(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
        """Return why the caller is not the peer: by DNS names only, as with the daemons."""
        proven = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
        names = [name.decode("ascii", "replace") for name in proven.get("peer_dns", ())]
        if self._peer in names:
            return ""
        return f"caller is {', '.join(names) or 'nobody'}, not the configured peer {self._peer}"


class _ServerStream:
    """The listener's side of a call; it ends when the method returns."""

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        try:
            message = await cast("Any", self._context).read()
        except _BROKEN as error:
            raise PeerUnreachable(f"gRPC: {error}") from error
        return None if message is grpc.aio.EOF else message

    async def write(self, message: bytes) -> None:
        try:
            await self._context.write(message)
        except _BROKEN as error:
            raise PeerUnreachable(f"gRPC: {error}") from error

    async def end(self, *, is_orderly: bool) -> None:
        pass


class _ClientStream:
    """The caller's side of a call, with a channel of its own."""

    def __init__(self, channel: grpc.aio.Channel, call: Any) -> None:
        self._channel, self._call = channel, call

    async def read(self) -> bytes | None:
        try:
            message = await self._call.read()
        except _BROKEN as error:
            raise PeerUnreachable(f"gRPC: {_text(error)}") from error
        return None if message is grpc.aio.EOF else message

    async def write(self, message: bytes) -> None:
        try:
            await self._call.write(message)
        except _BROKEN as error:
            raise PeerUnreachable(f"gRPC: {_text(error)}") from error

    async def end(self, *, is_orderly: bool) -> None:
        self._call.cancel()
        await self._channel.close()


def _with_mark(options: Sequence[tuple[str, Any]], dscp: int | None) -> list[tuple[str, Any]]:
    """Return `options` with how packets are marked. Source: gRPC's GRPC_ARG_DSCP."""
    return [*options, *([] if dscp is None else [("grpc.dscp", dscp)])]


async def _called(
    target: str,
    address: str,
    credentials: grpc.ChannelCredentials,
    peer: str,
    options: Sequence[tuple[str, Any]],
) -> MessageConnection:
    """Return the connection to `peer` at `target`.

    Raises:
        PeerError: If there is none.
    """
    # The address need not be in the certificate: the host's name is.
    named = (("grpc.ssl_target_name_override", peer), ("grpc.default_authority", peer))
    channel = grpc.aio.secure_channel(target, credentials, options=(*options, *named))
    try:
        call: Any = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")()
        if await call.read() != _WELCOME:
            raise PeerRefused(f"{address} is no session of colod")
    except _BROKEN as error:
        await channel.close()
        raise _explained(error, address) from error
    except BaseException:
        await channel.close()
        raise
    return MessageConnection(_ClientStream(channel, call), address)


def _explained(error: BaseException, address: str) -> PeerError:
    """Return what a call that did not come about means."""
    text = _text(error)
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    if code in _REFUSALS:
        return PeerRefused(f"{address} does not take this host: {text}")
    if any(words in _details(error).lower() for words in _DISBELIEF):
        return PeerRefused(f"{address} and this host do not believe each other: {text}")
    return PeerUnreachable(f"cannot connect to {address}: {text}")


def _text(error: BaseException) -> str:
    return _readable(_details(error) or type(error).__name__)[:300]


def _details(error: BaseException) -> str:
    return (error.details() or "") if isinstance(error, grpc.aio.AioRpcError) else str(error)


def _readable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _read(credentials: Credentials) -> tuple[bytes, bytes, bytes]:
    """Return authority, certificate and key."""
    return (
        credentials.ca.read_bytes(),
        credentials.certificate.read_bytes(),
        credentials.key.read_bytes(),
    )


def _channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    ca, certificate, key = _read(credentials)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _server_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """Return credentials whose files are read anew for each handshake."""

    def read() -> Any:
        ca, certificate, key = _read(credentials)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)

    def reread() -> Any:
        try:
            return read()
        except OSError as error:  # in the middle of their replacement: the old ones stay
            _log.error("certificate.unreadable reason=%r", str(error))
            return None

    return grpc.dynamic_ssl_server_credentials(read(), reread, require_client_authentication=True)
