"""One of the proxy's four sockets: at most one connection at a time, and only of who may.

Nothing here waits. Whoever is at the other end may be QEMU, which writes a filter's frames from its
main loop and stands still, guest and all, until they are taken: an input is therefore always read,
and what cannot be sent is refused by `Port.write` rather than waited for.

Source: QEMU net/filter-mirror.c, filter_send(), by qemu_chr_fe_write_all() of chardev/char.c, which
sleeps and tries again while the socket is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from colod.errors import NetworkError

_log = logging.getLogger(__name__)

READ_BYTES = 1 << 18
"""Most that is read at once: a batch of frames."""

LOOPBACK = frozenset({"127.0.0.1", "::1"})

_BACKLOG = 4
_DIAL_S = 0.5
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""A host that died sends no end; without these its place would be taken for ever."""

Address = tuple[str, int] | Path
"""An IP address and a TCP port, or the path of a unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortOptions:
    """Where one of the sockets is, and who may use it.

    Attributes:
        address: Where to listen, or where to connect to.
        is_dialled: Whether to connect to it, again and again, as QEMU's colo-compare did by its
            client chardevs. QEMU's own client chardevs do not connect again, so where this proxy
            may be restarted under a running QEMU, it must be the one that connects.
        peers: IP addresses from which connections are taken. By a unix socket its directory's
            permissions say who may.
        pending_bytes: Most that waits to be sent, beyond what the kernel takes.
    """

    address: Address
    is_dialled: bool = False
    peers: frozenset[str] = LOOPBACK
    pending_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        """Refuse peers that are no addresses: a name could become anybody.

        Raises:
            ValueError: With the first one, or if nothing may wait.
        """
        for each in self.peers:
            ip_address(each)
        if self.pending_bytes <= 0:
            raise ValueError(f"pending_bytes {self.pending_bytes}: want more than 0")


class Port:
    """One socket of the proxy.

    Attributes:
        name: For logs and counts.
        refused: How many connections were refused.
        on_connected: Called when a connection begins.
        on_readable: Called when there is something to read, an end included.
    """

    def __init__(
        self,
        name: str,
        options: PortOptions,
        on_connected: Callable[[], None],
        on_readable: Callable[[], None],
    ) -> None:
        """Prepare; `open` and `run` do the rest."""
        self.name = name
        self.refused = 0
        self._options = options
        self._on_connected = on_connected
        self._on_readable = on_readable
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._pending = bytearray()
        self._is_free = asyncio.Event()
        self._is_free.set()

    @property
    def is_connected(self) -> bool:
        """Whether somebody is at the other end."""
        return self._connection is not None

    @property
    def is_dialled(self) -> bool:
        """Whether this port connects, by `run`, rather than listens."""
        return self._options.is_dialled

    @property
    def room_bytes(self) -> int:
        """How much `write` takes now."""
        if self._connection is None:
            return 0
        return self._options.pending_bytes - len(self._pending)

    @property
    def address(self) -> Address:
        """Where it listens: with the port that the kernel chose, if that was 0."""
        if self._listener is None or isinstance(self._options.address, Path):
            return self._options.address
        host, port = self._listener.getsockname()[:2]
        return host, port

    def open(self) -> None:
        """Listen, unless this port is one that connects.

        Raises:
            NetworkError: If the address cannot be listened on.
        """
        if self._options.is_dialled:
            return
        try:
            self._listener = _listen(self._options.address)
        except OSError as error:
            raise NetworkError(f"colo {self.name}: {self._options.address}: {error}") from error
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def run(self) -> None:
        """Connect whenever there is no connection: for ports that connect."""
        while True:
            connection = _socket_for(self._options.address)
            try:
                target = self._options.address
                where = str(target) if isinstance(target, Path) else target
                async with asyncio.timeout(_DIAL_S):
                    await asyncio.get_running_loop().sock_connect(connection, where)
            except OSError:  # its time-out is one, too
                connection.close()
                await asyncio.sleep(_DIAL_S)
            except BaseException:
                connection.close()
                raise
            else:
                began = time.monotonic()
                self._begin(connection)
                await self._is_free.wait()
                # Who takes connections only to end them is not asked again and again.
                if time.monotonic() - began < _DIAL_S:
                    await asyncio.sleep(_DIAL_S)

    def close(self) -> None:
        """End everything."""
        self.disconnect()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            if isinstance(self._options.address, Path):
                self._options.address.unlink(missing_ok=True)

    def disconnect(self) -> None:
        """End the connection, if there is one; another may begin."""
        connection, self._connection = self._connection, None
        self._pending.clear()
        if connection is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(connection)
            loop.remove_writer(connection)
            connection.close()
            self._is_free.set()

    def read(self) -> bytes | None:
        """Return what has come, up to READ_BYTES; nothing at the end; None if nothing is there."""
        if self._connection is None:
            return None
        try:
            return self._connection.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def write(self, octets: bytes) -> bool:
        """Send, now or as soon as the other end takes it; False if there is no room for it."""
        if self._connection is None or len(octets) > self.room_bytes:
            return False
        if not self._pending:
            octets = octets[self._sent(octets) :]
        if octets:
            self._pending += octets
            asyncio.get_running_loop().add_writer(self._connection, self._write_on)
        return True

    def _write_on(self) -> None:
        if self._connection is None:
            return
        del self._pending[: self._sent(self._pending)]
        if not self._pending:
            asyncio.get_running_loop().remove_writer(self._connection)

    def _sent(self, octets: bytes | bytearray) -> int:
        """Return how much the kernel took; of a dead connection all, its end is read soon."""
        assert self._connection is not None
        try:
            return self._connection.send(octets)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return len(octets)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, peer = self._listener.accept()
        except OSError:
            # It died while it waited, or descriptors are short: the loop comes back.
            return
        if self._connection is not None or not self._may_connect(peer):
            connection.close()
            self.refused += 1
            if self.refused == 1:
                # Only the first: whoever tries again and again must not fill the log.
                _log.warning("colo.refused port=%s from=%s", self.name, peer)
            return
        self._begin(connection)

    def _may_connect(self, peer: object) -> bool:
        if isinstance(self._options.address, Path):
            return True
        assert isinstance(peer, tuple)
        address = ip_address(str(peer[0]).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return str(mapped or address) in self._options.peers

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connection = connection
        self._is_free.clear()
        _log.info("colo.connected port=%s", self.name)
        self._on_connected()
        if self._connection is connection:
            asyncio.get_running_loop().add_reader(connection, self._on_readable)


def _socket_for(address: Address) -> socket.socket:
    if isinstance(address, Path):
        made = socket.socket(socket.AF_UNIX)
    else:
        is_v6 = ip_address(address[0]).version == 6
        made = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
    made.setblocking(False)
    return made


def _listen(address: Address) -> socket.socket:
    listener = _socket_for(address)
    try:
        if isinstance(address, Path):
            # What an earlier proxy left; a living one would be lost to its clients all the same.
            with contextlib.suppress(FileNotFoundError):
                address.unlink()
            listener.bind(str(address))
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
