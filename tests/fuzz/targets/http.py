"""The daemon's HTTP: any bytes where a request should be."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Hashable, Iterable
from functools import cache
from typing import Any

from colod.observe import http
from colod.observe.app import App
from tests.fuzz.target import MIB, Reader, Target, demand
from tests.unit.test_observe_app import SOURCES

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
_KNOWN = {200, 400, 404, 405, 414, 431, 501, 503, 505}


class _Socket:
    """A client that has said all that it will, in pieces."""

    def __init__(self, octets: bytes, step: int) -> None:
        self._raw = _Pieces(octets, step or len(octets) or 1)
        self.sent = bytearray()

    def makefile(self, mode: str, *_: Any) -> io.BufferedIOBase:
        return io.BufferedReader(self._raw)

    def sendall(self, octets: bytes) -> None:
        self.sent += octets

    def settimeout(self, timeout_s: float) -> None:
        pass

    def setsockopt(self, *_: Any) -> None:
        pass


class _Pieces(io.RawIOBase):
    def __init__(self, octets: bytes, step: int) -> None:
        self._rest, self._step = octets, step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._rest[: min(self._step, len(buffer))]
        self._rest = self._rest[len(part) :]
        buffer[: len(part)] = part
        return len(part)


@cache
def _server() -> http._Server:
    server = http._Server(("127.0.0.1", 0), None, 15.0)
    server.set_app(App(SOURCES))
    return server


def _run(octets: bytes) -> Hashable:
    reader = Reader(octets)
    step = reader.byte()
    sock: Any = _Socket(reader.rest(), step * 8)
    with contextlib.redirect_stderr(io.StringIO()):  # wsgiref tells of its 500s there
        http._Handler(sock, ("127.0.0.1", 1), _server())
    found = _STATUS.match(sock.sent)
    code = int(found[1]) if found else 0
    demand(code in _KNOWN or not found, f"status {code}: {bytes(sock.sent[:300])!r}")
    demand(b"Traceback" not in sock.sent, "a traceback for a stranger")
    return code, len(sock.sent) > 0, bytes(sock.sent[-60:-40]) if code == 400 else b""


def _seeds() -> Iterable[bytes]:
    for line in (
        b"GET / HTTP/1.1",
        b"GET /metrics HTTP/1.0",
        b"HEAD /status?guest=web HTTP/1.1",
        b"OPTIONS /primary?guest=web&lag=2.5 HTTP/1.1",
        b"GET /history?guest=old&limit=3 HTTP/1.1",
        b"GET /drills HTTP/1.1",
        b"GET /livez",
        b"POST /status HTTP/1.1",
    ):
        yield b"\x00" + line + b"\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n"
        yield b"\x01" + line + b"\nContent-Length: 3\nExpect: 100-continue\n\nabc"


HTTP = Target(run=_run, seeds=_seeds, held_bytes=lambda size: 4 * MIB + 64 * size)
