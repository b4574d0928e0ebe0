"""Real session processes before hostile peers: who is let in, and what they can cost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colod.errors import PeerUnreachable
from colod.session.handshake import make_hello
from colod.session.link import Link
from colod.stream import writer
from colod.stream.frames import (
    MAX_CONTROL_BYTES,
    MAX_DATA_BYTES,
    Challenge,
    FrameType,
    decode_message,
    encode_header,
    encode_message,
)
from colod.stream.image.keeper import MAX_STATE_BYTES
from colod.transport.base import Connection
from colod.transport.crowd import MAX_STRANGERS
from colod.transport.tcp import TcpTransport
from tests.integration.session_pair import Pair, State
from tests.integration.simxen_hosts import LIMIT_S, until
from tests.integration.test_session_receiver import (
    Receiving,
    acked,
    connect,
    enter,
    heard,
    put,
)
from tests.unit.session_samples import remus_stream, sent
from tests.unit.stream_samples import Sample

MIB = 1 << 20
G2: dict[str, Any] = {"guest": "g2", "pairing": "f" * 32, "secret": "7e" * 32}
OTHERS_BYTES = 48 * MIB
"""What a session may take beside what it is told to: its program, and what is on its way."""


@pytest.fixture
def receivers(tmp_path: Path) -> Iterator[Any]:
    """Start receivers, each in a directory of its own."""
    started: list[Receiving] = []

    def begin(name: str = "g1", **changes: Any) -> Receiving:
        base = tmp_path / name
        base.mkdir()
        started.append(Receiving(base, **changes))
        return started[-1]

    yield begin
    for receiving in started:
        receiving.end()


def peak_bytes(receiving: Receiving) -> int:
    """Return the most memory that the process ever had. Source: proc(5), VmHWM."""
    for line in Path(f"/proc/{receiving.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


async def refused(link: Link) -> bytes:
    """Return why the receiver sends us away."""
    reason = bytes((await heard(link, FrameType.ABORT)).payload)
    await link.close()
    return reason


# -- who is let in


class Wiretap:
    """A connection of the right sender's on which everything is written down."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.said = bytearray()

    @property
    def peer_address(self) -> str:
        return self._connection.peer_address

    async def read_into(self, buffer: memoryview) -> int:
        return await self._connection.read_into(buffer)

    async def write(self, *parts: Any) -> None:
        for part in parts:
            self.said += part
        await self._connection.write(*parts)

    async def finish(self) -> None:
        await self._connection.finish()

    async def close(self) -> None:
        await self._connection.close()


async def recorded_hello(receiving: Receiving) -> bytes:
    """Return, to the byte, what the right sender said when it was let in."""
    spec = receiving.sender_spec
    tap = Wiretap(await TcpTransport().connect(receiving.address(), timeout_s=LIMIT_S))
    link = Link(tap, spec.generation)
    challenge = decode_message(Challenge, (await link.receive()).payload)
    await link.send(FrameType.HELLO, encode_message(make_hello(spec, challenge, "00" * 32)))
    await heard(link, FrameType.WELCOME)
    await link.close()
    return bytes(tap.said)


async def test_a_hello_that_was_recorded_lets_nobody_in(receivers: Any) -> None:
    """The second receiver is the same to the byte: as after a restart of the pairing's first."""
    said = await recorded_hello(receivers("first"))
    again = receivers("again")
    connection = await TcpTransport().connect(again.address(), timeout_s=LIMIT_S)
    link = Link(connection, again.sender_spec.generation)
    await heard(link, FrameType.CHALLENGE)
    await connection.write(said)
    assert b"does not know this pairing's secret" in await refused(link)
    await (await enter(again)).close()


async def test_the_secret_of_one_guest_opens_no_other_guests_receiver(receivers: Any) -> None:
    first, second = receivers("g1"), receivers("g2", **G2)
    own = first.sender_spec
    claims = replace(own, guest="g2", pairing="f" * 32)
    for spec in (own, claims):
        link = await connect(second, spec)
        challenge = decode_message(Challenge, (await link.receive()).payload)
        hello = make_hello(spec, challenge, "00" * 32)
        await link.send(FrameType.HELLO, encode_message(hello))
        assert b"does not know this pairing's secret" in await refused(link)
    for receiving in (first, second):
        link = await enter(receiving)
        await put(link, *sent(remus_stream(1).data))
        await acked(link, 1)
        await link.close()
    assert not second.has_got(b"")
    assert second.log().count("sender.refused") == 2


def test_a_real_sender_that_is_led_to_another_guests_receiver_leaves_its_guest_running(
    tmp_path: Path, receivers: Any
) -> None:
    other = receivers("g2", **G2)
    (tmp_path / "pair").mkdir()
    pair = Pair(tmp_path / "pair")
    try:
        pair.receiving.wait(lambda status: status.listen_address, "it listens")
        pair.changes["address"] = other.address()
        cross_wire(pair)
        status = pair.sending.wait_state(State.SESSION_STATE_FAILED)
        assert status.error_code == "peer.refused"
        assert "does not know this pairing's secret" in status.error
        until(pair.primary.runs, "the guest runs")
        assert other.got.read_bytes() == b""
    finally:
        pair.end()


