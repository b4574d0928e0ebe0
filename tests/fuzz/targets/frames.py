"""What two sessions say to each other, and a daemon to its session."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterable

from colod.errors import PeerUnreachable, SessionError, StreamError
from colod.session.ending import Ending
from colod.session.link import Link
from colod.session.protocol import LENGTH_BYTES, MAX_MESSAGE_BYTES, MessageDecoder, encode_message
from colod.session.report import Report
from colod.stream.frames import (
    AHEAD_BYTES,
    HEADER,
    MAGIC,
    MAX_CONTROL_BYTES,
    MAX_DATA_BYTES,
    PING_BODY,
    SEAL_BODY,
    VERSION,
    Frame,
    FrameDecoder,
    FrameType,
    encode,
)
from colod.transport.base import Buffer
from colod.v1 import session_pb2
from tests.fuzz.target import MIB, Reader, Target, demand, gist, pieces, same
from tests.fuzz.targets.loop import finish
from tests.fuzz.targets.specs import spec

GENERATION = 7


def repaired(octets: bytes) -> bytes:
    """Make headers of whatever is there, so that what comes behind the checksum is reached."""
    made = bytearray(octets)
    at = 0
    while at + HEADER.size <= len(made):
        made[at : at + 3] = MAGIC + bytes((VERSION,))
        made[at + 3] %= len(FrameType) + 2
        length = int.from_bytes(made[at + 4 : at + 8], "big")
        if length > len(made) and made[at + 3] % 3:  # one in three stays too long
            length %= max(1, len(made) - at - HEADER.size + 1)
            made[at + 4 : at + 8] = length.to_bytes(4, "big")
        made[at + 24 : at + 28] = zlib.crc32(made[at : at + 24]).to_bytes(4, "big")
        at += HEADER.size + length
    return bytes(made)


def _decode(octets: bytes, step: int, *, may_bring_data: bool) -> tuple[list[Frame], str]:
    decoder = FrameDecoder(may_bring_data=may_bring_data)
    longest = MAX_DATA_BYTES if may_bring_data else MAX_CONTROL_BYTES
    limit = AHEAD_BYTES + HEADER.size + longest
    frames: list[Frame] = []
    try:
        for piece in pieces(octets, step):
            frames += decoder.feed(piece)
            held = len(decoder.wanted) + decoder.pending_bytes
            demand(held <= limit, f"{held} bytes are held for a frame")
    except StreamError as error:
        return frames, gist(error)
    used = sum(HEADER.size + len(frame.payload) for frame in frames)
    same("bytes that are held", decoder.pending_bytes, len(octets) - used)
    same("between frames", decoder.is_between_frames, used == len(octets))
    return frames, ""


def _run_frames(octets: bytes) -> Hashable:
    reader = Reader(octets)
    flags, step = reader.byte(), reader.byte()
    stream = repaired(reader.rest()) if flags & 1 else reader.rest()
    trusted = bool(flags & 2)
    frames, error = _decode(stream, 0, may_bring_data=trusted)
    if not error:  # else what came in the same piece before it is lost with the connection
        same("two splits", _decode(stream, step, may_bring_data=trusted), (frames, error))
    again = b"".join(
        encode(each.type, each.payload, generation=each.generation, epoch=each.epoch)
        for each in frames
    )
    same("frames encoded anew", again, stream[: len(again)])
    if not trusted:
        long = {FrameType.DATA, FrameType.DELTA} & {each.type for each in frames}
        demand(not long, "a stranger's data were let in")
    return tuple(sorted({each.type for each in frames})), error


class _Sender:
    """A connection on which all that ever comes is there already."""

    peer_address = "fuzz"

    def __init__(self, octets: bytes, step: int) -> None:
        self._rest = memoryview(octets)
        self._step = step or len(octets) or 1
        self.written = 0

    async def read_into(self, buffer: memoryview) -> int:
        count = min(len(buffer), self._step, len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def write(self, *parts: Buffer) -> None:
        self.written += sum(map(len, parts))

    async def finish(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def _listen(octets: bytes, step: int, *, is_trusted: bool) -> Hashable:
    connection = _Sender(octets, step)
    link = Link(connection, GENERATION)
    link._decoder.may_bring_data = is_trusted
    taken: list[Frame] = []

    async def take(frame: Frame) -> None:
        taken.append(frame)

    try:
        await link.listen(Report(spec(), lambda: None), take)
    except Ending as error:
        demand(bool(error.code) and error.code.isascii(), f"a code {error.code!r}")
        demand(str(error).isprintable(), f"words of the peer's that are not: {error!s:.200}")
        outcome = f"{error.state} {error.code if error.code.startswith('session') else 'peer'}"
    except PeerUnreachable as error:
        outcome = gist(error)
    demand(all(frame.generation == GENERATION for frame in taken), "another generation got through")
    return outcome, tuple(sorted({frame.type for frame in taken})), link.rtt_s >= 0


def _run_link(octets: bytes) -> Hashable:
    reader = Reader(octets)
    flags, step = reader.byte(), reader.byte()
    stream = bytearray(repaired(reader.rest()))
    at = 0
    while flags & 2 and at + HEADER.size <= len(stream):  # of the right generation
        stream[at + 8 : at + 16] = GENERATION.to_bytes(8, "big")
        stream[at + 24 : at + 28] = zlib.crc32(stream[at : at + 24]).to_bytes(4, "big")
        at += HEADER.size + int.from_bytes(stream[at + 4 : at + 8], "big")
    return finish(_listen(bytes(stream), step, is_trusted=bool(flags & 1)))


def _run_control(octets: bytes) -> Hashable:
    reader = Reader(octets)
    step, stream = reader.byte(), reader.rest()
    decoder = MessageDecoder(session_pb2.SessionCommand)
    found: list[session_pb2.SessionCommand] = []
    error = ""
    try:
        for piece in pieces(stream, step):
            found += decoder.feed(piece)
            held = len(decoder._pending)
            demand(held <= LENGTH_BYTES + MAX_MESSAGE_BYTES, f"{held} bytes are held")
    except SessionError as refusal:
        error = gist(refusal)
    for each in found:
        raw = encode_message(each)
        same("a command read anew", list(MessageDecoder(type(each)).feed(raw)), [each])
    return tuple(sorted({str(each.WhichOneof("command")) for each in found})), error


def some_frames(generation: int = GENERATION) -> Iterable[bytes]:
    """Yield one frame of each type."""
    bodies = {
        FrameType.SEAL: SEAL_BODY.pack(3, b"d"),
        FrameType.PING: PING_BODY.pack(1, 12345),
        FrameType.PONG: PING_BODY.pack(0, 12345),
        FrameType.ACK: b"",
        FrameType.CLOSE: b"released: told to",
        FrameType.ABORT: b"digest: epoch 3",
    }
    for kind in FrameType:
        yield encode(kind, bodies.get(kind, b"body"), generation=generation, epoch=3)


def _frame_seeds() -> Iterable[bytes]:
    frames = list(some_frames())
    yield b"\x02\x00" + b"".join(frames)
    yield b"\x00\x09" + b"".join(frames)
    yield from (b"\x01\x00" + frame for frame in frames)


def _link_seeds() -> Iterable[bytes]:
    yield from (bytes((flags, 5)) + each for each in some_frames() for flags in (2, 3))
    yield b"\x03\x00" + b"".join(some_frames())


def _control_seeds() -> Iterable[bytes]:
    command = session_pb2.SessionCommand
    for each in (
        command(id=1, generation=7, release=command.Release()),
        command(id=2, generation=7, hand_over=command.HandOver()),
        command(id=3, generation=7, export_image=command.ExportImage(id="a", path="/b")),
    ):
        yield b"\x03" + encode_message(each) * 2


def _frame_bound(size: int) -> int:
    """One frame, and the target's own copies."""
    return MAX_DATA_BYTES + MIB + 64 * size


assert spec().generation == GENERATION

FRAMES = Target(run=_run_frames, seeds=_frame_seeds, held_bytes=_frame_bound)
LINK = Target(run=_run_link, seeds=_link_seeds, held_bytes=_frame_bound)
CONTROL = Target(run=_run_control, seeds=_control_seeds)
