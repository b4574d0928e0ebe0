"""What the transports over TCP share: their options, addresses, listening and connecting.

Options: `listen` (host or address of the interface, default 127.0.0.1), `port` (default 0: any),
`advertise` (host that the sender is told, default the address listened on), `dscp` (how packets are
marked, a number or a name as `af21`; default: as the system does).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from colod.errors import ConfigError, NetworkError, PeerUnreachable
from colod.transport.shaping import mark, parse_dscp
from colod.transport.sockets import SocketConnection, SocketListener

_OPTIONS = frozenset({"listen", "port", "advertise", "dscp"})
# The session's pings find a dead peer long before; this only stops a kernel that would wait on.
_USER_TIMEOUT_MS = 60_000
_KEEPALIVE_IDLE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Where a host listens.

    Attributes:
        listen: Host name or address.
        port: 0 to 65535; 0 takes any free one.
        advertise: Host that the other side connects to, where it differs.
        dscp: How this host's packets are marked, 0 to 63; None leaves that to the system.
    """

    listen: str = "127.0.0.1"
    port: int = 0
    advertise: str | None = None
    dscp: int | None = None


def parse_interface(options: Mapping[str, str]) -> Interface:
    """Return what a transport's configuration table says.

    Raises:
        ConfigError: With every problem of `options`.
    """
    problems = [f"transport.{name}: unknown" for name in sorted(options.keys() - _OPTIONS)]
    port = options.get("port", "0")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        problems.append(f"transport.port: {port!r} is no port, want 0 to 65535")
    listen = options.get("listen", "127.0.0.1")
    if not listen:
        problems.append("transport.listen: empty, want a host name or address")
    dscp = None
    try:
        dscp = parse_dscp(options["dscp"]) if "dscp" in options else None
    except ValueError as error:
        problems.append(f"transport.dscp: {error}")
    if problems:
        raise ConfigError(problems)
    advertise = options.get("advertise") or None
    return Interface(listen=listen, port=int(port), advertise=advertise, dscp=dscp)


async def listen_on(interface: Interface) -> SocketListener:
    """Start to listen.

    Raises:
        NetworkError: If the address cannot be used.
    """
    try:
        family, address = await _resolve(interface.listen, interface.port)
        sock = _listening_socket(family, address, interface.dscp)
    except OSError as error:
        where = format_address(interface.listen, interface.port)
        raise NetworkError(f"cannot listen on {where}: {error}") from error
    host, port = sock.getsockname()[:2]
    address_told = format_address(interface.advertise or host, port)
    return SocketListener(sock, address_told, partial(_prepare, dscp=interface.dscp))


async def connect_to(
    address: str, *, timeout_s: float, dscp: int | None = None
) -> SocketConnection:
    """Connect to `host:port` or `[v6]:port`, from the first packet on marked with `dscp`.

    Raises:
        PeerUnreachable: If nobody answers within `timeout_s`.
    """
    try:
        host, port = parse_address(address)
        async with asyncio.timeout(timeout_s):
            sock = await _connected_socket(host, port, dscp)
    except (OSError, ValueError) as error:
        raise PeerUnreachable(f"cannot connect to {address}: {error!r}") from error
    try:
        return SocketConnection(sock, _prepare(sock, dscp))
    except OSError as error:  # it was reset between the two
        sock.close()
        raise PeerUnreachable(f"cannot connect to {address}: {error!r}") from error


def parse_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises:
        ValueError: If it is neither.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {address!r}: an IPv6 address needs brackets")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ValueError(f"address {address!r}: want host:port or [v6]:port")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Join what `parse_address` splits."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _resolve(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, address = found[0]
    return family, address


def _listening_socket(family: int, address: tuple[Any, ...], dscp: int | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dscp is not None:  # for the answer to a caller's first packet
            mark(sock, dscp)
        sock.bind(address)
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return sock


async def _connected_socket(host: str, port: int, dscp: int | None) -> socket.socket:
    family, address = await _resolve(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if dscp is not None:
            mark(sock, dscp)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket, dscp: int | None = None) -> str:
    """Set the options of a connected socket and return the peer's address."""
    host, port = sock.getpeername()[:2]
    with contextlib.suppress(OSError):  # each is a help, none a need
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    if dscp is not None:
        mark(sock, dscp)
    return format_address(host, port)
