"""The contract of a transport, held against every kind that works over sockets."""

import asyncio
import os
from pathlib import Path

import pytest

from colod import plugins
from colod.errors import ConfigError, NetworkError, PeerUnreachable
from colod.transport.base import Connection, Transport
from colod.transport.inet import format_address, parse_address
from colod.transport.tcp import TcpTransport
from colod.transport.unix import UnixTransport


@pytest.fixture(params=["tcp", "tcp6", "unix"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Transport:
    kinds: dict[str, Transport] = {
        "tcp": TcpTransport.from_options({"listen": "127.0.0.1"}),
        "tcp6": TcpTransport.from_options({"listen": "::1"}),
        "unix": UnixTransport.from_options({"directory": str(tmp_path)}),
    }
    return kinds[request.param]


async def pair(transport: Transport) -> tuple[Connection, Connection]:
    """Return both ends of a connection: who connected, who accepted."""
    listener = await transport.listen()
    ours, theirs = await asyncio.gather(
        transport.connect(listener.address, timeout_s=10), listener.accept()
    )
    await listener.close()
    return ours, theirs


async def read_exactly(connection: Connection, size: int) -> bytes:
    buffer = bytearray(size)
    filled = 0
    while filled < size:
        count = await connection.read_into(memoryview(buffer)[filled:])
        assert count, "ended early"
        filled += count
    return bytes(buffer)


async def test_bytes_arrive_in_order_and_unchanged_both_ways(transport: Transport) -> None:
    ours, theirs = await pair(transport)
    bulk = bytes(range(256)) * 20_000
    parts = (b"head", bytearray(b""), memoryview(bulk), b"tail")
    _, got = await asyncio.gather(ours.write(*parts), read_exactly(theirs, len(bulk) + 8))
    assert got == b"head" + bulk + b"tail"
    await theirs.write(b"back")
    assert await read_exactly(ours, 4) == b"back"
    await ours.close()
    await theirs.close()


async def test_an_orderly_end_comes_after_all_bytes(transport: Transport) -> None:
    ours, theirs = await pair(transport)
    await ours.write(b"last words")
    await ours.close()
    assert await read_exactly(theirs, 10) == b"last words"
    assert await theirs.read_into(memoryview(bytearray(1))) == 0
    await theirs.close()


async def test_a_writer_waits_while_nobody_reads(transport: Transport) -> None:
    ours, theirs = await pair(transport)
    big = bytes(64 << 20)
    writing = asyncio.create_task(ours.write(big))
    done, _ = await asyncio.wait([writing], timeout=0.2)
    assert not done, "64 MiB were buffered somewhere"
    await theirs.close()
    with pytest.raises(PeerUnreachable):
        await writing
    await ours.close()


async def test_a_write_to_a_closed_peer_fails(transport: Transport) -> None:
    ours, theirs = await pair(transport)
    await theirs.close()
    with pytest.raises(PeerUnreachable):
        await ours.write(*[bytes(1 << 16)] * 1000)
    await ours.close()


async def test_a_call_that_waits_fails_when_its_connection_is_closed_here(
    transport: Transport,
) -> None:
    ours, theirs = await pair(transport)
    reading = asyncio.create_task(ours.read_into(memoryview(bytearray(1))))
    writing = asyncio.create_task(ours.write(bytes(64 << 20)))
    await asyncio.wait([reading, writing], timeout=0.05)
    await ours.close()
    with pytest.raises(PeerUnreachable):
        await reading
    with pytest.raises(PeerUnreachable):
        await writing
    await theirs.close()


async def test_closing_twice_and_using_it_afterwards_is_no_crash(transport: Transport) -> None:
    ours, theirs = await pair(transport)
    await ours.close()
    await ours.close()
    with pytest.raises(PeerUnreachable):
        await ours.read_into(memoryview(bytearray(1)))
    with pytest.raises(PeerUnreachable):
        await ours.write(b"x")
    await theirs.close()


async def test_a_cancelled_write_leaves_the_connection_closed(transport: Transport) -> None:
    ours, theirs = await pair(transport)
    writing = asyncio.create_task(ours.write(bytes(64 << 20)))
    await asyncio.wait([writing], timeout=0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(PeerUnreachable):
        await ours.write(b"in the middle of nowhere")
    await theirs.close()


async def test_a_cancelled_read_loses_nothing(transport: Transport) -> None:
    ours, theirs = await pair(transport)
    reading = asyncio.create_task(ours.read_into(memoryview(bytearray(4))))
    await asyncio.wait([reading], timeout=0.05)
    reading.cancel()
    await asyncio.wait([reading])
    await theirs.write(b"kept")
    assert await read_exactly(ours, 4) == b"kept"
    await ours.close()
    await theirs.close()


async def test_connections_live_on_after_their_listener(transport: Transport) -> None:
    listener = await transport.listen()
    ours, theirs = await asyncio.gather(
        transport.connect(listener.address, timeout_s=10), listener.accept()
    )
    await listener.close()
    await listener.close()
    await ours.write(b"x")
    assert await read_exactly(theirs, 1) == b"x"
    await ours.close()
    await theirs.close()


async def test_nobody_there_is_unreachable(transport: Transport) -> None:
    listener = await transport.listen()
    await listener.close()
    with pytest.raises(PeerUnreachable):
        await transport.connect(listener.address, timeout_s=5)


async def test_an_accept_that_waits_fails_when_the_listener_is_closed(
    transport: Transport,
) -> None:
    listener = await transport.listen()
    accepting = asyncio.create_task(listener.accept())
    await asyncio.wait([accepting], timeout=0.05)
    await listener.close()
    with pytest.raises(NetworkError):
        await accepting


async def test_two_listeners_have_two_addresses(transport: Transport) -> None:
    first, second = await transport.listen(), await transport.listen()
    assert first.address != second.address
    await first.close()
    await second.close()


async def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    with pytest.raises(NetworkError, match="192"):
        await TcpTransport.from_options({"listen": "192.0.2.1"}).listen()


async def test_a_missing_directory_cannot_be_listened_in(tmp_path: Path) -> None:
    options = {"directory": str(tmp_path / "none")}
    with pytest.raises(NetworkError, match="none"):
        await UnixTransport.from_options(options).listen()


async def test_the_sender_is_told_the_advertised_host() -> None:
    transport = TcpTransport.from_options({"listen": "127.0.0.1", "advertise": "beta.example"})
    listener = await transport.listen()
    assert listener.address.startswith("beta.example:")
    await listener.close()


async def test_the_socket_of_a_closed_listener_is_removed(tmp_path: Path) -> None:
    listener = await UnixTransport.from_options({"directory": str(tmp_path)}).listen()
    assert os.listdir(tmp_path) == [os.path.basename(listener.address)]  # noqa: PTH208, PTH119
    await listener.close()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize(
    "address", ["", "beta", "beta:", ":1", "beta:x", "beta:0", "::1:80", "[::1]"]
)
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(PeerUnreachable):
        await TcpTransport.from_options({}).connect(address, timeout_s=1)


@pytest.mark.parametrize(("host", "port"), [("beta", 1), ("192.0.2.1", 65535), ("fe80::1%eth0", 9)])
def test_an_address_is_split_as_it_was_joined(host: str, port: int) -> None:
    assert parse_address(format_address(host, port)) == (host, port)


@pytest.mark.parametrize("port", ["-1", "65536", "x", "", "1.0", "²"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match="port"):
        TcpTransport.from_options({"port": port})


def test_all_problems_of_the_options_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TcpTransport.from_options({"port": "x", "listen": "", "lisen": "y"})
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError):
        UnixTransport.from_options({"directory": "relative"})
    with pytest.raises(ConfigError):
        UnixTransport.from_options({})


@pytest.mark.parametrize(("kind", "wanted"), [("tcp", TcpTransport), ("unix", UnixTransport)])
def test_a_transport_is_found_by_its_name(kind: str, wanted: type) -> None:
    assert plugins.load("colod.transports", kind) is wanted
