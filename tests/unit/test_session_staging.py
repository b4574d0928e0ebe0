"""colod.session.staging."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.session.staging import Data, Sealed, Staging
from colod.stream.frames import MAX_DATA_BYTES

ALL = 1 << 40


def put(staging: Staging, epoch: int, data: bytes) -> None:
    """Put all of `data` in; there must be room."""
    rest = memoryview(data)
    while rest:
        room = staging.room(len(rest), ALL)
        assert len(room)
        room[:] = rest[: len(room)]
        staging.add(epoch, len(room))
        rest = rest[len(room) :]


def take(staging: Staging) -> tuple[int, bytes] | int | None:
    """Take the next piece out: an epoch and its bytes, or the number of one that is whole."""
    piece = staging.next()
    if piece is None:
        return None
    found = piece.epoch if isinstance(piece, Sealed) else (piece.epoch, bytes(piece.payload))
    staging.taken()
    return found


def test_what_goes_in_comes_out_in_order() -> None:
    staging = Staging(4096)
    put(staging, 1, b"one")
    staging.seal(1)
    put(staging, 2, b"two")
    assert [take(staging) for _ in range(4)] == [(1, b"one"), 1, (2, b"two"), None]


def test_no_more_is_ever_held_than_was_reserved() -> None:
    staging = Staging(4096)
    put(staging, 1, bytes(4096))
    assert len(staging.room(1, ALL)) == 0
    assert (staging.used_bytes, staging.peak_bytes) == (4096, 4096)
    take(staging)
    assert len(staging.room(5000, ALL)) == 4096


def test_a_lower_bound_holds_for_as_long_as_it_is_given() -> None:
    staging = Staging(4096)
    put(staging, 1, bytes(100))
    assert len(staging.room(500, 300)) == 200
    assert len(staging.room(500, 100)) == 0
    assert len(staging.room(500, ALL)) == 500


def test_no_piece_is_longer_than_a_frame_may_be() -> None:
    staging = Staging(3 << 20)
    put(staging, 1, bytes((2 << 20) + 5))
    sizes = []
    while isinstance(piece := staging.next(), Data):
        sizes.append(len(piece.payload))
        staging.taken()
    assert sizes == [MAX_DATA_BYTES, MAX_DATA_BYTES, 5]


def test_bytes_that_are_being_sent_stay_until_they_are_taken() -> None:
    staging = Staging(4096)
    put(staging, 1, b"abc")
    piece = staging.next()
    put(staging, 1, b"def")
    assert isinstance(piece, Data)
    assert bytes(piece.payload) == b"abc"
    assert staging.used_bytes == 6
    staging.taken()
    assert take(staging) == (1, b"def")
    assert staging.is_empty


def test_a_guest_that_sends_little_takes_little_memory() -> None:
    staging = Staging(64 << 20)
    for epoch in range(1, 100):
        room = staging.room(1000, ALL)
        assert int.from_bytes(room[:4], "big") == epoch - 1, "it is the place of the last epoch"
        room[:4] = epoch.to_bytes(4, "big")
        staging.add(epoch, 1000)
        take(staging)


@given(
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9)), max_size=60),
    st.integers(1, 8192),
)
def test_the_ring_keeps_every_byte_in_any_order_of_filling_and_emptying(
    steps: list[tuple[int, int]], size: int
) -> None:
    staging, given_in, came_out, epoch = Staging(size), bytearray(), bytearray(), 1
    for wanted, takes in steps:
        room = staging.room(wanted, ALL)
        data = os.urandom(len(room))
        if data:
            room[:] = data
            staging.add(epoch, len(data))
            given_in += data
        else:
            staging.seal(epoch)
            epoch += 1
        for _ in range(takes):
            piece = staging.next()
            if piece is None:
                break
            if isinstance(piece, Data):
                came_out += piece.payload
            staging.taken()
        assert staging.used_bytes == len(given_in) - len(came_out) <= size
    while (piece := staging.next()) is not None:
        if isinstance(piece, Data):
            came_out += piece.payload
        staging.taken()
    assert came_out == given_in


def test_more_memory_than_there_is_is_refused() -> None:
    with pytest.raises((OSError, OverflowError)):
        Staging(1 << 60)
