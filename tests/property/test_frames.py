"""Frames: any split, any truncation, any garbage, bounded memory."""

import contextlib
import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from colod.errors import StreamError
from colod.stream.frames import (
    AHEAD_BYTES,
    MAX_CONTROL_BYTES,
    PING_BODY,
    SEAL_BODY,
    Frame,
    FrameDecoder,
    FrameType,
    Hello,
    decode_message,
    encode,
)

u64 = st.integers(0, 2**64 - 1)


def _payloads(kind: FrameType) -> st.SearchStrategy[bytes]:
    match kind:
        case FrameType.ACK | FrameType.RECEIVED:
            return st.just(b"")
        case FrameType.SEAL:
            return st.binary(min_size=SEAL_BODY.size, max_size=SEAL_BODY.size)
        case FrameType.PING | FrameType.PONG:
            return st.binary(min_size=PING_BODY.size, max_size=PING_BODY.size)
        case FrameType.DATA | FrameType.DELTA:
            return st.binary(min_size=1, max_size=3000)
    return st.binary(max_size=300)


frames = st.sampled_from(FrameType).flatmap(
    lambda kind: st.builds(Frame, st.just(kind), u64, u64, _payloads(kind).map(bytearray))
)


def encoded(frame: Frame) -> bytes:
    return encode(frame.type, frame.payload, generation=frame.generation, epoch=frame.epoch)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10**6), max_size=8))
def test_any_split_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(map(encoded, sent))
    decoder = FrameDecoder()
    got = [frame for piece in pieces(data, cuts) for frame in decoder.feed(piece)]
    assert got == sent
    assert decoder.is_between_frames


@given(st.lists(frames, min_size=1, max_size=4), st.integers(0, 10**6))
def test_a_truncated_stream_gives_the_whole_frames_before_the_cut(
    sent: list[Frame], cut: int
) -> None:
    sizes = [len(encoded(frame)) for frame in sent]
    cut %= sum(sizes) + 1
    decoder = FrameDecoder()
    got = list(decoder.feed(b"".join(map(encoded, sent))[:cut]))
    assert got == sent[: len(got)]
    assert decoder.is_between_frames == (sum(sizes[: len(got)]) == cut)


@given(st.lists(frames, max_size=3), st.binary(min_size=1, max_size=200))
def test_garbage_is_refused_and_the_frames_before_it_stand(
    sent: list[Frame], garbage: bytes
) -> None:
    decoder = FrameDecoder()
    got = []
    try:
        for frame in decoder.feed(b"".join(map(encoded, sent)) + garbage):
            got.append(frame)
    except StreamError:
        pass
    else:
        assert decoder.pending_bytes < 28, "a whole header of garbage was taken for one"
    assert got == sent


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
def test_a_stranger_costs_little_memory(data: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder(may_bring_data=False)
    try:
        for piece in pieces(data, cuts):
            for _ in decoder.feed(piece):
                pass
            assert len(decoder.wanted) <= AHEAD_BYTES
            assert decoder.pending_bytes <= MAX_CONTROL_BYTES + 28
    except StreamError:
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
hello_fields = st.sampled_from(["guest", "pairing", "generation", "nonce", "versions", "proof"])


@given(st.dictionaries(hello_fields | st.text(max_size=5), json_values) | json_values)
def test_any_json_is_a_hello_or_refused(value: object) -> None:
    with contextlib.suppress(StreamError):
        decode_message(Hello, json.dumps(value).encode())


@given(st.binary(max_size=100))
def test_any_bytes_are_a_hello_or_refused(payload: bytes) -> None:
    with contextlib.suppress(StreamError):
        decode_message(Hello, payload)
