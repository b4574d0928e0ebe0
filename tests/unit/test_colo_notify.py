"""libxl's words on the notify socket, as libxl writes and reads them."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.errors import ColodError, PeerRefused, RecordTooLong, StreamTruncated
from colod.output.colo.notify import (
    CHECKPOINT,
    INIT,
    INIT_ANSWER,
    MAX_WORD_BYTES,
    REQUEST,
    NotifyReader,
    Word,
    encode_word,
)

_words = st.lists(st.sampled_from([CHECKPOINT, CHECKPOINT, b"", b"COLO_FAILOVER"]), max_size=8)


def test_the_words_are_on_the_wire_as_they_were_captured() -> None:
    assert encode_word(CHECKPOINT) == b"\0\0\0\x0fCOLO_CHECKPOINT"
    assert encode_word(REQUEST) == b"\0\0\0\x0dDO_CHECKPOINT"
    assert encode_word(INIT_ANSWER) == b"\0\0\0\x19COLO_COMPARE_GET_XEN_INIT"


def test_libxl_begins_and_then_tells_of_checkpoints() -> None:
    reader = NotifyReader()
    assert reader.feed(encode_word(INIT)) == [Word.INIT]
    assert reader.feed(encode_word(CHECKPOINT) * 2) == [Word.CHECKPOINT, Word.CHECKPOINT]


def test_a_checkpoint_of_somebody_who_did_not_begin_is_refused() -> None:
    with pytest.raises(PeerRefused, match="COLO_CHECKPOINT before COLO_USERSPACE_PROXY_INIT"):
        NotifyReader().feed(encode_word(CHECKPOINT))


def test_a_second_beginning_is_refused() -> None:
    reader = NotifyReader()
    reader.feed(encode_word(INIT))
    with pytest.raises(PeerRefused, match="twice"):
        reader.feed(encode_word(INIT))


def test_words_of_a_later_libxl_are_passed_over_and_counted() -> None:
    reader = NotifyReader()
    wire = encode_word(INIT) + encode_word(b"COLO_PROXY_RESET") + encode_word(CHECKPOINT)
    assert reader.feed(wire) == [Word.INIT, Word.CHECKPOINT]
    assert reader.unknown == 1


def test_a_hostile_length_is_told_with_its_place_before_its_bytes_come() -> None:
    reader = NotifyReader()
    reader.feed(encode_word(INIT))
    with pytest.raises(RecordTooLong, match="at most 1024") as caught:
        reader.feed((MAX_WORD_BYTES + 1).to_bytes(4, "big"))
    assert caught.value.offset == 4 + len(INIT)


def test_an_end_within_a_word_is_told() -> None:
    reader = NotifyReader()
    reader.feed(encode_word(INIT)[:-1])
    with pytest.raises(StreamTruncated):
        reader.end()


@given(texts=_words, cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_split_gives_the_same_words(texts: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(map(encode_word, [INIT, *texts]))
    at = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    reader = NotifyReader()
    words = [w for low, high in itertools.pairwise(at) for w in reader.feed(wire[low:high])]
    assert words == [Word.INIT] + [Word.CHECKPOINT] * texts.count(CHECKPOINT)
    assert reader.unknown == len(texts) - texts.count(CHECKPOINT)
    reader.end()


@given(garbage=st.binary(max_size=100))
def test_garbage_is_no_checkpoint(garbage: bytes) -> None:
    reader = NotifyReader()
    with contextlib.suppress(ColodError):
        assert reader.feed(garbage) == []
        reader.feed(garbage)
    assert len(reader._buffer) <= 2 * len(garbage)
