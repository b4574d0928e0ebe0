"""The frames that two sessions exchange over a transport: versioned, bounded, sans I/O.

A frame is a header of 28 bytes and a payload:

    magic "cF" | version u8 | type u8 | payload length u32 | generation u64 | epoch u64 | crc32 u32

all big-endian. The checksum covers the 24 bytes before it; payloads are covered by the digest of
the epoch's SEAL. A decoder that meets anything else raises and its connection is given up.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from enum import IntEnum
from typing import Any, Final, TypeVar

from colod.errors import RecordTooLong, StreamError

VERSION: Final = 1
MAGIC: Final = b"cF"
HEADER: Final = struct.Struct(">2sBBIQQI")
MAX_DATA_BYTES: Final = 1 << 20
"""Longest payload of a DATA or DELTA frame."""
MAX_CONTROL_BYTES: Final = 16 << 10
"""Longest payload of every other frame."""
AHEAD_BYTES: Final = 64 << 10
"""What a decoder may receive at one go without knowing what it is; longer than any short frame."""

Buffer = bytes | bytearray | memoryview


class FrameType(IntEnum):
    """What a frame carries; the epoch field says of which epoch."""

    HELLO = 1
    """Sender's first frame, in answer to CHALLENGE: JSON `Hello`."""
    WELCOME = 2
    """Receiver's answer to a hello that it accepts: JSON `Welcome`."""
    DATA = 3
    """Bytes of libxl's stream, all of one epoch."""
    SEAL = 4
    """The epoch is whole: length u64 and digest of all its DATA."""
    ACK = 5
    """The epoch and all before it will survive the primary."""
    RETURN = 6
    """Bytes of the return channel, receiver's xl to sender's xl."""
    PING = 7
    """Sign of life: flags u8 (bit 0: my daemon is up) and an opaque u64 to be returned."""
    PONG = 8
    """Answer to PING with its own flags and the same u64."""
    CLOSE = 9
    """Orderly end: UTF-8 `code: reason`. Nothing but ACKs of what came before follows."""
    ABORT = 10
    """The replica or the stream is unusable: UTF-8 `code: reason`. Nothing follows."""
    CHALLENGE = 11
    """Receiver's first frame: JSON `Challenge`."""
    DELTA = 12
    """Instead of DATA, where both agreed: blocks of `colod.stream.delta`, all of one epoch."""
    RECEIVED = 13
    """Where both agreed to mend a broken link: the epoch field counts the bytes that have come."""
    OUTPUT = 14
    """In COLO, receiver to sender: bytes of the relay's stream, what the secondary's copy says."""
    INPUT = 15
    """In COLO, sender to receiver: whole frames for the secondary's copy, as QEMU's filters have
    them."""


SEAL_BODY: Final = struct.Struct(">Q32s")
PING_BODY: Final = struct.Struct(">BQ")
DAEMON_UP: Final = 1

