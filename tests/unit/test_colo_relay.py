"""The relay between a secondary's QEMU and the proxy, by their sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from colod.errors import InvariantBroken, NotAllowedNow
from colod.output.colo.framing import encode_frames, encode_mark
from colod.output.colo.ports import PortOptions
from colod.output.colo.relay import SecondaryRelay
from tests.colo_ends import LIMIT_S, Bench, End, FakeLibxl, loopback_ports, serving, until
from tests.unit.compare_samples import udp
from tests.unit.test_colo_proxy import MARKED

A, B, C = udp(b"a"), udp(b"b"), udp(b"c")


class Ends:
    """A relay, and what its proxy would hear."""

    def __init__(self, relay: SecondaryRelay, guest: End, proxy: End, told: list[str]) -> None:
        self.relay, self.guest, self.proxy, self.told = relay, guest, proxy, told

    async def hears(self, wire: bytes) -> bool:
        """Wait until the proxy has as many bytes; return whether they are these."""
        async with asyncio.timeout(LIMIT_S):
            return await self.proxy.reader.readexactly(len(wire)) == wire


@contextlib.asynccontextmanager
async def relaying(proxy: PortOptions) -> AsyncIterator[tuple[SecondaryRelay, list[str]]]:
    told: list[str] = []
    relay = SecondaryRelay(PortOptions(address=("127.0.0.1", 0)), proxy, told.append)
    relay.open()
    running = asyncio.create_task(relay.run())
    try:
        yield relay, told
        assert not running.done(), "the relay ended by itself"
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@contextlib.asynccontextmanager
async def ends(pending_bytes: int = 1 << 20) -> AsyncIterator[Ends]:
    """Run a relay whose proxy connects, so that a test can."""
    proxy = PortOptions(address=("127.0.0.1", 0), pending_bytes=pending_bytes)
    async with relaying(proxy) as (relay, told):
        guest = await End.connected(relay.addresses["guest"])
        heard = await End.connected(relay.addresses["proxy"])
        await until(lambda: len(relay.connected) == 2)
        try:
            yield Ends(relay, guest, heard, told)
        finally:
            for each in (guest, heard):
                await each.close()


async def test_a_connection_begins_with_a_mark_and_frames_follow() -> None:
    async with ends() as relay:
        assert await relay.hears(encode_mark(0))
        relay.guest.send(encode_frames([A, B]))
        assert await relay.hears(encode_frames([A, B]))
        assert relay.relay.counts().frames == 2


async def test_a_cut_marks_the_end_of_all_that_the_kernel_has() -> None:
    async with ends() as relay:
        relay.guest.send(encode_frames([A] * 100))
        assert not relay.guest.writer.transport.get_write_buffer_size()
        relay.relay.cut(1)
        relay.guest.send(encode_frames([B]))
        wire = encode_mark(0) + encode_frames([A] * 100) + encode_mark(1) + encode_frames([B])
        assert await relay.hears(wire)


async def test_a_copy_that_has_sent_half_a_frame_is_not_suspended() -> None:
    async with ends() as relay:
        relay.guest.send(encode_frames([A])[:-1])
        with pytest.raises(NotAllowedNow, match="still sends"):
            relay.relay.cut(1)
        assert relay.relay.counts().marks == 0


async def test_a_cut_that_goes_back_is_a_defect() -> None:
    async with ends() as relay:
        relay.relay.cut(2)
        with pytest.raises(InvariantBroken):
            relay.relay.cut(2)


async def test_a_new_connection_of_the_proxy_begins_with_the_last_mark() -> None:
    async with ends() as relay:
        relay.relay.cut(3)
        await relay.proxy.close()
        await until(lambda: relay.told == ["proxy"])
        relay.guest.send(encode_frames([A]))
        await until(lambda: relay.relay.counts().lost_frames == 1)
        relay.proxy = await End.connected(relay.relay.addresses["proxy"])
        assert await relay.hears(encode_mark(3))
        await relay.proxy.close()


async def test_a_mark_that_finds_no_room_ends_the_connection() -> None:
    """Frames behind a mark that is missing would be taken for older ones for good."""
    async with ends(pending_bytes=2000) as relay:
        frames = [udp(bytes(1400))] * 40
        while not relay.relay.counts().lost_frames:
            relay.guest.send(encode_frames(frames))
            await relay.guest.writer.drain()
            await asyncio.sleep(0)
        # Small frames fill what is left.
        while relay.relay._proxy.room_bytes >= 12:
            assert relay.relay._proxy.write(bytes(min(12, relay.relay._proxy.room_bytes)))
        relay.relay.cut(1)
        assert "proxy" not in relay.relay.connected


async def test_a_hostile_frame_costs_its_connection_only() -> None:
    async with ends() as relay:
        relay.guest.send(encode_mark(9))
        assert await relay.guest.is_closed()
        assert relay.told == ["guest"]
        assert await relay.hears(encode_mark(0)), "and no mark of the guest's"


async def test_relay_and_proxy_cut_the_secondary_where_it_was_suspended() -> None:
    async with serving(loopback_ports(), MARKED, connects=False) as bench:
        address = bench.proxy.addresses["secondary"]
        async with relaying(PortOptions(address=address, is_dialled=True)) as (relay, _):
            await connect(bench, relay)
            await bench.libxl.begin()
            relay.cut(1)
            await bench.committed()
            await bench.say(A)
            await bench.echo(A)
            assert await bench.out.frames(1) == [A]
            bench.secondary.send(encode_frames([B]))
            relay.cut(2)
            await bench.committed()
            await until(lambda: bench.proxy.counts().secondary_frames == 2)
            await bench.say(B, C)
            await bench.echo(C)
            assert await bench.out.frames(1) == [C], "the secondary has forgotten B"
            assert bench.proxy.is_cut_proved


async def test_one_that_only_ends_connections_is_not_asked_again_and_again() -> None:
    begun = 0

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        begun += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with server, relaying(PortOptions(address=address, is_dialled=True)):
        await until(lambda: begun == 1)
        began = time.monotonic()
        await until(lambda: begun == 4)
        assert time.monotonic() - began > 3 * 0.5 * 0.9


async def connect(bench: Bench, relay: SecondaryRelay) -> None:
    """Connect all ends, the secondary's by the relay."""
    await until(lambda: "secondary" in bench.proxy.connected)
    addresses = {**bench.proxy.addresses, "secondary": relay.addresses["guest"]}
    bench.primary, bench.secondary, bench.out = [
        await End.connected(addresses[name]) for name in ("primary", "secondary", "out")
    ]
    notify = await End.connected(addresses["notify"])
    bench.libxl = FakeLibxl(notify)
    await until(lambda: len(bench.proxy.connected) == 4 and "guest" in relay.connected)
