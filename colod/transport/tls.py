"""Transport `tls`: TLS 1.3 over TCP; both hosts prove themselves with their certificates.

Only the configured peer is let in, by the DNS name in its certificate, and whoever connects has
`GREETING_S` to prove it. The files of `[tls]` are read for each connection, so that a new
certificate needs no restart; a connection that stands keeps what it began with. Options:
`colod.transport.inet`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Final, Self

from colod.errors import ConfigError, NetworkError, PeerError, PeerUnreachable
from colod.model import Credentials
from colod.transport.inet import Interface, connect_to, listen_on, parse_interface
from colod.transport.sockets import SocketConnection, SocketListener
from colod.transport.tlsconnection import TlsConnection, make_context

GREETING_S: Final = 5.0
"""Time for whoever connects to prove that it is the peer."""

MAX_STRANGERS: Final = 8
"""Connections that are not proven yet, or not taken by `accept`; more wait in the kernel."""

_log = logging.getLogger(__name__)


class TlsTransport:
    """Connects the sessions of two hosts that trust one authority."""

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
            raise ConfigError(["transport.kind: tls needs the files of the table [tls]"])
        return cls(interface, credentials)

    async def listen(self) -> TlsListener:
        """Start to listen on this host.

        Raises:
            NetworkError: If the address or one of the files cannot be used.
        """
        await asyncio.to_thread(make_context, self._credentials, is_listener=True)
        return TlsListener(await listen_on(self._interface), self._credentials)

    async def connect(self, address: str, *, timeout_s: float) -> TlsConnection:
        """Connect to the peer's listener at `address`, `host:port` or `[v6]:port`.

        Raises:
            PeerUnreachable: If nobody answers within `timeout_s`, or this side's files cannot be
                used: in the middle of their replacement they may not fit each other.
            PeerRefused: If it is not the peer, or does not take this host for its own.
        """
        try:
            async with asyncio.timeout(timeout_s):
                carrier = await connect_to(address, timeout_s=timeout_s)
                return await _proven(carrier, self._credentials, is_listener=False)
        except (NetworkError, TimeoutError) as error:
            reason = str(error) or f"no handshake within {timeout_s:g} s"
            raise PeerUnreachable(f"cannot connect to {address}: {reason}") from error


class TlsListener:
    """Proves several callers at a time; `accept` gives those who are the peer."""

    def __init__(
        self, inner: SocketListener, credentials: Credentials, *, greeting_s: float = GREETING_S
    ) -> None:
        """Take over `inner`; nobody is let in before the first `accept`."""
        self._inner = inner
        self._credentials = credentials
        self._greeting_s = greeting_s
        self._slots = asyncio.Semaphore(MAX_STRANGERS)
        self._tasks: dict[asyncio.Task[None], SocketConnection | None] = {}
        self._proven: deque[TlsConnection] = deque()
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._is_accepting = False

    @property
    def address(self) -> str:
        """What the sender passes to `connect`."""
        return self._inner.address

    async def accept(self) -> TlsConnection:
        """Return the next connection to the peer.

        Raises:
            NetworkError: If the listener is broken or was closed.
        """
        if not (self._is_accepting or self._failure):
            self._is_accepting = True
            self._start(None)
        while not self._proven:
            if self._failure is not None:
                raise NetworkError(str(self._failure)) from self._failure
            self._news.clear()
            await self._news.wait()
        self._slots.release()
        return self._proven.popleft()

    async def close(self) -> None:
        """Stop listening; accepted connections live on, the others end."""
        self._fail(NetworkError(f"cannot accept on {self.address}: closed"))
        await self._inner.close()
        greeted = dict(self._tasks)
        for task in greeted:
            task.cancel()
        await asyncio.gather(*greeted, return_exceptions=True)
        for carrier in greeted.values():  # a task that had not begun has closed nothing
            if carrier is not None:
                await carrier.close()
        while self._proven:
            await self._proven.popleft().close()

    def _start(self, carrier: SocketConnection | None) -> None:
        work = self._accept_all() if carrier is None else self._greet(carrier)
        task = asyncio.create_task(work)
        self._tasks[task] = carrier
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._news.set()

    async def _accept_all(self) -> None:
        while True:
            await self._slots.acquire()
            self._start(await self._inner.accept())

    async def _greet(self, carrier: SocketConnection) -> None:
        is_proven = False
        try:
            async with asyncio.timeout(self._greeting_s):
                connection = await _proven(carrier, self._credentials, is_listener=True)
            self._proven.append(connection)
            is_proven = True
            self._news.set()
        except TimeoutError:
            reason = f"no handshake within {self._greeting_s:g} s"
            _log.warning("caller.refused address=%s reason=%r", carrier.peer_address, reason)
        except PeerError as error:
            _log.warning("caller.refused address=%s reason=%r", carrier.peer_address, str(error))
        except NetworkError as error:
            _log.error("caller.refused address=%s reason=%r", carrier.peer_address, str(error))
        finally:
            if not is_proven:
                self._slots.release()


async def _proven(
    carrier: SocketConnection, credentials: Credentials, *, is_listener: bool
) -> TlsConnection:
    """Return the connection to the peer over `carrier`, which is closed if it is not the peer's.

    Raises:
        NetworkError: If a file of `credentials` cannot be used.
        PeerError: If the other side is not the peer, does not take this host, or broke off.
    """
    try:
        context = await asyncio.to_thread(make_context, credentials, is_listener=is_listener)
        connection = TlsConnection(carrier, context, is_listener=is_listener)
        await connection.prove(credentials.peer)
    except BaseException:
        await carrier.close()
        raise
    return connection
