"""The daemon's HTTP: what it answers, whom it lets in, and what hostile clients cost."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from colod.errors import NetworkError
from colod.model import HostName
from colod.observe.app import Sources
from colod.observe.http import MAX_CONNECTIONS, MAX_REQUEST_BYTES, HttpServer
from colod.rpc import pki
from colod.rpc.tls import load_identity
from colod.v1 import admin_pb2

STATUS = admin_pb2.StatusReply(
    host="alpha", protections=[admin_pb2.ProtectionStatus(guest="g", state="PROTECTED")]
)


def history(guest: str, limit: int) -> admin_pb2.HistoryReply:
    return admin_pb2.HistoryReply(entries=[admin_pb2.HistoryEntry(guest="g", to_state="ALONE")])


def drills(guest: str, limit: int) -> admin_pb2.DrillsReply:
    return admin_pb2.DrillsReply(drills=[admin_pb2.DrillRecord(guest="g", verdict="passed")])


SOURCES = Sources(lambda: STATUS, history, drills)


def no_tls() -> ssl.SSLContext:
    raise AssertionError("a loopback address needs no TLS")


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A server on loopback."""
    made = HttpServer("127.0.0.1:0", SOURCES, no_tls)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def steady() -> Iterator[HttpServer]:
    """One for all tests that leave no connection behind: to stop takes half a second."""
    made = HttpServer("127.0.0.1:0", SOURCES, no_tls)
    yield made
    made.stop()


def answer_of(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_metrics_are_served(server: HttpServer) -> None:
    status, text = answer_of(server, "/metrics")
    assert status == 200
    assert 'colod_protection_state{guest="g",state="PROTECTED"} 1.0' in text


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/livez", "GET", 200),
        ("/", "GET", 200),
        ("/", "POST", 405),
        ("/page.html", "GET", 404),
        ("/../etc/passwd", "GET", 404),
        ("/metrics", "POST", 405),
        ("/metrics", "DELETE", 405),
        ("/protected?guest=g", "GET", 503),
        ("/protected?guest=g", "HEAD", 503),
        ("/protected?guest=g", "OPTIONS", 503),
        ("/protected?guest=h", "OPTIONS", 404),
        ("/secondary?guest=g&lag=now", "GET", 400),
        ("/history?guest=g", "GET", 200),
    ],
)
def test_other_requests_are_answered_by_the_book(
    steady: HttpServer, path: str, method: str, expected: int
) -> None:
    assert answer_of(steady, path, method)[0] == expected


def test_every_answer_has_its_own_length(server: HttpServer) -> None:
    assert answer_of(server, "/livez", "POST") == (405, "Method Not Allowed\n")
    assert answer_of(server, "/livez") == (200, "OK\n")
    assert answer_of(server, "/elsewhere") == (404, "Not Found\n")
    for method in ("HEAD", "OPTIONS"):
        said = said_to(server, f"{method} /livez HTTP/1.0\r\n\r\n".encode())
        assert said.startswith(b"HTTP/1.0 200 OK\r\n")
        assert said.endswith(b"\r\n\r\n")


def said_to(server: HttpServer, request: bytes) -> bytes:
    """Send bytes and return all that comes back until the server hangs up."""
    said = bytearray()
    with socket.create_connection(server.address, 10) as client:
        client.sendall(request)
        with suppress(ConnectionResetError):  # it does not read on behind what it refuses
            while piece := client.recv(65536):
                said += piece
    return bytes(said)


def test_a_loop_that_is_stuck_is_not_alive() -> None:
    def stuck() -> admin_pb2.StatusReply:
        raise TimeoutError

    server = HttpServer("127.0.0.1:0", Sources(stuck, history, drills), no_tls)
    try:
        assert answer_of(server, "/livez")[0] == answer_of(server, "/metrics")[0] == 503
    finally:
        server.stop()


@pytest.mark.parametrize("said", [b"", b"\0" * 5000, b"GET " + b"a" * 100_000, b"\x16\x03\x01"])
def test_garbage_costs_nothing(server: HttpServer, said: bytes) -> None:
    for _ in range(3):
        with socket.create_connection(server.address, 10) as client:
            client.sendall(said)
    assert answer_of(server, "/livez")[0] == 200


@pytest.mark.parametrize("padding", [b"a", b"a: b\r\n", b"\0", b"a:" + b"b" * 1000 + b"\r\n"])
def test_a_head_that_is_too_long_is_refused(steady: HttpServer, padding: bytes) -> None:
    head = b"GET /livez HTTP/1.1\r\n"
    count = MAX_REQUEST_BYTES // len(padding) + 1
    assert said_to(steady, head + padding * count).startswith(b"HTTP/1.0 431 ")
    assert answer_of(steady, "/livez")[0] == 200


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET /livez", b""),
        (b"GET /livez HTTP/9.9", b"505"),
        (b"GET", b"400"),
        (b"GET /\xff\xfe?guest=\xff HTTP/1.0", b"HTTP/1.0 404 "),
        (b"GET /status?guest=\xff HTTP/1.0", b"HTTP/1.0 400 "),
        (b"GET http://elsewhere/ HTTP/1.0", b"HTTP/1.0 404 "),
        (b"OPTIONS * HTTP/1.0", b"HTTP/1.0 404 "),
        (b"GET /livez HTTP/1.0\r\nContent-Length: 99999999", b"HTTP/1.0 200 "),
        (b"GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked", b"HTTP/1.0 200 "),
        (b"GET /livez HTTP/1.0\r\n" + b"a: b\r\n" * 200, b"431"),
        (b"BREW /livez HTTP/1.0", b"HTTP/1.0 405 "),
    ],
)
def test_odd_requests_are_answered_or_refused(
    steady: HttpServer, request_line: bytes, expected: bytes
) -> None:
    assert expected in said_to(steady, request_line + b"\r\n\r\n")
    assert answer_of(steady, "/livez")[0] == 200


