"""colod.session.receiving."""

import pytest

from colod.session.ending import Ending
from colod.session.receiving import STREAMED_AHEAD_BYTES, Handing, Receiving
from colod.session.sending import Seal
from colod.session.staging import Data
from tests.unit.session_samples import contents, epochs_of, receive, remus_stream, seal_of, sent
from tests.unit.stream_samples import Sample, save_image

STAGING = 4 << 20


def has_room(receiving: Receiving) -> bool:
    return receiving.has_room


def run(receiving: Receiving, *pieces: Data | Seal) -> list[Handing]:
    return [handing for piece in pieces for handing in receive(receiving, piece)]


def fails(
    code: str, receiving: Receiving, *pieces: Data | Seal, handed: list[Handing] | None = None
) -> None:
    """Check that the pieces end replication with `code`; collect what xl had before."""

    def feed() -> None:
        for piece in pieces:
            found = receive(receiving, piece)
            if handed is not None:
                handed.extend(found)

    with pytest.raises(Ending) as caught:
        feed()
    assert caught.value.code == code


@pytest.mark.parametrize("chunk_bytes", [1, 5, 1000, 1 << 20])
def test_xl_gets_the_stream_unchanged_and_in_order(chunk_bytes: int) -> None:
    sample = remus_stream(3)
    handings = run(Receiving(STAGING), *sent(sample.data, chunk_bytes))
    assert b"".join(map(contents, handings)) == sample.data
    assert [h.epoch for h in handings if h.epoch] == [1, 2, 3]


@pytest.mark.parametrize("chunk_bytes", [1, 3, 8, 1 << 20])
def test_the_first_checkpoint_is_held_back_from_its_headers_first_byte(chunk_bytes: int) -> None:
    sample = remus_stream(1)
    *before, seal = sent(sample.data, chunk_bytes)
    receiving = Receiving(STAGING)
    streamed = run(receiving, *before)
    assert b"".join(map(contents, streamed)) == sample.data[: sample.resumes[0] - 8]
    assert not any(handing.needs_pause or handing.epoch for handing in streamed)
    (tail,) = run(receiving, seal)
    assert tail.needs_pause
    assert contents(tail) == sample.data[sample.resumes[0] - 8 :]


def test_only_the_first_epoch_waits_for_the_pause() -> None:
    handings = run(Receiving(STAGING), *sent(remus_stream(3).data))
    assert [h.needs_pause for h in handings if h.epoch] == [True, False, False]


def test_nothing_of_a_later_epoch_is_given_away_before_its_seal() -> None:
    pieces = sent(remus_stream(2).data, 512)
    receiving = Receiving(STAGING)
    first_seal = next(i for i, p in enumerate(pieces) if isinstance(p, Seal))
    run(receiving, *pieces[: first_seal + 1])
    assert run(receiving, *pieces[first_seal + 1 : -1]) == []
    (whole,) = run(receiving, pieces[-1])
    assert contents(whole) == epochs_of(remus_stream(2))[1]


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_that_does_not_match_its_seal_is_never_given_away(epoch: int) -> None:
    sample = remus_stream(2)
    data = bytearray(sample.data)
    data[sample.starts()[-6] + 40 if epoch == 2 else sample.starts()[9] + 40] ^= 1
    changed = sent(bytes(data))
    right = sent(sample.data)
    receiving = Receiving(STAGING)
    mixed = zip(changed, right, strict=True)
    pieces = [ours if isinstance(ours, Data) else theirs for ours, theirs in mixed]
    handed: list[Handing] = []
    fails("session.digest", receiving, *pieces, handed=handed)
    assert epoch not in [handing.epoch for handing in handed]


def test_a_seal_in_the_middle_of_an_epoch_is_refused() -> None:
    sample = remus_stream(1)
    data = sample.data[:-8]
    fails("session.protocol", Receiving(STAGING), Data(1, memoryview(data)), seal_of(1, data))


def test_a_seal_before_any_data_is_refused() -> None:
    fails("session.protocol", Receiving(STAGING), seal_of(1, b""))


def test_data_behind_the_end_of_its_epoch_is_refused() -> None:
    sample = remus_stream(2)
    fails("session.protocol", Receiving(STAGING), Data(1, memoryview(sample.data)))
    first = sample.data[: sample.seals[0]]
    rest = sample.data[sample.seals[0] :]
    pieces = (Data(1, memoryview(first)), Data(1, memoryview(rest)))
    fails("session.protocol", Receiving(STAGING), *pieces)


