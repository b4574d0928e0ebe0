"""Serve operators on a unix socket, in the daemon's asyncio loop."""

from __future__ import annotations

import grp
import os
import socket
from pathlib import Path
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from colod.errors import ConfigError, NetworkError
from colod.rpc import limits
from colod.rpc.admin_guard import SERVICE, Audit, Guard
from colod.rpc.operators import local_operator
from colod.rpc.peer_server import OnDefect
from colod.v1 import admin_pb2_grpc

_SOCKET_UMASK: Final = 0o117  # leaves 0660
_PROBE_TIMEOUT_S: Final = 1.0


class AdminServer:
    """The running server; `stop` it before the loop ends."""

    def __init__(self, server: grpc.aio.Server, path: Path, health_servicer: Any) -> None:
        """Keep what `start_admin_server` made."""
        self.path = path
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

    A socket that a dead daemon left is replaced; one that answers is not.

    Args:
        servicer: Implementation; its methods are coroutines (`WatchStatus`: a generator).
        path: The socket; its directory must exist.
        group: Group that may use it; without one its owner's group.
        on_defect: Given each `IllegalTransition` or `InvariantBroken`; must end the process.
        audit: Told of each request that would change something.

    Raises:
        ConfigError: If there is no such group, or it cannot be given the socket.
        NetworkError: If another daemon answers there, or the socket cannot be made.
    """
    gid = _gid(group)
    _check_free(path)
    server = grpc.aio.server(
        interceptors=(Guard(local_operator, audit, on_defect),),
        options=limits.SERVER,
        maximum_concurrent_rpcs=limits.ADMIN_CONCURRENT_CALLS,
    )
    admin_pb2_grpc.add_AdminServicer_to_server(servicer, server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    _bind(server, path, gid)
    for name in ("", SERVICE):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    return AdminServer(server, path, health_servicer)


def _gid(group: str | None) -> int:
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ConfigError([f"admin.group: this host has no group {group!r}"]) from error


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


def _bind(server: grpc.aio.Server, path: Path, gid: int) -> None:
    # The umask and not chmod: there must be no instant in which everybody may connect.
    before = os.umask(_SOCKET_UMASK)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise NetworkError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)
    if gid != -1:
        try:
            os.chown(path, -1, gid)
        except PermissionError as error:
            raise ConfigError([f"admin.group: may not give {path} to it"]) from error
