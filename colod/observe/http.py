"""The daemon's HTTP server, on threads of its own; what it answers is in `colod.observe.app`.

On loopback it is plain. Anywhere else it speaks TLS with the host's own certificate, and only to
clients that have one of the same authority. A client that is slow, silent or hostile costs one of a
few threads for a few seconds, and the daemon's loop nothing; where all are taken, whoever has kept
one for longest without asking for anything gives it up to the next who comes.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from colod.config.schema import split_address
from colod.errors import NetworkError
from colod.observe.app import App, Sources

MAX_CONNECTIONS: Final = 16
MAX_REQUEST_BYTES: Final = 8192
"""Request line and headers; nothing that is answered has a body."""

TIMEOUT_S: Final = 5.0
"""Longest silence of a client, and longest handshake."""

LIMIT_S: Final = 15.0
"""Longest life of a connection, whatever trickles through it."""

_YIELD_S: Final = 0.5
"""Longest wait for a thread whose connection was just cut."""

_log = logging.getLogger(__name__)


class HttpServer:
    """Serves until `stop`."""

    def __init__(
        self,
        listen: str,
        sources: Sources,
        tls: Callable[[], ssl.SSLContext],
        *,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Begin to serve.

        Args:
            listen: `ADDRESS:PORT`; port 0 takes any.
            sources: Where everything that is answered comes from.
            tls: Makes what TLS needs; called where the address is not a loopback one.
            limit_s: Longest life of a connection.

        Raises:
            ValueError: If `listen` is no such text.
            NetworkError: If nothing can listen there.
        """
        address = split_address(listen)
        is_local = ipaddress.ip_address(address[0]).is_loopback
        try:
            self._server = _Server(address, None if is_local else tls(), limit_s)
        except (OSError, ValueError, TypeError) as error:  # of the address, or of the certificates
            raise NetworkError(f"observe.listen {listen}: {error}") from error
        self._server.set_app(App(sources))
        self._thread = threading.Thread(target=self._server.serve_forever, name="http")
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def stop(self) -> None:
        """Serve no more; what is being answered is not waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def handle(self) -> None:
        """Answer one request, once all of its head is there and it is not too long."""
        stream = self.rfile
        head = _head_of(stream)
        self.server.asked(self.connection)  # type: ignore[attr-defined]
        if len(head) > MAX_REQUEST_BYTES:
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self.rfile = io.BufferedReader(io.BytesIO(head))
        try:
            super().handle()
        finally:
            self.rfile = stream

    def log_message(self, *_: Any) -> None:
        """Nobody's scrapes belong into the journal."""


def _head_of(stream: io.BufferedIOBase) -> bytes:
    """Return a request up to its empty line, or what came of it until it ended or grew too long."""
    head = bytearray()
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) <= MAX_REQUEST_BYTES:
        piece = stream.read1(MAX_REQUEST_BYTES)
        if not piece:
            break
        head += piece
    return bytes(head)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        # Not SSLSocket's own: that would let its thread go on in clear.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext | None, limit_s: float
    ) -> None:
        self._tls = tls
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._deadlines: dict[socket.socket, float] = {}
        self._silent: dict[socket.socket, None] = {}  # the oldest first
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the look into DNS that http.server would take."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; its handshake is left to its own thread."""
        connection, client = self.socket.accept()
        connection.settimeout(TIMEOUT_S)
        if self._tls is not None:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, client

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give it a thread, if one is free."""
        if not self._has_room():
            self.shutdown_request(request)
            return
        with self._lock:
            self._deadlines[request] = time.monotonic() + self._limit_s
            self._silent[request] = None
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._gone(request)
            raise

    def _has_room(self) -> bool:
        """Take a thread: a free one, or that of the client who has been silent for longest."""
        if self._free.acquire(blocking=False):
            return True
        with self._lock:
            oldest = next(iter(self._silent), None)
            self._silent.pop(oldest, None)  # type: ignore[arg-type]
        if oldest is None:
            return False
        _cut(oldest)
        return self._free.acquire(timeout=_YIELD_S)

    def asked(self, request: socket.socket) -> None:
        """Take note that the client has asked for something, or will not any more."""
        with self._lock:
            self._silent.pop(request, None)

    def _gone(self, request: Any) -> None:
        with self._lock:
            self._deadlines.pop(request, None)
            self._silent.pop(request, None)
        self._free.release()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer it, and give the thread back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._gone(request)

    def service_actions(self) -> None:
        """Cut connections that have lived for too long; called twice a second."""
        now = time.monotonic()
        with self._lock:
            late = [each for each, deadline in self._deadlines.items() if deadline < now]
        for each in late:
            _cut(each)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that broke off, or was no HTTP client at all, is no news."""
        _log.debug("http.broke_off", exc_info=True)
