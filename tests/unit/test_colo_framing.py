"""QEMU's framing of frames on a stream, byte by byte."""

from __future__ import annotations

import pytest

from colod.errors import RecordTooLong, StreamError, StreamTruncated
from colod.output.colo.framing import (
    MAX_FRAME_BYTES,
    Framed,
    FrameReader,
    Mark,
    encode_frames,
    encode_mark,
)


def test_a_frame_goes_behind_its_length() -> None:
    assert encode_frames([b"abc", b"d"]) == b"\0\0\0\3abc\0\0\0\1d"
    assert FrameReader().feed(b"\0\0\0\3abc\0\0\0\1d") == [Framed(b"abc", b""), Framed(b"d", b"")]


def test_the_length_counts_the_vnet_header() -> None:
    wire = b"\0\0\0\5" + b"\0\0\0\2" + b"hhabc"
    assert encode_frames([b"abc"], b"hh") == wire
    assert FrameReader(has_headers=True).feed(wire) == [Framed(b"abc", b"hh")]


def test_a_network_without_vnet_headers_says_so_in_each_frame() -> None:
    wire = b"\0\0\0\3" + b"\0\0\0\0" + b"abc"
    assert encode_frames([b"abc"], b"") == wire
    assert FrameReader(has_headers=True).feed(wire) == [Framed(b"abc", b"")]


def test_the_longest_frame_that_qemu_takes_is_taken() -> None:
    frame = bytes(MAX_FRAME_BYTES)
    assert FrameReader().feed(encode_frames([frame])) == [Framed(frame, b"")]


def test_a_longer_one_is_refused_by_its_length_alone() -> None:
    reader = FrameReader()
    reader.feed(encode_frames([b"abc"]))
    with pytest.raises(RecordTooLong, match="69632 bytes, at most 69631") as caught:
        reader.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    assert caught.value.offset == 7


def test_a_header_longer_than_its_frame_is_refused() -> None:
    with pytest.raises(StreamError, match="vnet header of 4 bytes in a frame of 3") as caught:
        FrameReader(has_headers=True).feed(b"\0\0\0\3" + b"\0\0\0\4")
    assert caught.value.offset == 0


def test_a_mark_stands_between_frames_where_marks_may_be() -> None:
    wire = encode_frames([b"a"]) + encode_mark(7) + encode_frames([b"b"])
    items = [Framed(b"a", b""), Mark(7), Framed(b"b", b"")]
    assert FrameReader(has_marks=True).feed(wire) == items


def test_where_no_marks_may_be_an_empty_frame_is_refused() -> None:
    with pytest.raises(StreamError, match="frame of 0 bytes"):
        FrameReader().feed(encode_mark(7))


@pytest.mark.parametrize("kept", [1, 4, 6])
def test_an_end_within_a_frame_is_told(kept: int) -> None:
    reader = FrameReader()
    reader.feed(encode_frames([b"ab", b"abc"])[: 6 + kept])
    with pytest.raises(StreamTruncated) as caught:
        reader.end()
    assert caught.value.offset == 6


def test_an_end_between_frames_is_none_of_our_business() -> None:
    reader = FrameReader()
    reader.feed(encode_frames([b"ab"]))
    reader.end()
