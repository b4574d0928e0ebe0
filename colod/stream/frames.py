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
from dataclasses import dataclass
from enum import IntEnum

from colod.errors import RecordTooLong, StreamError

VERSION = 1
MAGIC = b"cF"
HEADER = struct.Struct(">2sBBIQQI")
MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
MAX_CONTROL_BYTES = 16 * 1024


class FrameType(IntEnum):
    """What a frame carries; the epoch field says of which epoch."""

    HELLO = 1
    """Sender's first frame: JSON `Hello`."""
    WELCOME = 2
    """Receiver's answer to a hello that it accepts: JSON `Welcome`."""
    DATA = 3
    """Bytes of libxl's stream; `epoch` is the epoch they belong to."""
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
    """Orderly end: UTF-8 reason. Nothing follows."""
    ABORT = 10
    """The replica or the stream is unusable: UTF-8 `code: reason`. Nothing follows."""


_BULK = frozenset({FrameType.DATA})
SEAL_BODY = struct.Struct(">Q32s")
PING_BODY = struct.Struct(">BQ")
DAEMON_UP = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; the payload is a view into the bytes that were fed or a copy of split ones."""

    type: FrameType
    generation: int
    epoch: int
    payload: bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who the sender is and what it speaks. `proof` shows knowledge of the pairing's secret."""

    guest: str
    pairing: str
    sender: str
    receiver: str
    generation: int
    versions: tuple[int, ...] = (VERSION,)
    digests: tuple[str, ...] = ("sha256",)
    capabilities: tuple[str, ...] = ()
    proof: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What the receiver chose of the hello's offers."""

    pairing: str
    version: int
    digest: str
    capabilities: tuple[str, ...] = ()
    proof: str = ""


def encode_header(kind: FrameType, *, generation: int, epoch: int, payload_bytes: int) -> bytes:
    """Return the header of a frame whose payload the caller sends after it, uncopied."""
    head = HEADER.pack(MAGIC, VERSION, kind, payload_bytes, generation, epoch, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "big")


def encode(kind: FrameType, payload: bytes = b"", *, generation: int, epoch: int = 0) -> bytes:
    """Return a whole small frame."""
    limit = MAX_PAYLOAD_BYTES if kind in _BULK else MAX_CONTROL_BYTES
    assert len(payload) <= limit, (kind, len(payload))
    head = encode_header(kind, generation=generation, epoch=epoch, payload_bytes=len(payload))
    return head + payload


class FrameDecoder:
    """Cuts received bytes into frames, whatever pieces they come in; holds at most one frame."""

    def __init__(self) -> None:
        """Start between frames."""
        self._pending = bytearray()
        self._offset = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of an incomplete frame that are held."""
        return len(self._pending)

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Yield each frame that `data` completes; exhaust it before the next call.

        Raises:
            StreamError: If the bytes are not frames of this version; the connection is lost.
        """
        self._pending += data
        position = 0
        try:
            while (frame := self._cut(position)) is not None:
                position += HEADER.size + len(frame.payload)
                yield frame
        finally:
            del self._pending[:position]
            self._offset += position

    def _cut(self, position: int) -> Frame | None:
        if len(self._pending) - position < HEADER.size:
            return None
        kind, length, generation, epoch = self._parse_header(position)
        begin = position + HEADER.size
        if len(self._pending) - begin < length:
            return None
        return Frame(kind, generation, epoch, bytes(self._pending[begin : begin + length]))

    def _parse_header(self, position: int) -> tuple[FrameType, int, int, int]:
        where = self._offset + position
        fields = HEADER.unpack_from(self._pending, position)
        magic, version, raw_kind, length, generation, epoch, checksum = fields
        if magic != MAGIC:
            raise StreamError("not a colod frame", offset=where)
        if version != VERSION:
            raise StreamError(f"frame version {version}, this side speaks {VERSION}", offset=where)
        if checksum != zlib.crc32(self._pending[position : position + HEADER.size - 4]):
            raise StreamError("frame header is damaged", offset=where)
        try:
            kind = FrameType(raw_kind)
        except ValueError:
            raise StreamError(f"unknown frame type {raw_kind}", offset=where) from None
        limit = MAX_PAYLOAD_BYTES if kind in _BULK else MAX_CONTROL_BYTES
        if length > limit:
            raise RecordTooLong(f"{kind.name} of {length} bytes, limit {limit}", offset=where)
        return kind, length, generation, epoch


def encode_json(message: Hello | Welcome) -> bytes:
    """Return the payload of a HELLO or WELCOME frame."""
    return json.dumps({n: getattr(message, n) for n in message.__dataclass_fields__}).encode()


def decode_hello(payload: bytes | memoryview) -> Hello:
    """Return the hello that `encode_json` made.

    Raises:
        StreamError: If it is not one.
    """
    return Hello(**_fields(payload, Hello))


def decode_welcome(payload: bytes | memoryview) -> Welcome:
    """Return the welcome that `encode_json` made.

    Raises:
        StreamError: If it is not one.
    """
    return Welcome(**_fields(payload, Welcome))


def _fields(payload: bytes | memoryview, kind: type[Hello | Welcome]) -> dict[str, object]:
    try:
        fields = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise StreamError(f"{kind.__name__} is not JSON: {error}", offset=0) from error
    if not isinstance(fields, dict):
        raise StreamError(f"{kind.__name__} is not an object", offset=0)
    wanted = {name: field.type for name, field in kind.__dataclass_fields__.items()}
    known = {name: value for name, value in fields.items() if name in wanted}
    for name, value in known.items():
        known[name] = _checked(name, str(wanted[name]), value)
    missing = [n for n in ("pairing",) if n not in known]
    required = {n for n, f in kind.__dataclass_fields__.items() if _is_required(f)}
    missing = sorted(required - known.keys())
    if missing:
        raise StreamError(f"{kind.__name__} lacks {', '.join(missing)}", offset=0)
    return known
