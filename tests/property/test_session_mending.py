"""A link that breaks wherever it may: xl gets exactly what libxl wrote, in order, once."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colod.errors import StreamError
from colod.session.replay import Replay
from tests.unit.mended_pair import DELTAS, linked
from tests.unit.session_samples import remus_stream

EPOCHS = 4
SAMPLE = remus_stream(EPOCHS)
STREAM = SAMPLE.data[: SAMPLE.seals[EPOCHS - 1]]

budgets = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 2000), st.integers(0, len(STREAM) * 2)),
        st.one_of(st.integers(0, 1500), st.integers(0, 20_000)),
    ),
    max_size=6,
)


@pytest.mark.parametrize("is_delta", [False, True], ids=["plain", "deltas"])
@pytest.mark.parametrize("paths", [1, 2])
@settings(max_examples=60, deadline=None)
@given(budgets=budgets, chunk_bytes=st.sampled_from([97, 1000, 9000, 1 << 20]))
async def test_wherever_connections_break_xl_gets_the_stream_in_order_and_once(
    is_delta: bool, paths: int, budgets: list[tuple[int, int]], chunk_bytes: int
) -> None:
    # The first connection lasts for the greeting: a pairing whose beginning fails begins anew.
    lasting = [(there + 2500, back + 2500) for there, back in budgets[:1]] + budgets[1:]
    terms = {"deltas": DELTAS} if is_delta else {}
    async with linked(lasting, paths=paths, **terms) as pair:
        pair.begin(STREAM, chunk_bytes)
        await pair.until(EPOCHS)
        assert bytes(pair.handed) == STREAM
        assert pair.acked == list(range(1, EPOCHS + 1))
        assert pair.sender is not None
        assert pair.sender.resuming is not None
        assert pair.sender.resuming.resumed <= len(pair.network.made) - 1


def _through(
    data: bytes,
    breaks: list[int],
    sizes: list[int],
    size: int,
    make: type[Replay] = Replay,
) -> bytes:
    """Bring `data` over connections that each break after so many bytes; return what came."""
    replay, came, put = make(size), bytearray(), 0
    connections = iter([*breaks, 1 << 30])
    left, is_dead = next(connections), False
    for step in range(10_000):
        if len(came) >= len(data):
            return bytes(came)
        count = min(sizes[step % len(sizes)], replay.room_bytes, len(data) - put)
        replay.put([data[put : put + count]])
        put += count
        piece = bytes(replay.next(sizes[(step + 1) % len(sizes)]))
        arrived = piece[:left]
        came += arrived
        left -= len(arrived)
        if len(arrived) == len(piece) and left:
            replay.sent(len(piece))
        elif piece and not is_dead:  # the kernel took it all the same
            replay.sent(len(piece))
            is_dead = True
        else:
            replay.rewind(len(came))
            left, is_dead = next(connections), False
        if step % 3 == 2:
            replay.confirm(len(came))
    raise AssertionError("it never came")


def test_two_breaks_at_every_pair_of_positions_lose_and_double_nothing() -> None:
    data = bytes(range(48))
    for first, second in product(range(49), range(49)):
        assert _through(data, [first, second], [5, 7, 3], 16) == data, (first, second)


@given(
    st.binary(max_size=300),
    st.lists(st.integers(0, 60), max_size=12),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(40, 90),
)
def test_breaks_after_any_amounts_lose_and_double_nothing(
    data: bytes, breaks: list[int], sizes: list[int], size: int
) -> None:
    assert _through(data, breaks, sizes, size) == data


@given(st.integers(0, 100), st.integers(0, 100), st.integers(-50, 200))
def test_a_position_that_cannot_be_is_never_taken(put: int, tried: int, position: int) -> None:
    replay = Replay(128)
    replay.put([bytes(put)])
    offered = len(replay.next(tried))
    if 0 <= position <= offered:
        replay.rewind(position)
        assert (replay.confirmed, replay.unsent_bytes) == (position, put - position)
    else:
        with pytest.raises(StreamError):
            replay.rewind(position)
        assert replay.confirmed == 0


class _SkipsAByte(Replay):
    def rewind(self, position: int) -> None:
        super().rewind(position)
        self._next = min(self._next + 1, self.written)


class _SendsAgainWhatHasCome(Replay):
    def rewind(self, position: int) -> None:
        before = self.confirmed
        super().rewind(position)
        self._next = before


class _GoesOnWhereItWas(Replay):
    def rewind(self, position: int) -> None:
        before = self._next
        super().rewind(position)
        self._next = before


class _ForgetsWhatWasSent(Replay):
    def sent(self, count: int) -> None:
        super().sent(count)
        self.confirmed = self._next


class _TakesNoteOfLess(Replay):
    def sent(self, count: int) -> None:
        super().sent(count - 1)


@pytest.mark.parametrize(
    "mutant",
    [_SkipsAByte, _SendsAgainWhatHasCome, _GoesOnWhereItWas, _ForgetsWhatWasSent, _TakesNoteOfLess],
)
def test_each_way_to_lose_or_double_something_is_found_out(mutant: type[Replay]) -> None:
    data = bytes(range(48))

    def is_sound(first: int, second: int) -> bool:
        try:
            return _through(data, [first, second], [5, 7, 3], 16, mutant) == data
        except (AssertionError, StreamError):
            return False

    assert not all(is_sound(first, second) for first, second in product(range(49), range(49)))