def cross_wire(pair: Pair) -> None:
    """Start the sender with the address of somebody else's receiver."""
    address = pair.changes.pop("address")

    class Elsewhere:
        """Stands in for the status that tells where to connect."""

        listen_address = address
        backup_address = ""

    receiving = pair.receiving
    wait = receiving.wait
    receiving.wait = lambda *_: Elsewhere()  # type: ignore[method-assign, assignment]
    try:
        pair.start_sender()
    finally:
        receiving.wait = wait  # type: ignore[method-assign]


# -- what they can cost


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (FrameType.DATA, MAX_DATA_BYTES + 1),
        (FrameType.DELTA, 2**32 - 1),
        (FrameType.PING, MAX_CONTROL_BYTES + 1),
        (FrameType.CLOSE, MAX_CONTROL_BYTES + 1),
        (FrameType.SEAL, 41),
    ],
)
async def test_a_frame_that_is_too_long_ends_the_pairing_by_its_header(
    receivers: Any, kind: FrameType, size: int
) -> None:
    receiving = receivers()
    link = await enter(receiving)
    await put(link, *sent(remus_stream(1).data))
    await acked(link, 1)
    header = encode_header(kind, generation=4, epoch=2, payload_bytes=size)
    await link._connection.write(header)
    status = receiving.daemon.wait_state(State.SESSION_STATE_FAILED)
    assert status.error_code == "session.protocol"
    assert status.progress.acked_epoch == 1
    assert peak_bytes(receiving) < OTHERS_BYTES + 64 * MIB
    await link.close()


async def test_a_hello_that_is_too_long_is_refused_by_its_header(receivers: Any) -> None:
    receiving = receivers()
    link = await connect(receiving)
    await heard(link, FrameType.CHALLENGE)
    size = MAX_CONTROL_BYTES + 1
    header = encode_header(FrameType.HELLO, generation=4, epoch=0, payload_bytes=size)
    await link._connection.write(header)
    assert b"limit" in await refused(link)
    await (await enter(receiving)).close()


@contextlib.asynccontextmanager
async def trickling(receiving: Receiving, count: int) -> AsyncIterator[None]:
    """Keep so many strangers at the door, each of whom says a byte now and then."""

    async def trickle() -> None:
        connection = await TcpTransport().connect(receiving.address(), timeout_s=LIMIT_S)
        header = encode_header(FrameType.HELLO, generation=4, epoch=0, payload_bytes=16 << 10)
        try:
            for octet in itertools.chain(header, itertools.repeat(0x20)):
                await connection.write(bytes((octet,)))
                await asyncio.sleep(0.05)
        except PeerUnreachable:
            pass  # it was sent away
        finally:
            await connection.close()

    strangers = [asyncio.create_task(trickle()) for _ in range(count)]
    try:
        yield
    finally:
        for stranger in strangers:
            stranger.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)


async def test_strangers_that_speak_slowly_are_sent_away_in_their_turn(
    receivers: Any,
) -> None:
    receiving = receivers()
    receiving.address()
    async with trickling(receiving, 3 * MAX_STRANGERS):
        await asyncio.sleep(0.2)  # they come first
        link = await enter(receiving)
        await put(link, *sent(remus_stream(1).data))
        await acked(link, 1)
        await link.close()
    assert peak_bytes(receiving) < OTHERS_BYTES + 64 * MIB


async def test_a_first_copy_without_end_fills_neither_memory_nor_image(
    receivers: Any, tmp_path: Path
) -> None:
    """A sender that proved itself, and sends records that nobody needs, for ever."""
    kept = tmp_path / "kept"
    kept.mkdir()
    receiving = receivers(
        image={"directory": str(kept)}, receive_argv=["sh", "-c", "cat >/dev/null"]
    )
    link = await enter(receiving)
    before = peak_bytes(receiving)
    await put(link, *sent(Sample().headers().pages(1).data))
    record = writer.libxc_record(0x8000_0001, os.urandom(MIB - 8))
    for _ in range(3 * MAX_STATE_BYTES // MIB):
        await link.send(FrameType.DATA, record, epoch=1)
    status = receiving.daemon.wait(lambda status: status.image.trouble, "no image is kept")
    assert "bytes of records in an epoch" in status.image.trouble
    assert status.state == State.SESSION_STATE_SYNCING, "the replica does not depend on its image"
    assert peak_bytes(receiving) - before < 2 * MAX_STATE_BYTES
    await link.close()


async def test_frames_of_one_byte_that_xl_does_not_take_are_bounded_too(receivers: Any) -> None:
    receiving = receivers(receive_argv=["sleep", "1000"])
    link = await enter(receiving)
    before = peak_bytes(receiving)
    sample = Sample().headers().pages(1)
    await put(link, *sent(sample.data))
    header = encode_header(FrameType.DATA, generation=4, epoch=1, payload_bytes=1)
    body = writer.libxc_record(0x8000_0001, bytes(64 * MIB))[: 2 * MIB]

    async def flood() -> None:
        for begin in range(0, len(body), 4096):
            part = body[begin : begin + 4096]
            frames = b"".join(header + part[at : at + 1] for at in range(len(part)))
            await link._connection.write(frames)

    flooding = asyncio.create_task(flood())
    await asyncio.wait([flooding], timeout=5)
    assert not flooding.done(), "two million frames were taken that nobody reads"
    assert peak_bytes(receiving) - before < OTHERS_BYTES
    assert receiving.daemon.newest().state == State.SESSION_STATE_SYNCING
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    await link.close()
