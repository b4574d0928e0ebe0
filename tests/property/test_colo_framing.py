"""QEMU's framing: any split, any truncation, any garbage."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.errors import RecordTooLong, StreamError, StreamTruncated
from colod.output.colo.framing import (
    MAX_FRAME_BYTES,
    Framed,
    FrameReader,
    Mark,
    encode_frames,
    encode_mark,
)

_headers = st.none() | st.binary(max_size=12)
_items = st.lists(st.binary(min_size=1, max_size=300) | st.integers(0, 2**64 - 1), max_size=12)
_cuts = st.lists(st.integers(0, 4000), max_size=12)
_LONGEST_KEPT = 8 + MAX_FRAME_BYTES


def wire_of(items: list[bytes | int], header: bytes | None) -> bytes:
    return b"".join(
        encode_mark(each) if isinstance(each, int) else encode_frames([each], header)
        for each in items
    )


def expected(items: list[bytes | int], header: bytes | None) -> list[Framed | Mark]:
    return [Mark(i) if isinstance(i, int) else Framed(i, header or b"") for i in items]


def pieces(wire: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    return [wire[low:high] for low, high in itertools.pairwise(at)]


def cut_off_at(reader: FrameReader) -> int | None:
    """Return where the frame begins in which the stream ends, None if it ends between frames."""
    try:
        reader.end()
    except StreamTruncated as error:
        return error.offset
    return None


def reader_for(header: bytes | None) -> FrameReader:
    return FrameReader(has_headers=header is not None, has_marks=True)


@given(items=_items, header=_headers, cuts=_cuts)
def test_any_split_gives_the_same_frames(
    items: list[bytes | int], header: bytes | None, cuts: list[int]
) -> None:
    wire = wire_of(items, header)
    reader = reader_for(header)
    assert [found for piece in pieces(wire, cuts) for found in reader.feed(piece)] == expected(
        items, header
    )
    reader.end()


@given(items=_items, header=_headers, kept=st.integers(0, 4000))
def test_a_truncated_stream_gives_its_whole_frames_and_tells(
    items: list[bytes | int], header: bytes | None, kept: int
) -> None:
    wire = wire_of(items, header)
    reader = reader_for(header)
    found = reader.feed(wire[:kept])
    assert found == expected(items, header)[: len(found)]
    whole = len(wire_of(items[: len(found)], header))
    assert whole <= min(kept, len(wire)), "nothing is made of bytes that have not come"
    assert cut_off_at(reader) == (whole if whole < min(kept, len(wire)) else None)


@given(garbage=st.binary(max_size=200), has_headers=st.booleans(), cuts=_cuts)
def test_garbage_is_an_error_with_a_place_or_frames_and_little_is_kept(
    garbage: bytes, has_headers: bool, cuts: list[int]
) -> None:
    reader = FrameReader(has_headers=has_headers)
    taken = 0
    with contextlib.suppress(StreamError):
        for piece in pieces(garbage, cuts):
            taken += sum(len(each.frame) for each in reader.feed(piece) if isinstance(each, Framed))
        offset = cut_off_at(reader)
        assert offset is None or taken <= offset < len(garbage)
    assert len(reader._buffer) <= max(_LONGEST_KEPT, len(garbage))


@given(
    length=st.integers(MAX_FRAME_BYTES + 1, 2**32 - 1), frames=st.lists(st.just(b"x"), max_size=3)
)
def test_a_hostile_length_is_told_with_its_place_before_its_bytes_come(
    length: int, frames: list[bytes]
) -> None:
    before = encode_frames(frames)
    for size in range(4):
        reader = FrameReader()
        reader.feed((before + length.to_bytes(4, "big"))[: len(before) + size])
        with pytest.raises(RecordTooLong) as caught:
            reader.feed(length.to_bytes(4, "big")[size:])
        assert caught.value.offset == len(before)
