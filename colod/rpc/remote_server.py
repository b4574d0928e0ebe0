"""Serve remote operators over mutual TLS, in the daemon's asyncio loop, beside the unix socket.

A server of its own, so that nothing remote operators do can take the socket's calls.
"""

from __future__ import annotations

from typing import Final

import grpc.aio

from colod.config import split_address
from colod.errors import NetworkError
from colod.rpc import limits
from colod.rpc.admin_guard import Audit, Guard
from colod.rpc.operators import remote_operator
from colod.rpc.peer_server import OnDefect
from colod.rpc.tls import TlsIdentity
from colod.v1 import admin_pb2_grpc

_DENIAL_S: Final = 0.5


class RemoteServer:
    """The running server; `stop` it before the loop ends.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        """Keep what `start_remote_server` made."""
        self.port = port
        self._server = server

    async def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, let running ones finish for `grace_s` seconds, and close the port."""
        await self._server.stop(grace_s)


async def start_remote_server(
    servicer: admin_pb2_grpc.AdminServicer,
    listen: str,
    tls: TlsIdentity,
    *,
    on_defect: OnDefect | None = None,
    audit: Audit | None = None,
    denial_s: float = _DENIAL_S,
) -> RemoteServer:
    """Serve `servicer` on `listen` to whoever has an operator's certificate.

    Args:
        servicer: Implementation; its methods are coroutines (streams: generators).
        listen: `address:port`; port 0 takes a free one, see `RemoteServer.port`.
        tls: This host's identity; its authority is that of the operators.
        on_defect: Given each `IllegalTransition` or `InvariantBroken`; must end the process.
        audit: Told of each request that would change something.
        denial_s: How long a caller waits for a refusal by its role, in seconds.

    Raises:
        NetworkError: If the address cannot be listened on.
    """
    split_address(listen)
    guard = Guard(
        remote_operator,
        audit,
        on_defect,
        calls_each=limits.REMOTE_CALLS_EACH,
        denial_s=denial_s,
    )
    server = grpc.aio.server(
        interceptors=(guard,),
        options=limits.REMOTE_SERVER,
        maximum_concurrent_rpcs=limits.REMOTE_CONCURRENT_CALLS,
    )
    admin_pb2_grpc.add_AdminServicer_to_server(servicer, server)
    try:
        port = server.add_secure_port(listen, tls.server_credentials())
    except RuntimeError as error:
        raise NetworkError(f"cannot listen on {listen} for operators: {error}") from error
    await server.start()
    return RemoteServer(server, port)
