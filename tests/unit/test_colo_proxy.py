"""The COLO proxy by its sockets, with stand-ins for QEMU and libxl at the other ends."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from colod.errors import NetworkError, NotAllowedNow
from colod.output.colo.core import Event, Phase, ProxyOptions
from colod.output.colo.framing import encode_frames, encode_mark
from colod.output.colo.notify import CHECKPOINT, encode_word
from colod.output.colo.ports import PortOptions
from colod.output.compare.checkpoints import CheckpointOptions
from colod.output.compare.decisions import Reason
from colod.output.compare.limits import Limits
from tests.colo_ends import End, loopback_ports, serving, until
from tests.unit.compare_samples import udp

A, B, C, D = udp(b"a"), udp(b"b"), udp(b"c"), udp(b"d")
PATIENT = ProxyOptions(
    limits=Limits(timeout_s=3600.0),
    checkpoints=CheckpointOptions(interval_max_s=3600.0, overdue_s=3600.0),
)
"""One that asks for nothing by the clock."""

HASTY = ProxyOptions(limits=Limits(timeout_s=0.01), checkpoints=PATIENT.checkpoints)
MARKED = ProxyOptions(limits=PATIENT.limits, checkpoints=PATIENT.checkpoints, has_marks=True)
OFFLOADED = b"\1" + bytes(11)


async def test_before_colo_begins_the_guest_is_heard() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.say(A, B)
        assert await bench.out.frames(2) == [A, B]
        await bench.libxl.begin()
        await bench.say(C)
        assert await bench.out.frames(1) == [C]


async def test_what_both_say_leaves_and_what_one_says_leaves_with_the_checkpoint() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        await bench.say(A, B)
        await bench.echo(B, C)
        assert await bench.out.frames(1) == [B]
        await bench.checkpoint()
        assert await bench.out.frames(1) == [A]
        assert bench.events == [Event.BEGUN, Event.COMMITTED]
        await bench.say(C)
        await bench.say(D)
        await bench.echo(D)
        assert await bench.out.frames(1) == [D], "what the secondary said before is forgotten"


async def test_a_divergence_asks_libxl_by_the_proxys_own_timer() -> None:
    async with serving(loopback_ports(), HASTY) as bench:
        await bench.compare()
        await bench.say(A)
        assert await bench.libxl.is_asked()
        await bench.checkpoint()
        assert await bench.out.frames(1) == [A]
        counts = bench.proxy.counts()
        assert counts.requested == counts.made == {Reason.UNMATCHED: 1}
        assert counts.busy_s > 0


async def test_an_operator_asks_libxl_at_once() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        bench.proxy.ask()
        assert await bench.libxl.is_asked()
        assert bench.proxy.counts().requested == {Reason.OPERATOR: 1}


async def test_a_frame_that_was_read_with_libxls_word_is_taken_for_newer() -> None:
    """Both are there when the proxy looks: which came first cannot be told."""
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        await bench.say(A)
        # The half frame lets the proxy look at the primary first.
        wire = encode_frames([B])
        bench.primary.send(wire[:7])
        bench.libxl.checkpoint()
        bench.primary.send(wire[7:])
        await until(lambda: bench.proxy.checkpoint == 2)
        await until(lambda: bench.proxy.counts().primary_frames == 2)
        assert await bench.out.frames(1) == [A]
        assert bench.proxy.counts().released_frames == 1
        await bench.checkpoint()
        assert await bench.out.frames(1) == [B]


async def test_a_fence_takes_in_all_that_the_kernel_has() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        frames = [udp(bytes([number]) * 1000) for number in range(200)]
        for end in (bench.primary, bench.secondary):
            end.send(encode_frames(frames))
            assert not end.writer.transport.get_write_buffer_size(), "the kernel has all of it"
        bench.proxy.fence()
        counts = bench.proxy.counts()
        assert (counts.primary_frames, counts.secondary_frames) == (200, 200)
        assert await bench.out.frames(200) == frames


async def test_a_fence_in_the_middle_of_a_frame_is_refused() -> None:
    """Its end is still on the way, so not all that the secondary sent before is here."""
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        wire = encode_frames([A])
        bench.secondary.send(wire[:-1])
        with pytest.raises(NotAllowedNow, match="half a frame of the secondary"):
            bench.proxy.fence()
        bench.secondary.send(wire[-1:])
        await until(lambda: bench.proxy.counts().secondary_frames == 1)
        await bench.say(A)
        assert await bench.out.frames(1) == [A], "nothing was cut"


async def test_marks_in_the_secondarys_stream_cut_it() -> None:
    async with serving(loopback_ports(), MARKED) as bench:
        await bench.libxl.begin()
        bench.secondary.send(encode_mark(1))
        await bench.committed()
        await bench.say(A)
        await bench.echo(A)
        assert await bench.out.frames(1) == [A]
        await bench.committed()
        await bench.say(B, C)
        await bench.echo(B)
        bench.secondary.send(encode_mark(2))
        await bench.echo(C)
        assert await bench.out.frames(1) == [C], "B was said before the mark"


async def test_an_assumed_cut_is_where_the_secondarys_input_was_empty() -> None:
    options = ProxyOptions(
        limits=PATIENT.limits, checkpoints=PATIENT.checkpoints, are_cuts_assumed=True
    )
    async with serving(loopback_ports(), options) as bench:
        await bench.libxl.begin()
        await bench.committed()
        bench.secondary.send(encode_frames([A]))
        bench.libxl.checkpoint()
        await until(lambda: bench.proxy.checkpoint == 2)
        assert bench.proxy.counts().secondary_frames == 1
        await bench.say(A, B)
        await bench.echo(B)
        assert await bench.out.frames(1) == [B]
        assert not bench.proxy.is_cut_proved


async def test_alone_everything_leaves_and_libxl_is_let_go() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        await bench.say(A)
        bench.proxy.owner_alone()
        assert await bench.out.frames(1) == [A]
        assert bench.proxy.phase is Phase.ALONE
        assert await bench.libxl.end.is_closed()
        await bench.say(B)
        assert await bench.out.frames(1) == [B]


async def test_each_port_takes_one_connection() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        for name, address in bench.proxy.addresses.items():
            second = await End.connected(address)
            assert await second.is_closed()
            await second.close()
            assert bench.proxy.counts().refused[name] == 1
        await bench.say(A)
        assert await bench.out.frames(1) == [A], "the first ones are still served"


async def test_a_stranger_is_refused() -> None:
    """All of 127.0.0.0/8 is loopback, so another of its addresses is another peer."""
    ports = loopback_ports(
        secondary=PortOptions(address=("127.0.0.1", 0), peers=frozenset({"127.0.0.2"}))
    )
    async with serving(ports, PATIENT, connects=False) as bench:
        address = bench.proxy.addresses["secondary"]
        stranger = await End.connected(address)
        assert await stranger.is_closed()
        await stranger.close()
        assert isinstance(address, tuple)
        reader, writer = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
        await until(lambda: "secondary" in bench.proxy.connected)
        await End(reader, writer).close()
        assert bench.proxy.counts().refused["secondary"] == 1


def test_a_peer_is_an_address_and_no_name() -> None:
    with pytest.raises(ValueError, match="secondary-host"):
        PortOptions(address=("127.0.0.1", 0), peers=frozenset({"secondary-host"}))


async def test_the_secondary_may_come_back_and_counts_from_the_next_checkpoint() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        await bench.secondary.close()
        await until(lambda: "secondary" not in bench.proxy.connected)
        assert Event.SECONDARY_GONE in bench.events
        bench.secondary = await End.connected(bench.proxy.addresses["secondary"])
        await until(lambda: "secondary" in bench.proxy.connected)
        await bench.say(A)
        await bench.echo(A)
        assert bench.proxy.counts().stale_frames == 1
        await bench.checkpoint()
        assert await bench.out.frames(1) == [A]
        await bench.say(B)
        await bench.echo(B)
        assert await bench.out.frames(1) == [B]


async def test_a_half_frame_of_a_lost_connection_is_forgotten() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        bench.primary.send(encode_frames([A])[:-1])
        await bench.primary.close()
        await until(lambda: "primary" not in bench.proxy.connected)
        bench.primary = await End.connected(bench.proxy.addresses["primary"])
        await bench.say(B)
        assert await bench.out.frames(1) == [B]


async def test_a_hostile_length_costs_its_connection_only() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        bench.secondary.send(b"\xff\xff\xff\xff")
        assert await bench.secondary.is_closed()
        assert bench.proxy.counts().malformed == {"secondary": 1}
        await bench.say(A)
        assert await bench.out.frames(1) == [A]


async def test_who_is_not_libxl_releases_nothing() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.compare()
        await bench.say(A)
        await bench.libxl.end.close()
        await until(lambda: "notify" not in bench.proxy.connected)
        liar = await End.connected(bench.proxy.addresses["notify"])
        liar.send(encode_word(CHECKPOINT))
        assert await liar.is_closed()
        await liar.close()
        await bench.say(B)
        await bench.echo(B)
        assert await bench.out.frames(1) == [B], "A is held"
        assert bench.proxy.checkpoint == 1


async def test_what_nobody_takes_is_lost_and_the_primary_is_read_on() -> None:
    """QEMU stands still while a filter's socket is full: the guest must not."""
    ports = loopback_ports(out=PortOptions(address=("127.0.0.1", 0), pending_bytes=20_000))
    async with serving(ports, PATIENT) as bench:
        frames = [udp(number.to_bytes(2, "big") * 500) for number in range(16)] * 1000
        bench.primary.send(encode_frames(frames))
        await until(lambda: bench.proxy.counts().primary_frames == len(frames))
        lost = bench.proxy.counts().lost_frames
        assert lost > 0
        assert bench.events == [Event.LOST]
        kept = await bench.out.frames(len(frames) - lost)
        assert set(kept) <= set(frames), "frames are lost whole"
        await bench.say(A)
        assert await bench.out.frames(1) == [A]


