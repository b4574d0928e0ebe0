"""colod.stream.frames."""

import json
import zlib
from typing import Any

import pytest

from colod.errors import RecordTooLong, StreamError
from colod.stream.frames import (
    AHEAD_BYTES,
    HEADER,
    MAX_CONTROL_BYTES,
    MAX_DATA_BYTES,
    Challenge,
    Frame,
    FrameDecoder,
    FrameType,
    Hello,
    Welcome,
    decode_message,
    encode,
    encode_header,
    encode_message,
)

HELLO = Hello(guest="g", pairing="p", sender="a", receiver="b", generation=7, nonce="00")


def decode(data: bytes) -> list[Frame]:
    return list(FrameDecoder().feed(data))


def test_a_frame_comes_out_as_it_went_in() -> None:
    data = encode(FrameType.DATA, b"pages", generation=3, epoch=9)
    assert decode(data) == [Frame(FrameType.DATA, 3, 9, bytearray(b"pages"))]


def test_a_frame_without_payload_is_complete_with_its_header() -> None:
    data = encode(FrameType.ACK, generation=1, epoch=2)
    assert len(data) == HEADER.size
    assert decode(data) == [Frame(FrameType.ACK, 1, 2, bytearray())]


def test_the_payload_of_a_frame_is_not_overwritten_by_the_next_one() -> None:
    decoder = FrameDecoder()
    (first,) = decoder.feed(encode(FrameType.DATA, b"one", generation=1, epoch=1))
    list(decoder.feed(encode(FrameType.DATA, b"two", generation=1, epoch=1)))
    assert first.payload == b"one"


def test_an_unfinished_frame_is_told_from_a_finished_one() -> None:
    data = encode(FrameType.DATA, b"pages", generation=1, epoch=1)
    decoder = FrameDecoder()
    assert decoder.is_between_frames
    for size in range(1, len(data)):
        decoder = FrameDecoder()
        assert list(decoder.feed(data[:size])) == []
        assert not decoder.is_between_frames
        assert decoder.pending_bytes == size
    list(decoder.feed(data[-1:]))
    assert decoder.is_between_frames


def test_a_long_payload_is_received_where_it_stays_and_nothing_behind_it() -> None:
    decoder = FrameDecoder()
    assert len(decoder.wanted) == AHEAD_BYTES
    header = encode_header(FrameType.DATA, generation=1, epoch=1, payload_bytes=MAX_DATA_BYTES)
    assert list(decoder.feed(header + b"begin")) == []
    assert len(decoder.wanted) == MAX_DATA_BYTES - len(b"begin")
    list(decoder.feed(bytes(MAX_DATA_BYTES - len(b"begin") - AHEAD_BYTES)))
    assert len(decoder.wanted) == AHEAD_BYTES


def test_many_small_frames_are_received_at_one_go() -> None:
    data = b"".join(encode(FrameType.ACK, generation=1, epoch=each) for each in range(100))
    decoder = FrameDecoder()
    decoder.wanted[: len(data) - 1] = data[:-1]
    decoder.received(len(data) - 1)
    assert decoder.pending_bytes == len(data) - 1
    assert [frame.epoch for frame in iter(decoder.next, None)] == list(range(99))
    assert decoder.pending_bytes == HEADER.size - 1
    (last,) = decoder.feed(data[-1:])
    assert last.epoch == 99


@pytest.mark.parametrize("position", range(HEADER.size))
def test_any_damaged_byte_of_a_header_is_noticed(position: int) -> None:
    data = bytearray(encode(FrameType.ACK, generation=1, epoch=2))
    data[position] ^= 0x10
    with pytest.raises(StreamError):
        decode(bytes(data))


def _header(kind: int, length: int, version: int = 1) -> bytes:
    head = HEADER.pack(b"cF", version, kind, length, 1, 1, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (_header(FrameType.DATA, MAX_DATA_BYTES + 1), RecordTooLong),
        (_header(FrameType.HELLO, MAX_CONTROL_BYTES + 1), RecordTooLong),
        (_header(FrameType.DATA, 0), StreamError),
        (_header(FrameType.DELTA, MAX_DATA_BYTES + 1), RecordTooLong),
        (_header(FrameType.DELTA, 0), StreamError),
        (_header(FrameType.ACK, 1), StreamError),
        (_header(FrameType.SEAL, 39), StreamError),
        (_header(FrameType.PING, 8), StreamError),
        (_header(99, 0), StreamError),
        (_header(0, 0), StreamError),
        (_header(FrameType.ACK, 0, version=2), StreamError),
    ],
)
def test_a_header_that_no_frame_has_is_refused_before_its_payload(
    header: bytes, error: type[StreamError]
) -> None:
    with pytest.raises(error):
        decode(header)


def test_the_offset_of_an_error_is_that_of_its_frame() -> None:
    good = encode(FrameType.DATA, b"x" * 10, generation=1, epoch=1)
    with pytest.raises(StreamError) as caught:
        decode(good * 2 + b"\0" * HEADER.size)
    assert caught.value.offset == 2 * len(good)


def test_a_stranger_cannot_make_us_reserve_memory_for_data() -> None:
    decoder = FrameDecoder(may_bring_data=False)
    with pytest.raises(StreamError):
        list(decoder.feed(_header(FrameType.DATA, MAX_DATA_BYTES)))
    decoder = FrameDecoder(may_bring_data=False)
    with pytest.raises(StreamError, match="DELTA before"):
        list(decoder.feed(_header(FrameType.DELTA, MAX_DATA_BYTES)))


@pytest.mark.parametrize(
    "message",
    [
        Challenge(nonce="ab"),
        HELLO,
        Welcome(pairing="p", version=1, digest="sha256", capabilities=("x", "y"), proof="00"),
    ],
)
def test_a_message_comes_out_as_it_went_in(message: Challenge | Hello | Welcome) -> None:
    kind: type[Any] = type(message)
    assert decode_message(kind, encode_message(message)) == message


def test_fields_of_a_later_version_are_passed_over() -> None:
    fields = json.loads(encode_message(HELLO)) | {"later": [1, 2]}
    assert decode_message(Hello, json.dumps(fields).encode()) == HELLO


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": "7"},
        {"generation": True},
        {"generation": 7.0},
        {"guest": None},
        {"versions": 1},
        {"versions": ["1"]},
        {"versions": [True]},
        {"digests": "sha256"},
        {"proof": {}},
    ],
)
def test_a_field_of_the_wrong_type_is_refused(changes: dict[str, object]) -> None:
    fields = json.loads(encode_message(HELLO)) | changes
    with pytest.raises(StreamError, match=next(iter(changes))):
        decode_message(Hello, json.dumps(fields).encode())


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 5000, b'{"nonce": 1e999}', b"{}"]
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(StreamError):
        decode_message(Challenge, payload)
