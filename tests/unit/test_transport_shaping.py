"""How sockets are marked and paced, over every transport that can: colod.transport.shaping."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.errors import ConfigError
from colod.transport.base import Connection, Shaped, Transport
from colod.transport.grpc import GrpcTransport
from colod.transport.shaping import parse_dscp
from colod.transport.ssh import SshTransport
from colod.transport.sshclient import Destination, command
from colod.transport.tcp import TcpTransport
from colod.transport.tls import TlsTransport
from colod.transport.unix import UnixTransport
from tests.unit.transport_subjects import ALPHA, BETA, credentials, make_pki

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"), ALPHA, BETA)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("63", 63),
        ("ef", 46),
        ("EF", 46),
        ("af21", 18),
        ("af43", 38),
        ("cs1", 8),
        ("le", 1),
    ],
)
def test_names_and_numbers_of_code_points_are_understood(text: str, value: int) -> None:
    assert parse_dscp(text) == value


@pytest.mark.parametrize("text", ["64", "-1", "", "af44", "cs8", "0x2e", "1.5", "٣", "expedited"])
def test_what_is_no_code_point_is_refused_at_the_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="no DSCP, want 0 to 63"):
        TcpTransport.from_options({"dscp": text})


def test_a_transport_without_packets_of_its_own_refuses_a_mark() -> None:
    with pytest.raises(ConfigError, match=r"transport\.dscp: unknown"):
        UnixTransport.from_options({"directory": "/run", "dscp": "ef"})


async def connected(ours: Transport, theirs: Transport) -> tuple[Connection, Connection]:
    listener = await theirs.listen()
    try:
        async with asyncio.timeout(LIMIT_S):
            return await asyncio.gather(
                ours.connect(listener.address, timeout_s=LIMIT_S), listener.accept()
            )
    finally:
        await listener.close()


@pytest.mark.parametrize("listen", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_both_ends_of_tcp_are_marked_and_say_so_from_the_kernel(listen: str) -> None:
    transport = TcpTransport.from_options({"listen": listen, "dscp": "af21"})
    ends = await connected(transport, transport)
    for end in ends:
        assert isinstance(end, Shaped)
        assert end.dscp == 18
        await end.close()


async def test_both_ends_of_tls_are_marked_and_say_so_from_the_kernel(made: Path) -> None:
    options = {"listen": "127.0.0.1", "dscp": "46"}
    ends = await connected(
        TlsTransport.from_options(options, credentials(made, ALPHA, BETA)),
        TlsTransport.from_options(options, credentials(made, BETA, ALPHA)),
    )
    for end in ends:
        assert isinstance(end, Shaped)
        assert (end.dscp, end.pace(10_000_000)) == (46, True)
        await end.close()


async def test_without_the_option_nothing_is_marked() -> None:
    ends = await connected(TcpTransport(), TcpTransport())
    for end in ends:
        assert isinstance(end, Shaped)
        assert end.dscp == 0
        await end.close()


def _own_sockets() -> Iterator[socket.socket]:
    """Yield a copy of each of this process's connected IPv4 sockets, whoever made it."""
    for name in Path("/proc/self/fd").iterdir():
        try:
            copy = socket.socket(fileno=os.dup(int(name.name)))
        except OSError:
            continue
        with copy:
            if copy.family in (socket.AF_INET, socket.AF_INET6):
                yield copy


async def test_grpc_marks_both_ends_by_its_library(made: Path) -> None:
    options = {"listen": "127.0.0.1", "dscp": "af31"}
    ends = await connected(
        GrpcTransport.from_options(options, credentials(made, ALPHA, BETA)),
        GrpcTransport.from_options(options, credentials(made, BETA, ALPHA)),
    )
    port = int(ends[1].peer_address.rpartition(":")[2])
    found = []
    for each in _own_sockets():
        try:
            ports = {each.getsockname()[1], each.getpeername()[1]}
        except OSError:
            continue
        if port in ports:
            found.append(each.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2)
    for end in ends:
        await end.close()
    assert found == [26, 26]


def test_ssh_is_told_the_whole_octet_before_its_own_configuration() -> None:
    argv = command(Destination(host="host-b", dscp=46), 9, "127.0.0.1", 1)
    assert "IPQoS=184" in argv
    assert not any("IPQoS" in word for word in command(Destination(host="host-b"), 9, "::1", 1))
    made = SshTransport.from_options({"host": "host-b", "dscp": "ef"})
    assert made._destination.dscp == 46


async def test_the_kernel_holds_a_connection_to_its_rate() -> None:
    ours, theirs = await connected(TcpTransport(), TcpTransport())
    assert isinstance(ours, Shaped)
    assert ours.pace(2_000_000)
    began = time.monotonic()
    sending = asyncio.create_task(ours.write(bytes(4_000_000)))
    buffer, rest = memoryview(bytearray(1 << 16)), 4_000_000
    async with asyncio.timeout(LIMIT_S):
        while rest:
            rest -= await theirs.read_into(buffer)
        await sending
    assert time.monotonic() - began > 1.0
    await ours.close()
    await theirs.close()