async def test_without_anybody_at_the_way_out_frames_are_lost_and_told() -> None:
    async with serving(loopback_ports(), PATIENT) as bench:
        await bench.out.close()
        await until(lambda: "out" not in bench.proxy.connected)
        await bench.say(A)
        assert bench.proxy.counts().lost_frames == 1
        assert bench.events == [Event.OUT_GONE, Event.LOST]


async def test_ports_may_connect_again_and_again() -> None:
    """As colo-compare did, to QEMU's server sockets, which outlive this process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        ports = loopback_ports(out=PortOptions(address=address, is_dialled=True))
        async with serving(ports, PATIENT, connects=False) as bench:
            await asyncio.sleep(0)  # nobody listens yet
            listener.listen()
            listener.setblocking(False)
            loop = asyncio.get_running_loop()
            bench.primary = await End.connected(bench.proxy.addresses["primary"])
            for frame in (A, B):
                gone = bench.events.count(Event.OUT_GONE)
                connection, _ = await loop.sock_accept(listener)
                await until(lambda: "out" in bench.proxy.connected)
                await bench.say(frame)
                wire = encode_frames([frame])
                assert await loop.sock_recv(connection, 2 * len(wire)) == wire
                connection.close()
                await until(lambda: bench.events.count(Event.OUT_GONE) > gone)  # noqa: B023


async def test_headers_are_taken_off_and_put_on_again() -> None:
    async with serving(loopback_ports(has_headers=True), PATIENT) as bench:
        count = 3
        bench.primary.send(
            encode_frames([A], bytes(12))
            + encode_frames([B], OFFLOADED)
            + encode_frames([C], bytes(12))
        )
        await until(lambda: bench.proxy.counts().primary_frames == count - 1)
        wire = encode_frames([A, C], bytes(12))
        assert await bench.out.reader.readexactly(len(wire)) == wire
        counts = bench.proxy.counts()
        assert (counts.offloaded_frames, counts.lost_frames) == (1, 1)


async def test_an_address_in_use_is_an_error_and_nothing_is_left_open(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = loopback_ports(notify=PortOptions(address=taken.getsockname()))
        with pytest.raises(NetworkError, match="colo notify"):
            async with serving(ports, PATIENT, connects=False):
                raise AssertionError("it was opened")


async def test_what_may_not_leave_is_lost_and_not_kept_for_later() -> None:
    async with serving(loopback_ports(), PATIENT, may_send=iter((True, False, True)).__next__) as b:
        await b.say(A)
        await b.say(B)
        await b.say(C)
        assert await b.out.frames(2) == [A, C]
        assert b.proxy.counts().lost_frames == 1


async def test_how_long_each_compared_frame_was_held_is_told() -> None:
    held: list[float] = []
    async with serving(loopback_ports(), PATIENT, observe=held.append) as bench:
        await bench.say(A)
        assert held == []
        await bench.compare()
        await bench.say(B, C)
        await asyncio.sleep(0.05)
        await bench.echo(B)
        assert len(held) == 1
        assert held[0] >= 0.05
        await bench.checkpoint()
        assert len(held) == 2
