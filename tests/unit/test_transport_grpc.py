"""The transport `grpc`: who is not the peer stays out and is told, and its port is its own."""

import asyncio
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from colod import plugins
from colod.errors import ConfigError, NetworkError, PeerRefused, PeerUnreachable
from colod.model import HostName
from colod.transport import grpc
from colod.transport.base import Connection
from colod.transport.grpc import GrpcListener, GrpcTransport
from colod.transport.messages import MessageConnection
from tests.unit.transport_subjects import ALPHA, BETA, credentials, make_pki

GAMMA = HostName("gamma")
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"), ALPHA, BETA, GAMMA)


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    """Files of a test's own: it may replace them."""
    return shutil.copytree(made, tmp_path / "pki")


@pytest.fixture
async def door(directory: Path) -> AsyncIterator[GrpcListener]:
    listener = await of(directory, BETA, ALPHA).listen()
    yield listener
    await shut(listener)


async def shut(listener: GrpcListener) -> None:
    """Close it, and wait for the end of its server."""
    await listener.close()
    assert listener._ending is not None
    await listener._ending


def of(
    directory: Path, host: HostName = ALPHA, peer: HostName = BETA, **options: str
) -> GrpcTransport:
    return GrpcTransport.from_options(options, credentials(directory, host, peer))


async def meet(ours: GrpcTransport, listener: GrpcListener) -> tuple[Connection, Connection]:
    return await asyncio.gather(
        ours.connect(listener.address, timeout_s=LIMIT_S), listener.accept()
    )


async def part(*sides: Connection) -> None:
    """Close them, and wait until nothing of them is left."""
    for side in sides:
        await side.close()
    for side in sides:
        assert isinstance(side, MessageConnection)
        await side.parted()


async def is_refused(ours: GrpcTransport, listener: GrpcListener, match: str) -> None:
    accepting = asyncio.create_task(listener.accept())
    with pytest.raises(PeerRefused, match=match):
        await ours.connect(listener.address, timeout_s=LIMIT_S)
    assert not accepting.done()
    accepting.cancel()
    await asyncio.wait([accepting])


async def test_another_host_of_the_authority_is_refused_by_its_name(
    door: GrpcListener, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, grpc.__name__):
        await is_refused(of(directory, GAMMA), door, "gamma, not the configured peer alpha")
    assert "caller.refused" in caplog.text
    assert "gamma" in caplog.text


async def test_a_listener_that_is_another_host_is_refused_by_its_name(
    door: GrpcListener, directory: Path
) -> None:
    await is_refused(of(directory, ALPHA, GAMMA), door, "do not believe each other")


async def test_a_caller_of_another_authority_is_not_let_in(
    door: GrpcListener, directory: Path, tmp_path: Path
) -> None:
    foreign = make_pki(tmp_path / "foreign", ALPHA)
    given = replace(credentials(foreign, ALPHA, BETA), ca=directory / "ca.pem")
    accepting = asyncio.create_task(door.accept())
    # In TLS 1.3 it may know no more than that it was hung up on (RFC 8446, 2).
    with pytest.raises((PeerRefused, PeerUnreachable)):
        await GrpcTransport.from_options({}, given).connect(door.address, timeout_s=LIMIT_S)
    assert not accepting.done()
    accepting.cancel()
    await asyncio.wait([accepting])


async def test_a_listener_of_another_authority_is_not_believed(
    door: GrpcListener, directory: Path, tmp_path: Path
) -> None:
    foreign = make_pki(tmp_path / "foreign", ALPHA)
    given = replace(credentials(directory, ALPHA, BETA), ca=foreign / "ca.pem")
    ours = GrpcTransport.from_options({}, given)
    await is_refused(ours, door, "do not believe each other")


async def test_replaced_certificates_count_for_the_next_connection(
    door: GrpcListener, directory: Path, tmp_path: Path
) -> None:
    first = await meet(of(directory), door)
    renewed = make_pki(tmp_path / "renewed", ALPHA, BETA)
    for path in renewed.iterdir():
        shutil.copy(path, directory / path.name)
    second = await meet(of(directory), door)
    for ours, theirs in (first, second):
        await ours.write(b"word")
        assert await theirs.read_into(memoryview(bytearray(4))) == 4
        await part(ours, theirs)


async def test_a_certificate_that_is_gone_for_a_moment_stops_no_listener(
    door: GrpcListener, directory: Path
) -> None:
    (directory / "beta.key").rename(directory / "away")
    (directory / "alpha.key").rename(directory / "alpha.away")
    with pytest.raises(PeerUnreachable, match=r"alpha\.key"):
        await of(directory).connect(door.address, timeout_s=LIMIT_S)
    (directory / "alpha.away").rename(directory / "alpha.key")
    await part(*await meet(of(directory), door))


async def test_a_fixed_port_is_free_for_the_next_receiver_once_the_sender_is_in(
    directory: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    receiver = of(directory, BETA, ALPHA, port=str(port))
    first = await receiver.listen()
    with pytest.raises(NetworkError, match=str(port)):
        await receiver.listen()
    pair = await meet(of(directory), first)
    await first.close()
    async with asyncio.timeout(LIMIT_S):
        second = await listen_when_free(receiver)
    others = await meet(of(directory), second)
    await pair[0].write(b"on")
    assert await pair[1].read_into(memoryview(bytearray(2))) == 2
    await part(*pair, *others)
    await shut(first)
    await shut(second)


async def listen_when_free(receiver: GrpcTransport) -> GrpcListener:
    while True:
        try:
            return await receiver.listen()
        except NetworkError:
            await asyncio.sleep(0.05)


async def test_a_file_or_an_address_that_cannot_be_used_is_named(directory: Path) -> None:
    with pytest.raises(NetworkError, match=r"192\.0\.2\.1"):
        await of(directory, BETA, ALPHA, listen="192.0.2.1").listen()
    (directory / "beta.key").unlink()
    with pytest.raises(NetworkError, match=r"beta\.key"):
        await of(directory, BETA, ALPHA).listen()


def test_it_is_found_by_its_name_and_needs_its_files(made: Path) -> None:
    assert plugins.load("colod.transports", "grpc") is GrpcTransport
    with pytest.raises(ConfigError, match=r"\[tls\]"):
        GrpcTransport.from_options({})
    with pytest.raises(ConfigError, match="lisen"):
        of(made, lisen="x")


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix", "ssh"])
def test_no_other_transport_brings_grpc_in(kind: str) -> None:
    code = f"import sys, colod.transport.{kind}, colod.session.main; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
