"""The daemon's HTTP: `/metrics` for Prometheus and `/livez`; read-only, on threads of its own.

On loopback it is plain. Anywhere else it speaks TLS with the host's own certificate, and only to
clients that have one of the same authority. A client that is slow, silent or hostile costs one of a
few threads for a few seconds, and the daemon's loop nothing.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from colod.config.schema import split_address
from colod.errors import NetworkError
from colod.observe.metrics import StatusCollector
from colod.v1 import admin_pb2

MAX_CONNECTIONS: Final = 16
TIMEOUT_S: Final = 5.0
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")

_log = logging.getLogger(__name__)

StatusSource = Callable[[], admin_pb2.StatusReply]
"""Gives the status; called in the server's threads. Raises TimeoutError if the loop is stuck."""


class HttpServer:
    """Serves until `stop`."""

    def __init__(
        self, listen: str, status: StatusSource, tls: Callable[[], ssl.SSLContext]
    ) -> None:
        """Begin to serve.

        Args:
            listen: `ADDRESS:PORT`; port 0 takes any.
            status: Where the status comes from.
            tls: Makes what TLS needs; called where the address is not a loopback one.

        Raises:
            ValueError: If `listen` is no such text.
            NetworkError: If nothing can listen there.
        """
        address = split_address(listen)
        is_local = ipaddress.ip_address(address[0]).is_loopback
        try:
            self._server = _Server(address, None if is_local else tls())
        except OSError as error:
            raise NetworkError(f"observe.listen {listen}: {error}") from error
        self._server.set_app(_App(status))
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


class _App:
    """The paths."""

    def __init__(self, status: StatusSource) -> None:
        self._status = status
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Undescribed(status))
        self._metrics: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]] = make_wsgi_app(
            registry
        )

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _answer(start, "405 Method Not Allowed")
        try:
            match environ.get("PATH_INFO"):
                case "/metrics":
                    return self._metrics(environ, start)
                case "/livez":
                    self._status()  # the loop must answer
                    return _answer(start, "200 OK")
        except TimeoutError:
            return _answer(start, "503 Service Unavailable")
        return _answer(start, "404 Not Found")


class _Undescribed(StatusCollector):
    """Is not asked for a status before the first scrape."""

    def describe(self) -> Iterable[Any]:
        return []


def _answer(start: StartResponse, status: str) -> Iterable[bytes]:
    start(status, [_TEXT])  # a new list: wsgiref adds this answer's Content-Length to it
    return [f"{status[4:]}\n".encode()]


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def log_message(self, *_: Any) -> None:
        """Nobody's scrapes belong into the journal."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self._tls = tls
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
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer it, and give the thread back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that broke off, or was no HTTP client at all, is no news."""
        _log.debug("http.broke_off", exc_info=True)