def test_a_client_that_trickles_is_cut_off() -> None:
    server = HttpServer("127.0.0.1:0", SOURCES, no_tls, limit_s=0.5)
    began = time.monotonic()
    try:
        with socket.create_connection(server.address, 10) as client:
            client.settimeout(0.05)
            assert until_cut_off(client), "a byte now and then kept a thread for good"
        assert answer_of(server, "/livez")[0] == 200
    finally:
        server.stop()
    assert time.monotonic() - began > 0.5


def until_cut_off(client: socket.socket) -> bool:
    """Send a byte at a time for at most half a minute; return whether the server hung up."""
    for _ in range(600):
        try:
            client.send(b"a")
            if client.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_silent_clients_take_a_few_places_and_no_more(server: HttpServer) -> None:
    silent = [socket.create_connection(server.address, 10) for _ in range(2 * MAX_CONNECTIONS)]
    turned_away = 0
    for client in silent:
        client.settimeout(0.2)
        try:
            turned_away += client.recv(1) == b""
        except TimeoutError:
            continue
        except ConnectionResetError:
            turned_away += 1
    assert turned_away >= MAX_CONNECTIONS - 1
    for client in silent:
        client.close()
    until_alive(lambda: answer_of(server, "/livez")[0])


def test_health_is_answered_while_silent_clients_hold_every_place(server: HttpServer) -> None:
    silent = [socket.create_connection(server.address, 10) for _ in range(MAX_CONNECTIONS)]
    try:
        for _ in range(3 * MAX_CONNECTIONS):
            assert answer_of(server, "/livez")[0] == 200
            silent.append(socket.create_connection(server.address, 10))
            silent[-1].send(b"GET /li")  # what is no request yet is silence
    finally:
        for client in silent:
            client.close()


def until_alive(ask: Callable[[], int]) -> None:
    """Ask until the places that silent clients took are free again."""
    for _ in range(50):
        try:
            assert ask() == 200
        except (ConnectionError, http.client.HTTPException):
            continue
        return
    pytest.fail("the server does not answer any more")


def test_an_address_that_is_taken_is_an_error(server: HttpServer) -> None:
    with pytest.raises(NetworkError, match=r"observe\.listen"):
        HttpServer(f"127.0.0.1:{server.address[1]}", SOURCES, no_tls)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """An authority with certificates for alpha and for a scraper."""
    pki.create_authority(tmp_path)
    for name in ("alpha", "scraper"):
        pki.issue_certificate(tmp_path, HostName(name))
    return tmp_path


@pytest.fixture
def remote(authority: Path) -> Iterator[HttpServer]:
    """A server that is not on a loopback address only."""
    identity = load_identity(
        authority / "ca.pem", authority / "alpha.pem", authority / "alpha.key", host="alpha"
    )
    made = HttpServer("0.0.0.0:0", SOURCES, identity.server_context)
    yield made
    made.stop()


def ask_over_tls(server: HttpServer, context: ssl.SSLContext) -> int:
    with (
        socket.create_connection(("127.0.0.1", server.address[1]), 10) as plain,
        context.wrap_socket(plain, server_hostname="alpha") as client,
    ):
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        return int(client.recv(64).split()[1])


def test_elsewhere_a_client_with_a_certificate_is_let_in(
    remote: HttpServer, authority: Path
) -> None:
    context = ssl.create_default_context(cafile=authority / "ca.pem")
    context.load_cert_chain(authority / "scraper.pem", authority / "scraper.key")
    assert ask_over_tls(remote, context) == 200


def test_elsewhere_a_client_without_one_is_not(remote: HttpServer, authority: Path) -> None:
    context = ssl.create_default_context(cafile=authority / "ca.pem")
    with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
        ask_over_tls(remote, context)


def test_elsewhere_a_stranger_is_not(remote: HttpServer, authority: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    pki.create_authority(foreign)
    pki.issue_certificate(foreign, HostName("scraper"))
    context = ssl.create_default_context(cafile=authority / "ca.pem")
    context.load_cert_chain(foreign / "scraper.pem", foreign / "scraper.key")
    with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
        ask_over_tls(remote, context)


def test_elsewhere_nothing_is_said_in_clear(remote: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", remote.address[1]), 10) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"colod" not in client.recv(4096)


def test_a_handshake_that_never_comes_keeps_nobody_waiting(
    remote: HttpServer, authority: Path
) -> None:
    context = ssl.create_default_context(cafile=authority / "ca.pem")
    context.load_cert_chain(authority / "scraper.pem", authority / "scraper.key")
    with socket.create_connection(("127.0.0.1", remote.address[1]), 10):
        assert ask_over_tls(remote, context) == 200
