"""Serve operators on a unix socket, in the daemon's asyncio loop."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from colod.errors import ConfigError, NetworkError
from colod.rpc import limits
from colod.rpc.admin_group import GROUP, group_id
from colod.rpc.admin_guard import SERVICE, Audit, Guard
from colod.rpc.operators import local_operator
from colod.rpc.peer_server import OnDefect
from colod.v1 import admin_pb2_grpc

_SOCKET_UMASK: Final = 0o117  # leaves 0660
_OWNER_UMASK: Final = 0o177  # leaves 0600
_PROBE_TIMEOUT_S: Final = 1.0


class AdminServer:
    """The running server; `stop` it before the loop ends.

    Attributes:
        path: Its socket.
        trouble: Why the group that it was to be for cannot use it; "" where nothing is wrong.
    """

    def __init__(
        self, server: grpc.aio.Server, path: Path, health_servicer: Any, trouble: str = ""
    ) -> None:
        """Keep what `start_admin_server` made."""
        self.path = path
        self.trouble = trouble
        self._server = server
        self._health = health_servicer

    async def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, let running ones finish for `grace_s` seconds, remove the socket."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        self.path.unlink(missing_ok=True)


async def start_admin_server(
    servicer: admin_pb2_grpc.AdminServicer,
    path: Path,
    *,
    group: str | None = None,
    on_defect: OnDefect | None = None,
    audit: Audit | None = None,
) -> AdminServer:
    """Serve `servicer` on the unix socket `path`, mode 0660.

    A socket that a dead daemon left is replaced; one that answers is not. Where the group is not
    there, or cannot be given the socket, only its owner may use it, mode 0600: guests' protection
    must not end with a group. See `trouble`.

    Args:
        servicer: Implementation; its methods are coroutines (`WatchStatus`: a generator).
        path: The socket; its directory must exist.
        group: Group that may use it; without one its owner's group.
        on_defect: Given each `IllegalTransition` or `InvariantBroken`; must end the process.
        audit: Told of each request that would change something.

    Raises:
        NetworkError: If another daemon answers there, or the socket cannot be made.
    """
    trouble = ""
    try:
        gid = -1 if group is None else group_id(group)
    except ConfigError as error:
        gid, trouble = -1, error.problems[0]
    _check_free(path)
    server = grpc.aio.server(
        interceptors=(Guard(local_operator, audit, on_defect),),
        options=limits.SERVER,
        maximum_concurrent_rpcs=limits.ADMIN_CONCURRENT_CALLS,
    )
    admin_pb2_grpc.add_AdminServicer_to_server(servicer, server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    _bind(server, path, _OWNER_UMASK if trouble else _SOCKET_UMASK)
    trouble = trouble or _give(path, gid)
    for name in ("", SERVICE):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    return AdminServer(server, path, health_servicer, trouble)


def _check_free(path: Path) -> None:
    """Raise NetworkError if somebody answers at `path`; gRPC would unlink it without asking."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            raise NetworkError(f"{path}: {error.strerror or error}") from error
    raise NetworkError(f"{path}: another daemon answers there")


def _bind(server: grpc.aio.Server, path: Path, umask: int) -> None:
    # The umask and not chmod: there must be no instant in which everybody may connect.
    before = os.umask(umask)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise NetworkError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)


def _give(path: Path, gid: int) -> str:
    """Give the socket to the group; return why that cannot be done, and then it is nobody's."""
    try:
        if gid != -1:
            os.chown(path, -1, gid)
    except PermissionError:
        path.chmod(0o600)
        return f"{GROUP}: may not give {path} to it"
    return ""
