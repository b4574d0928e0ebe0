"""Whatever becomes of the frames on their way, xl gets only what its stream really was."""

from hypothesis import given, settings
from hypothesis import strategies as st

from colod.session.ending import Ending
from colod.session.receiving import PART_COST_BYTES, STREAMED_AHEAD_BYTES, Receiving
from colod.session.sending import Seal
from colod.session.staging import Data
from tests.unit.session_samples import contents, receive, remus_stream, sent

STAGING = 1 << 20
SAMPLE = remus_stream(3)

Pieces = list[Data | Seal]


def _drop(pieces: Pieces, at: int, _: int) -> None:
    del pieces[at]


def _repeat(pieces: Pieces, at: int, _: int) -> None:
    pieces.insert(at, pieces[at])


def _swap(pieces: Pieces, at: int, other: int) -> None:
    other %= len(pieces)
    pieces[at], pieces[other] = pieces[other], pieces[at]


def _flip(pieces: Pieces, at: int, where: int) -> None:
    piece = pieces[at]
    changed = bytearray(piece.payload if isinstance(piece, Data) else piece.body)
    changed[where % len(changed)] ^= 1 << where % 8
    pieces[at] = (
        Data(piece.epoch, memoryview(changed))
        if isinstance(piece, Data)
        else Seal(piece.epoch, bytes(changed))
    )


def _cut(pieces: Pieces, at: int, where: int) -> None:
    piece = pieces[at]
    if isinstance(piece, Data) and len(piece.payload) > 1:
        pieces[at] = Data(piece.epoch, piece.payload[: 1 + where % (len(piece.payload) - 1)])


def _renumber(pieces: Pieces, at: int, epoch: int) -> None:
    piece = pieces[at]
    if isinstance(piece, Data):
        pieces[at] = Data(epoch % 5, piece.payload)
    else:
        pieces[at] = Seal(epoch % 5, piece.body)


damages = st.tuples(
    st.sampled_from([_drop, _repeat, _swap, _flip, _cut, _renumber]),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)


@settings(max_examples=300)
@given(st.sampled_from([97, 1000, 9000, 1 << 20]), st.lists(damages, max_size=3))
def test_no_damage_on_the_way_brings_xl_an_epoch_that_is_not_whole_and_right(
    chunk_bytes: int, chosen: list[tuple[object, int, int]]
) -> None:
    pieces = sent(SAMPLE.data, chunk_bytes)
    for damage, at, where in chosen:
        if pieces:
            damage(pieces, at % len(pieces), where)  # type: ignore[operator]
    receiving, handed, epochs = Receiving(STAGING), [], []
    try:
        for piece in pieces:
            for handing in receive(receiving, piece):
                handed.append(contents(handing))
                epochs += [handing.epoch] if handing.epoch else []
                assert handing.epoch or not epochs, "only the first copy is streamed"
    except Ending:
        pass
    assert epochs == list(range(1, len(epochs) + 1))
    given_bytes = b"".join(handed)
    if epochs:
        assert given_bytes == SAMPLE.data[: SAMPLE.seals[epochs[-1] - 1]]
    else:
        # Of a first copy without its right tail xl has nothing that it could start.
        assert SAMPLE.data[SAMPLE.resumes[0] - 8 : SAMPLE.resumes[0]] not in [
            given_bytes[at : at + 8] for at in range(len(given_bytes) - 8, len(given_bytes) + 1)
        ]
        assert len(given_bytes) <= SAMPLE.size


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4), st.binary(min_size=1, max_size=200)), max_size=50))
def test_garbage_of_a_known_sender_brings_xl_nothing_and_costs_bounded_memory(
    garbage: list[tuple[int, bytes]],
) -> None:
    receiving = Receiving(STAGING)
    try:
        for epoch, payload in garbage:
            for handing in receive(receiving, Data(epoch, memoryview(payload))):
                assert not handing.epoch
            assert receiving.staged_bytes <= STREAMED_AHEAD_BYTES + STAGING + PART_COST_BYTES
            receive(receiving, Seal(epoch, bytes(40)))
    except Ending:
        pass
    assert receiving.handed_epoch == 0