_LONG: Final = frozenset({FrameType.DATA, FrameType.DELTA})
_FIXED_BYTES: Final = {
    FrameType.SEAL: SEAL_BODY.size,
    FrameType.ACK: 0,
    FrameType.RECEIVED: 0,
    FrameType.PING: PING_BODY.size,
    FrameType.PONG: PING_BODY.size,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; its payload is a buffer of its own that nothing else writes to."""

    type: FrameType
    generation: int
    epoch: int
    payload: bytearray


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What makes a recorded hello useless: it proves knowledge of the secret for this nonce."""

    nonce: str
    versions: tuple[int, ...] = (VERSION,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who the sender is and what it speaks. `proof` shows knowledge of the pairing's secret."""

    guest: str
    pairing: str
    sender: str
    receiver: str
    generation: int
    nonce: str
    versions: tuple[int, ...] = (VERSION,)
    digests: tuple[str, ...] = ("sha256",)
    capabilities: tuple[str, ...] = ()
    proof: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What the receiver chose of the hello's offers, and its own proof."""

    pairing: str
    version: int
    digest: str
    capabilities: tuple[str, ...] = ()
    proof: str = ""


Message = Challenge | Hello | Welcome
M = TypeVar("M", Challenge, Hello, Welcome)


def encode_header(kind: FrameType, *, generation: int, epoch: int, payload_bytes: int) -> bytes:
    """Return the header of a frame whose payload the caller sends after it, uncopied."""
    head = HEADER.pack(MAGIC, VERSION, kind, payload_bytes, generation, epoch, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "big")


def encode(kind: FrameType, payload: Buffer = b"", *, generation: int, epoch: int = 0) -> bytes:
    """Return a whole small frame."""
    assert len(payload) <= _limit(kind), (kind, len(payload))
    head = encode_header(kind, generation=generation, epoch=epoch, payload_bytes=len(payload))
    return head + payload


class FrameDecoder:
    """Cuts received bytes into frames, whatever pieces they come in.

    Write up to `len(wanted)` bytes into `wanted`, call `received` with how many those were, then
    take frames with `next` until there is none. Long payloads are received into the place where
    they stay; all else goes through a buffer of AHEAD_BYTES, so that many small frames take one
    call. At most one frame and that buffer are held.
    """

    def __init__(self, *, may_bring_data: bool = True) -> None:
        """Stand between frames.

        Args:
            may_bring_data: Whether DATA and DELTA frames are let in, the only long ones. Until the
                other side has proved who it is they are not: a stranger can cost no memory.
        """
        self.may_bring_data = may_bring_data
        self._ahead = memoryview(bytearray(AHEAD_BYTES))
        self._begin = 0
        self._end = 0
        self._payload = bytearray()
        self._fields: tuple[FrameType, int, int] | None = None
        self._filled = 0
        self._offset = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether no frame is begun and unfinished: the only place where a stream may end."""
        return self._fields is None and self._begin == self._end

    @property
    def pending_bytes(self) -> int:
        """Bytes of frames that `next` has not returned."""
        return self._filled + (HEADER.size if self._fields else 0) + self._end - self._begin

    @property
    def wanted(self) -> memoryview:
        """Where the next bytes belong, once `next` has returned None; never empty."""
        if self._goes_straight:
            return memoryview(self._payload)[self._filled :]
        return self._ahead[self._end :]

    @property
    def lacking_bytes(self) -> int:
        """Fewest bytes that complete what is begun, once `next` has returned None.

        Who receives no more than that has nothing of what comes behind the frame.
        """
        if self._fields is None:
            return HEADER.size - (self._end - self._begin)
        return len(self._payload) - self._filled

    @property
    def _goes_straight(self) -> bool:
        """Whether the next bytes go into the payload, which lacks more than the buffer holds."""
        return len(self._payload) - self._filled > AHEAD_BYTES

    def received(self, count: int) -> None:
        """Take note of `count` bytes put into `wanted`."""
        if self._goes_straight:
            self._filled += count
        else:
            self._end += count

    def next(self) -> Frame | None:
        """Return the next frame that is complete.

        Raises:
            StreamError: If the bytes are not frames of this version; the connection is lost.
        """
        if self._fields is None:
            if self._end - self._begin < HEADER.size:
                self._close_up()
                return None
            self._begin_payload()
        assert self._fields is not None
        self._fill()
        if self._filled < len(self._payload):
            self._close_up()
            return None
        kind, generation, epoch = self._fields
        frame = Frame(kind, generation, epoch, self._payload)
        self._offset += HEADER.size + len(self._payload)
        self._fields, self._payload, self._filled = None, bytearray(), 0
        return frame

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """Yield each frame that `data` completes; for those who have bytes instead of a socket.

        Raises:
            StreamError: As `next` does.
        """
        rest = memoryview(data)
        while rest:
            place = self.wanted
            count = min(len(place), len(rest))
            place[:count] = rest[:count]
            rest = rest[count:]
            self.received(count)
            while frame := self.next():
                yield frame

    def _fill(self) -> None:
        """Move what is there of the payload to its place."""
        count = min(len(self._payload) - self._filled, self._end - self._begin)
        if count:
            part = self._ahead[self._begin : self._begin + count]
            self._payload[self._filled : self._filled + count] = part
            self._filled += count
            self._begin += count

    def _close_up(self) -> None:
        """Move the few bytes that are left to the buffer's beginning."""
        count = self._end - self._begin
        if self._begin:
            self._ahead[:count] = bytes(self._ahead[self._begin : self._end])
            self._begin, self._end = 0, count

    def _begin_payload(self) -> None:
        kind, length, generation, epoch = self._parse_header()
        self._check_length(kind, length)
        self._fields = (kind, generation, epoch)
        self._payload = bytearray(length)
        self._filled = 0
        self._begin += HEADER.size

    def _parse_header(self) -> tuple[FrameType, int, int, int]:
        magic, version, raw_kind, length, generation, epoch, checksum = HEADER.unpack_from(
            self._ahead, self._begin
        )
        if magic != MAGIC:
            raise StreamError("not a colod frame", offset=self._offset)
        if checksum != zlib.crc32(self._ahead[self._begin : self._begin + HEADER.size - 4]):
            raise StreamError("frame header is damaged", offset=self._offset)
        if version != VERSION:
            message = f"frame version {version}, this side speaks {VERSION}"
            raise StreamError(message, offset=self._offset)
        try:
            kind = FrameType(raw_kind)
        except ValueError:
            raise StreamError(f"unknown frame type {raw_kind}", offset=self._offset) from None
        return kind, length, generation, epoch

    def _check_length(self, kind: FrameType, length: int) -> None:
        if kind in _LONG and not self.may_bring_data:
            raise StreamError(f"{kind.name} before the hello was accepted", offset=self._offset)
        if length > _limit(kind):
            message = f"{kind.name} of {length} bytes, limit {_limit(kind)}"
            raise RecordTooLong(message, offset=self._offset)
        if length != _FIXED_BYTES.get(kind, length) or (kind in _LONG and not length):
            raise StreamError(f"{kind.name} cannot have {length} bytes", offset=self._offset)


def _limit(kind: FrameType) -> int:
    return MAX_DATA_BYTES if kind in _LONG else MAX_CONTROL_BYTES


def encode_message(message: Message) -> bytes:
    """Return the payload of a CHALLENGE, HELLO or WELCOME frame."""
    return json.dumps(asdict(message)).encode()


def decode_message(kind: type[M], payload: Buffer) -> M:
    """Return the message that `encode_message` made; fields of a later version are passed over.

    Raises:
        StreamError: If it is not one.
    """
    try:
        given = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise StreamError(f"{kind.__name__} is not JSON", offset=0) from error
    if not isinstance(given, dict):
        raise StreamError(f"{kind.__name__} is not an object", offset=0)
    return kind(**_known_fields(kind, given))


def _known_fields(kind: type[Message], given: dict[str, object]) -> dict[str, Any]:
    known: dict[str, object] = {}
    for field in fields(kind):
        if field.name in given:
            known[field.name] = _checked(kind, field.name, str(field.type), given[field.name])
        elif field.default is MISSING:
            raise StreamError(f"{kind.__name__} lacks {field.name}", offset=0)
    return known


_TYPES: Final[dict[str, type]] = {"str": str, "int": int}


def _checked(kind: type[Message], name: str, wanted: str, value: object) -> object:
    """Return `value` as the annotation `wanted` has it; JSON's lists become tuples."""
    item = wanted.removeprefix("tuple[").removesuffix(", ...]")
    items = value if item != wanted else [value]
    if not isinstance(items, list) or any(type(part) is not _TYPES[item] for part in items):
        raise StreamError(f"{kind.__name__}.{name} is no {wanted}", offset=0)
    return tuple(items) if item != wanted else value
