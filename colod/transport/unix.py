"""Transport `unix`: a socket in the file system, for two sessions on one machine (tests, demo).

Options: `directory` (where listeners make their sockets; must exist).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from colod.errors import ConfigError, NetworkError, PeerUnreachable
from colod.model import Credentials
from colod.transport.sockets import SocketConnection, SocketListener

_FULL_QUEUE_PAUSE_S = 0.02


class UnixTransport:
    """Connects two sessions of one machine."""

    def __init__(self, *, directory: Path) -> None:
        """Keep where listeners make their sockets."""
        self._directory = directory

    @classmethod
    def from_options(
        cls, options: Mapping[str, str], credentials: Credentials | None = None
    ) -> Self:
        """Make the transport from its configuration table; `credentials` are of no use to it.

        Raises:
            ConfigError: With every problem of `options`.
        """
        problems = [f"transport.{name}: unknown" for name in sorted(options.keys() - {"directory"})]
        if not Path(options.get("directory", "")).is_absolute():
            problems.append("transport.directory: want an absolute path")
        if problems:
            raise ConfigError(problems)
        return cls(directory=Path(options["directory"]))

    async def listen(self) -> SocketListener:
        """Listen on a socket of a name that nobody can guess.

        Raises:
            NetworkError: If it cannot be made.
        """
        path = self._directory / secrets.token_hex(8)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            path.chmod(0o600)
            sock.listen(16)
        except OSError as error:
            sock.close()
            raise NetworkError(f"cannot listen on {path}: {error}") from error
        return SocketListener(
            sock, str(path), lambda _: str(path), lambda: path.unlink(missing_ok=True)
        )

    async def connect(self, address: str, *, timeout_s: float) -> SocketConnection:
        """Connect to the socket at the path `address`.

        Raises:
            PeerUnreachable: If nobody answers within `timeout_s`.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(timeout_s):
                await _connect(sock, address)
        except (OSError, ValueError) as error:
            sock.close()
            raise PeerUnreachable(f"cannot connect to {address}: {error!r}") from error
        except BaseException:
            sock.close()
            raise
        return SocketConnection(sock, address)


async def _connect(sock: socket.socket, address: str) -> None:
    """Connect, waiting while the listener's queue is full.

    The kernel says EAGAIN then and tells nobody when there is room; the event loop's own
    `sock_connect` would take that for a connection under way, and a moment later for one that
    stands. Source: connect(2), "EAGAIN".
    """
    while True:
        try:
            sock.connect(address)
        except BlockingIOError:
            await asyncio.sleep(_FULL_QUEUE_PAUSE_S)
        else:
            return
