"""colod.session.colo: what needs neither xl nor a peer."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colod.output.colo.framing import encode_frames
from colod.session.colo import frames
from colod.session.colo.frames import FrameQueue, FrameSink
from colod.session.colo.rate import WINDOW_S, Rate
from colod.session.colo.receiving import ColoReceiving
from colod.session.colo.sender import ColoSender
from colod.session.colo.spec import parse_colo
from colod.session.ending import Ending, State
from colod.session.receiving import Receiving
from colod.session.sending import Seal
from colod.session.spec import parse_spec
from colod.stream import libxc, libxl, writer
from colod.stream.frames import MAX_CONTROL_BYTES
from colod.stream.libxc import DomainType
from colod.stream.libxl import ControlId
from colod.transport.unix import UnixTransport
from tests.colo_ends import until
from tests.unit.session_samples import contents, receive, sent
from tests.unit.test_session_spec import SEND

STAGING = 4 << 20
NEW = writer.checkpoint_state(ControlId.CHECKPOINT_NEW)


def _epoch(number: int) -> bytes:
    return b"".join(
        (
            writer.page_data([writer.typed_pfn(number)], [bytes([number]) * 4096]),
            writer.libxc_record(libxc.RecordType.HVM_CONTEXT, bytes(64)),
            writer.checkpoint(),
            writer.emulator_context(b"device model"),
            writer.checkpoint_end(),
        )
    )


def colo_stream(epochs: int) -> bytes:
    """Return what libxl writes in COLO, up to the end of an epoch."""
    head = (
        writer.xl_header(b'{"c_info": {"name": "g1"}}'),
        writer.libxl_header(),
        writer.libxl_record(libxl.RecordType.LIBXC_CONTEXT),
        writer.libxc_image_header(),
        writer.libxc_domain_header(DomainType.X86_HVM),
        writer.libxc_record(libxc.RecordType.STATIC_DATA_END),
    )
    later = (NEW + _epoch(number) for number in range(2, epochs + 1))
    return b"".join((*head, _epoch(1), *later))


@pytest.mark.parametrize("chunk_bytes", [1, 7, 24, 1000, 1 << 20])
def test_a_checkpoints_first_record_goes_to_xl_at_once_and_the_rest_when_it_is_whole(
    chunk_bytes: int,
) -> None:
    stream = colo_stream(3)
    first = stream.index(NEW)
    receiving, handed = ColoReceiving(STAGING), b""
    for piece in sent(stream, chunk_bytes):
        came = b"".join(map(contents, receive(receiving, piece)))
        if came and len(handed) >= first and not isinstance(piece, Seal):
            assert came == NEW
        handed += came
    assert handed == stream
    assert receiving.news == 2


def test_without_that_the_primary_would_wait_for_ever() -> None:
    stream = colo_stream(1) + NEW
    for kind, is_passed in ((ColoReceiving, True), (Receiving, False)):
        receiving = kind(STAGING)
        handed = b"".join(
            contents(each) for piece in sent(stream) for each in receive(receiving, piece)
        )
        assert handed.endswith(NEW) is is_passed


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "no table"),
        ({}, "filters_argv"),
        ({"filters_argv": ["x"], "speed": 1}, "unknown speed"),
        ({"filters_argv": "x"}, "no list of words"),
        ({"filters_argv": ["x"], "interval_max_s": 5.0}, "not within 0.1 to 4.5"),
        ({"filters_argv": ["x"], "compare_timeout_s": True}, "no number"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_colo(given)


def test_a_rate_is_of_the_last_seconds_only() -> None:
    rate = Rate()
    for at in (0.0, 1.0, WINDOW_S + 0.5):
        rate.note(at)
    assert rate.per_s(WINDOW_S + 0.5) == pytest.approx(2 / WINDOW_S)
    assert rate.per_s(3 * WINDOW_S) == 0.0


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="colo-") as made:
        yield Path(made)


async def test_frames_pass_from_a_filter_to_a_filter_in_pieces_of_any_size(
    directory: Path,
) -> None:
    said = [b"a" * 60, b"b" * (3 * MAX_CONTROL_BYTES), b"c" * 100]
    heard = asyncio.Queue[bytes]()

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_frames(said))
        await writer.drain()
        writer.close()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.put_nowait(await reader.readexactly(len(encode_frames(said))))
        writer.close()

    async with (
        await asyncio.start_unix_server(speak, directory / "from"),
        await asyncio.start_unix_server(listen, directory / "to"),
    ):
        queue, sink = FrameQueue(), FrameSink()
        await sink.connect(directory / "to")
        filling = asyncio.create_task(queue.fill(directory / "from"))
        async with asyncio.timeout(10):
            while heard.empty():
                batch = await queue.batch()
                assert len(batch) <= MAX_CONTROL_BYTES
                sink.take(batch)
                if batch.endswith(said[-1]):
                    assert await heard.get() == encode_frames(said)
                    break
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        sink.close()
    assert (queue.lost_frames, sink.lost_frames) == (0, 0)


async def test_what_nobody_takes_is_lost_whole_and_counted(directory: Path) -> None:
    sink = FrameSink()
    sink.take(encode_frames([b"x" * 60])[:10])
    assert sink.lost_frames == 0
    sink.take(encode_frames([b"x" * 60])[10:])
    assert sink.lost_frames == 1
    assert frames.ROOM_BYTES > MAX_CONTROL_BYTES
    told = asyncio.Event()

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_frames([b"y" * 4000] * (frames.ROOM_BYTES // 4000 + 10)))
        await writer.drain()
        writer.close()
        told.set()

    async with await asyncio.start_unix_server(speak, directory / "from"):
        queue = FrameQueue()
        filling = asyncio.create_task(queue.fill(directory / "from"))
        async with asyncio.timeout(20):
            await told.wait()
            await until(lambda: queue.lost_frames > 0)
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
    assert (await queue.batch()).startswith(encode_frames([b"y" * 4000]))


class _Link:
    """A link whose process may have stood still."""

    def __init__(self, said: str = "") -> None:
        self._said = said

    def check_awake(self) -> None:
        if self._said:
            raise Ending.peer_lost("session.stood_still", self._said)


def _sender(directory: Path) -> ColoSender:
    spec = parse_spec({**SEND, "colo": {"filters_argv": ["filters"]}})
    return ColoSender(spec, directory, UnixTransport.from_options({"directory": str(directory)}))


async def test_output_leaves_only_while_nobody_else_can_have_taken_the_guest_over(
    directory: Path,
) -> None:
    sender = _sender(directory)
    assert sender._may_send(), "before there is a peer, nobody can"
    sender.link = _Link()  # type: ignore[assignment]
    assert sender._may_send()
    sender.link = _Link("5 s")  # type: ignore[assignment]
    assert not sender._may_send()
    sender.link = _Link()  # type: ignore[assignment]
    assert not sender._may_send(), "once and for all"
    assert sender.report.state is State.PEER_LOST


async def test_no_output_leaves_once_the_daemon_has_ended_the_session(directory: Path) -> None:
    sender = _sender(directory)
    sender.release("alone")
    assert not sender._may_send()