@pytest.mark.parametrize("epoch", [0, 2, 2**64 - 1])
def test_data_of_another_epoch_is_refused(epoch: int) -> None:
    data = remus_stream(1).data
    fails("session.protocol", Receiving(STAGING), Data(epoch, memoryview(data)))


def test_a_second_seal_is_refused() -> None:
    pieces = sent(remus_stream(1).data)
    fails("session.protocol", Receiving(STAGING), *pieces, pieces[-1])


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
def test_an_end_that_would_let_xl_start_the_copy_is_never_given_away(chunk_bytes: int) -> None:
    sample = save_image()
    ends = [r.offset for r in sample.records if r.type == 0]
    pieces = [
        Data(1, memoryview(sample.data)[begin : begin + chunk_bytes])
        for begin in range(0, sample.size, chunk_bytes)
    ]
    handed: list[Handing] = []
    fails("session.protocol", Receiving(STAGING), *pieces, handed=handed)
    assert len(b"".join(map(contents, handed))) <= ends[0]


def test_what_is_no_stream_is_refused() -> None:
    fails("stream.invalid", Receiving(STAGING), Data(1, memoryview(b"\0" * 100)))


def _long_epoch(pages: int) -> list[Data | Seal]:
    sample = remus_stream(1)
    for _ in range(pages // 100):
        sample.pages(100)
    return list(sent(sample.state().seal().data))


def test_an_epoch_longer_than_the_staging_memory_is_refused() -> None:
    fails("session.staging", Receiving(1 << 20), *_long_epoch(600))


def test_many_small_frames_are_bounded_by_what_they_really_take() -> None:
    sample = remus_stream(1)
    receiving = Receiving(1 << 20)
    run(receiving, *sent(sample.data))
    sample.pages(10)
    data = memoryview(sample.data)
    places = range(sample.seals[0], sample.size)
    fails("session.staging", receiving, *(Data(2, data[at : at + 1]) for at in places))


def test_a_long_first_copy_is_no_matter_of_staging() -> None:
    sample = Sample().headers()
    for _ in range(8):
        sample.pages(100)
    sample.state().seal()
    receiving = Receiving(1 << 20)
    for piece in sent(sample.data):
        for handing in receive(receiving, piece):
            receiving.handed(handing, 0.0)
    assert receiving.handed_epoch == 1
    assert receiving.staged_bytes == 0


def test_reading_pauses_while_xl_is_slow_and_goes_on_after() -> None:
    receiving = Receiving(STAGING)
    first, *rest = sent(Sample().headers().pages(8000).data)
    handings = run(receiving, first)
    for piece in rest:
        if not has_room(receiving):
            break
        handings += run(receiving, piece)
    assert not has_room(receiving)
    assert receiving.staged_bytes <= STREAMED_AHEAD_BYTES + (2 << 20)
    for handing in handings:
        receiving.handed(handing, 0.0)
    assert has_room(receiving)


def test_later_epochs_never_hold_more_than_the_staging_memory() -> None:
    sample = remus_stream(1)
    for _ in range(5):
        sample.pages(250).state().seal()
    receiving, handings = Receiving(3 << 20), []
    for piece in sent(sample.data):
        if not has_room(receiving):
            break
        handings += run(receiving, piece)
        assert receiving.staged_bytes <= 3 << 20
    assert not has_room(receiving)
    assert 1 < len(handings) < 6


def test_an_epoch_counts_only_once_xl_has_all_of_it() -> None:
    receiving = Receiving(STAGING)
    handings = run(receiving, *sent(remus_stream(2).data))
    for handing in handings[:-1]:
        receiving.handed(handing, 1.0)
    assert receiving.handed_epoch == 1
    receiving.handed(handings[-1], 2.0)
    assert receiving.handed_epoch == 2
    assert receiving.progress(3.0).last_ack_age_s == 1.0


def test_an_unfinished_epoch_leaves_nothing_behind() -> None:
    pieces = sent(remus_stream(2).data)
    receiving = Receiving(STAGING)
    for handing in run(receiving, *pieces[:-1]):
        receiving.handed(handing, 0.0)
    assert receiving.staged_bytes
    receiving.drop_unfinished()
    assert receiving.staged_bytes == 0
