"""The COLO proxy between real QEMUs' filters and a stand-in for libxl."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from colod.output.colo.core import Phase, ProxyOptions
from colod.output.colo.guest_keys import ColoGuest, ColoPorts, interface_keys
from colod.output.colo.ports import PortOptions
from colod.output.colo.proxy import ColoProxy, ProxyPorts
from colod.output.colo.qmp import (
    SECONDARY_REDIRECTORS,
    QmpError,
    QmpRefused,
    connected,
    remove_filters,
    renew_way_out,
)
from colod.output.compare.checkpoints import CheckpointOptions
from colod.output.compare.decisions import Reason
from colod.output.compare.limits import Limits
from tests.colo_ends import LIMIT_S, End, FakeLibxl, loopback_ports, serving, until
from tests.integration.colo_qemu import (
    ColoQemu,
    client,
    libxl_arguments,
    primary_filters,
    secondary_filters,
    server,
)
from tests.integration.compare_qemu import require_qemu
from tests.unit.compare_samples import tcp, udp

A, B, C = udp(b"a"), udp(b"b"), udp(b"c")
OPTIONS = ProxyOptions(
    limits=Limits(timeout_s=3600.0),
    checkpoints=CheckpointOptions(interval_max_s=3600.0, overdue_s=3600.0),
)
"""Nothing is asked for by the clock: a slow machine changes nothing."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a directory with a short name: paths of unix sockets end at 107 bytes."""
    require_qemu()
    made = Path(tempfile.mkdtemp(prefix="colod-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


class Pair:
    """Two device models and the proxy between them."""

    def __init__(self, proxy: ColoProxy, primary: ColoQemu, secondary: ColoQemu) -> None:
        self.proxy, self.primary, self.secondary = proxy, primary, secondary

    async def heard(self, *frames: bytes) -> None:
        """Wait until the network has heard these, and nothing else before them."""
        async with asyncio.timeout(LIMIT_S):
            for each in frames:
                assert await self.primary.network.receive() == each

    async def say(self, *frames: bytes) -> None:
        """Let the primary's guest send frames."""
        count = self.proxy.counts().primary_frames + len(frames)
        self.primary.guest.send(*frames)
        await until(lambda: self.proxy.counts().primary_frames >= count)

    async def echo(self, *frames: bytes) -> None:
        """Let the secondary's guest send frames."""
        count = self.proxy.counts().secondary_frames + len(frames)
        self.secondary.guest.send(*frames)
        await until(lambda: self.proxy.counts().secondary_frames >= count)

    async def checkpoint(self, libxl: FakeLibxl) -> None:
        """Make a checkpoint: both copies are silent, and all that they sent is here."""
        number = self.proxy.fence()
        libxl.checkpoint()
        await until(lambda: self.proxy.checkpoint == number)


@contextlib.asynccontextmanager
async def running(proxy: ColoProxy, directory: Path) -> AsyncIterator[Pair]:
    """Run both device models with libxl's filters, connected to the proxy."""
    addresses = proxy.addresses
    primary, secondary = (ColoQemu(directory / name) for name in ("primary", "secondary"))
    async with (
        primary.running(
            [
                *client("primary", addresses["primary"]),
                *client("out", addresses["out"]),
                *primary_filters(),
            ]
        ),
        secondary.running([*client("secondary", addresses["secondary"]), *secondary_filters()]),
    ):
        await until(lambda: proxy.connected >= {"primary", "secondary", "out"})
        pair = Pair(proxy, primary, secondary)
        await await_filters(pair)
        yield pair


async def await_filters(pair: Pair) -> None:
    """Wait until QEMU has made its filters: it connects before that."""
    probe = udp(b"probe")
    async with asyncio.timeout(LIMIT_S):
        while not pair.proxy.counts().primary_frames:
            pair.primary.guest.send(probe)
            await asyncio.sleep(0.01)
        while not pair.proxy.counts().secondary_frames:
            pair.secondary.guest.send(probe)
            await asyncio.sleep(0.01)
    # What is still on its way is passed on, too, and heard before this.
    last = udp(b"last")
    await pair.say(last)
    async with asyncio.timeout(LIMIT_S):
        while await pair.primary.network.receive() != last:
            pass


async def test_a_guest_in_colo_from_before_the_first_checkpoint_to_alone(directory: Path) -> None:
    async with (
        serving(loopback_ports(), OPTIONS, connects=False) as bench,
        running(bench.proxy, directory) as pair,
    ):
        proxy = bench.proxy
        await pair.say(A)
        await pair.heard(A)  # before COLO

        libxl = FakeLibxl(await End.connected(proxy.addresses["notify"]))
        await libxl.begin()
        await pair.say(B)
        await pair.heard(B)  # while the first copy is made

        await pair.checkpoint(libxl)
        assert proxy.phase is Phase.COMPARING
        ours, theirs = tcp(b"text", seq=1001), tcp(b"text", seq=1001)
        await pair.say(A, ours)
        await pair.echo(theirs, A)
        await pair.heard(ours, A)  # as the secondary said it

        await pair.say(tcp(b"this", seq=1005))
        await pair.echo(tcp(b"that", seq=1005), C)
        assert await libxl.is_asked()
        await pair.checkpoint(libxl)
        await pair.heard(tcp(b"this", seq=1005))
        await pair.say(C, A)
        await pair.echo(A)
        await pair.heard(A)  # and not C, which only the abandoned secondary had said

        proxy.owner_alone()
        await pair.heard(C)
        await pair.say(B)
        await pair.heard(B)
        assert await libxl.end.is_closed()
        await libxl.end.close()
        counts = proxy.counts()
        assert counts.made == {Reason.PAYLOAD: 1}
        assert (counts.uncut, counts.lost_frames, counts.malformed) == (0, 0, {})


async def test_while_no_proxy_is_there_qemu_lets_nothing_out(directory: Path) -> None:
    """The guest's output fails closed: a proxy that died has not opened the gate."""
    async with (
        serving(loopback_ports(), OPTIONS, connects=False) as bench,
        running(bench.proxy, directory) as pair,
    ):
        bench.proxy.close()
        pair.primary.guest.send(*[A] * 8)
        # What comes to the guest's side goes by no filter of ours, so it tells that QEMU
        # has dealt with what was sent before it.
        for number in range(8):
            probe = udp(bytes([number]))
            pair.primary.network.send(probe)
            async with asyncio.timeout(LIMIT_S):
                assert await pair.primary.guest.receive() == probe
        with pytest.raises(BlockingIOError):
            pair.primary.network.socket.recv(1 << 16)


def free_address() -> tuple[str, int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host, port = taken.getsockname()
    return host, port


async def test_a_proxy_that_connects_can_be_started_anew_under_a_running_qemu(
    directory: Path,
) -> None:
    where = {name: free_address() for name in ("primary", "out")}
    dialled = {name: PortOptions(address=each, is_dialled=True) for name, each in where.items()}
    qemu = ColoQemu(directory / "qmp")
    arguments = [*server("primary", where["primary"]), *server("out", where["out"])]
    async with qemu.running([*arguments, *primary_filters()]):
        for number in range(3):
            async with serving(loopback_ports(**dialled), OPTIONS, connects=False) as bench:
                await until(lambda: bench.proxy.connected >= {"primary", "out"})
                if number:
                    await probe(bench.proxy, qemu)
                    assert not has_something(qemu), "the filter stopped reading for good"
                    await renew_way_out(qemu.qmp, "net0", "out")
                await probe(bench.proxy, qemu)
                await heard_last(bench.proxy, qemu)


async def test_two_device_models_that_libxl_made_of_our_keys_and_the_proxy_find_each_other(
    directory: Path,
) -> None:
    at = {each.name: free_address() for each in dataclasses.fields(ColoPorts)}
    ports = ColoPorts(**{name: port for name, (_, port) in at.items()})
    guest = ColoGuest(
        name="web",
        mac="00:16:3e:01:02:03",
        bridge="br0",
        primary="127.0.0.1",
        secondary="127.0.0.2",
        ports=ports,
    )
    keys = dict(interface_keys(guest, has_qemu_comparator=False))
    places = ProxyPorts(
        primary=PortOptions(address=at["primary"], is_dialled=True),
        secondary=PortOptions(address=at["secondary"]),
        out=PortOptions(address=at["out"], is_dialled=True),
        notify=PortOptions(address=at["notify"]),
    )
    primary, secondary = (ColoQemu(directory / name) for name in ("primary", "secondary"))
    async with (
        primary.running(libxl_arguments(keys, is_secondary=False)),
        serving(places, OPTIONS, connects=False) as bench,
    ):
        await until(lambda: bench.proxy.connected >= {"primary", "out"})
        async with secondary.running(libxl_arguments(keys, is_secondary=True)):
            await until(lambda: "secondary" in bench.proxy.connected)
            pair = Pair(bench.proxy, primary, secondary)
            await await_filters(pair)
            await await_mirror(pair)
            host, port = keys["colo_checkpoint_host"], int(keys["colo_checkpoint_port"])
            libxl = FakeLibxl(await End.connected((host, port)))
            await libxl.begin()
            await pair.checkpoint(libxl)
            await pair.say(A, B)
            await pair.echo(B)
            await pair.heard(B)
            await libxl.end.close()


async def await_mirror(pair: Pair) -> None:
    """Wait until what the network says to the primary's guest reaches the secondary's, too."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            pair.primary.network.send(C)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    assert await pair.secondary.guest.receive() == C
                    return


async def test_the_redirectors_of_a_survivor_are_taken_away_and_it_is_heard(
    directory: Path,
) -> None:
    async with (
        serving(loopback_ports(), OPTIONS, connects=False) as bench,
        running(bench.proxy, directory) as pair,
    ):
        await pair.echo(A)
        assert not has_something(pair.secondary)
        assert await remove_filters(pair.secondary.qmp, SECONDARY_REDIRECTORS) == ("rs2",)
        assert await remove_filters(pair.secondary.qmp, SECONDARY_REDIRECTORS) == ()
        pair.secondary.guest.send(B)
        async with asyncio.timeout(LIMIT_S):
            assert await pair.secondary.network.receive() == B
        async with connected(pair.secondary.qmp) as qmp:
            assert await qmp.objects() == {"rs3"}, "the rewriter stays"


async def test_a_real_device_models_refusal_is_told(directory: Path) -> None:
    qemu = ColoQemu(directory / "qmp")
    async with qemu.running([]):
        await await_qmp(qemu)
        async with connected(qemu.qmp, LIMIT_S) as qmp:
            with pytest.raises(QmpRefused, match=r"object-del: GenericError: .*not found"):
                await qmp.execute("object-del", {"id": "rs1"})
            assert await qmp.objects() == frozenset()


async def await_qmp(qemu: ColoQemu) -> None:
    """Wait until the device model listens: its socket is there a moment sooner."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(QmpError):
                async with connected(qemu.qmp):
                    return
            await asyncio.sleep(0.01)


async def probe(proxy: ColoProxy, qemu: ColoQemu) -> None:
    """Let the guest send until the proxy has something: QEMU takes its time to connect."""
    before = proxy.counts().primary_frames
    async with asyncio.timeout(LIMIT_S):
        while proxy.counts().primary_frames == before:
            qemu.guest.send(udp(b"probe"))
            await asyncio.sleep(0.01)


async def heard_last(proxy: ColoProxy, qemu: ColoQemu) -> None:
    """Wait until the network hears what the guest sends now."""
    last = udp(b"last")
    async with asyncio.timeout(LIMIT_S):
        qemu.guest.send(last)
        while await qemu.network.receive() != last:
            pass
    while has_something(qemu):
        pass


def has_something(qemu: ColoQemu) -> bool:
    """Whether the network has heard something that was not received yet."""
    with contextlib.suppress(BlockingIOError):
        return bool(qemu.network.socket.recv(1 << 16))
    return False
