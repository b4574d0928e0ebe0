"""colod.session.sending."""

import json

import pytest
import xxhash

from colod.session.ending import Ending, State
from colod.session.sending import Seal, Sending, domain_pages
from colod.session.staging import Data
from colod.stream.frames import SEAL_BODY
from tests.unit.session_samples import epochs_of, remus_stream, send, sent
from tests.unit.stream_samples import Sample


@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096, 1 << 20])
def test_every_epoch_is_sent_whole_and_then_sealed(chunk_bytes: int) -> None:
    sample = remus_stream(3)
    pieces = sent(sample.data, chunk_bytes)
    for number, epoch in enumerate(epochs_of(sample), 1):
        own = [p for p in pieces if p.epoch == number]
        assert b"".join(bytes(p.payload) for p in own[:-1] if isinstance(p, Data)) == epoch
        digest = xxhash.xxh3_128_digest(epoch).ljust(32, b"\0")
        assert own[-1] == Seal(number, SEAL_BODY.pack(len(epoch), digest))


def test_no_data_spans_two_epochs() -> None:
    sample = remus_stream(4)
    kinds = [type(p) for p in sent(sample.data)]
    assert kinds == [Data, Seal] * 4


def test_nothing_is_sent_from_where_the_stream_is_wrong() -> None:
    sample = remus_stream(2)
    good = sample.data[: sample.seals[0]]
    sending = Sending()
    pieces = send(sending, good + b"\xff" * 64)
    assert b"".join(bytes(p.payload) for p in pieces if isinstance(p, Data)) == good
    assert sending.error is not None
    assert sending.error.offset == sample.seals[0]


def test_an_unfinished_epoch_is_sent_but_not_sealed() -> None:
    sample = remus_stream(2)
    pieces = sent(sample.data[:-1])
    assert [p.epoch for p in pieces if isinstance(p, Seal)] == [1]
    assert pieces[-1].epoch == 2


@pytest.mark.parametrize("epoch", [0, 3, 2**63])
def test_an_ack_of_an_epoch_that_was_not_sent_whole_ends_replication(epoch: int) -> None:
    sending = Sending()
    send(sending, remus_stream(2).data)
    with pytest.raises(Ending) as caught:
        sending.acknowledged(epoch, 1.0)
    assert caught.value.state is State.FAILED
    assert caught.value.code == "session.protocol"


def test_an_ack_comes_only_once() -> None:
    sending = Sending()
    send(sending, remus_stream(2).data)
    sending.acknowledged(1, 1.0)
    with pytest.raises(Ending):
        sending.acknowledged(1, 2.0)


def test_an_ack_is_for_all_epochs_before_it_too() -> None:
    sending = Sending()
    send(sending, remus_stream(3).data)
    sending.acknowledged(3, 1.0)
    assert sending.acked_epoch == 3
    assert sending.progress(1.0).unacked_bytes == 0


def _feed(sending: Sending, data: bytes, now: float) -> None:
    for piece in sending.feed(memoryview(data), now):
        if not isinstance(piece, Data):
            sending.seal(piece.epoch)


def test_an_ack_of_an_epoch_that_waits_to_be_sent_ends_replication() -> None:
    sending, data = Sending(), remus_stream(2).data
    list(sending.feed(memoryview(data), 0.0))
    sending.seal(1)
    sending.acknowledged(1, 1.0)
    with pytest.raises(Ending, match="with 1 sent"):
        sending.acknowledged(2, 1.0)


def test_lag_is_the_age_of_the_newest_acknowledged_state() -> None:
    sample, sending = remus_stream(2), Sending()
    first, second = epochs_of(sample)
    _feed(sending, first, 10.0)
    sending.acknowledged(1, 11.0)
    assert sending.progress(11.5).lag_s == -1, "when the guest stopped for it is not known"
    _feed(sending, second[:100], 20.0)
    _feed(sending, second[100:], 20.5)
    assert sending.progress(21.0).lag_s == -1
    sending.acknowledged(2, 21.0)
    assert sending.progress(23.0).lag_s == 3.0


def test_the_parts_of_an_epoch_are_timed() -> None:
    sample, sending = remus_stream(2), Sending()
    _feed(sending, sample.data[: sample.seals[0]], 1.0)
    begin, resume, end = sample.seals[0], sample.resumes[1], sample.seals[1]
    _feed(sending, sample.data[begin : begin + 1], 2.0)
    _feed(sending, sample.data[begin + 1 : resume], 2.25)
    _feed(sending, sample.data[resume:end], 2.5)
    sending.acknowledged(2, 3.0)
    progress = sending.progress(4.0)
    assert (progress.pause_s, progress.copy_s, progress.ack_wait_s) == (0.25, 0.5, 0.5)
    assert progress.epoch_bytes == end - begin
    assert progress.epoch_pages == 1
    assert progress.last_ack_age_s == 1.0
    assert (progress.sealed_epoch, progress.acked_epoch) == (2, 2)


def test_pages_are_booked_to_their_own_epoch() -> None:
    sample = Sample().headers().pages(3).state().seal().pages(2).state().seal()
    sending = Sending()
    send(sending, sample.data)
    sending.acknowledged(2, 0.0)
    progress = sending.progress(0.0)
    assert (progress.first_copy_pages, progress.epoch_pages) == (3, 2)


def test_nothing_is_claimed_before_anything_is_known() -> None:
    progress = Sending().progress(5.0)
    assert (progress.lag_s, progress.last_ack_age_s, progress.pause_s) == (-1, -1, -1)
    assert progress.unacked_bytes == 0


def test_the_domains_size_is_read_from_its_configuration() -> None:
    assert domain_pages(json.dumps({"b_info": {"max_memkb": 4096}}).encode()) == 1024


@pytest.mark.parametrize(
    "config", [b"", b"{", b"[]", b'{"b_info": 3}', b'{"b_info": {"max_memkb": "x"}}']
)
def test_a_configuration_that_does_not_say_its_size_is_no_error(config: bytes) -> None:
    assert domain_pages(config) == 0


def test_the_guest_waits_from_the_first_byte_of_a_checkpoint_until_it_may_resume() -> None:
    sample = remus_stream(3)
    sending = Sending()
    send(sending, sample.data[: sample.seals[0]])
    assert sending.progress(100.0).suspended_s is None
    begun = sample.data[sample.seals[0] : sample.seals[1] - 1]
    for _ in sending.feed(memoryview(begun[:64]), 100.0):
        pass
    assert sending.progress(107.0).suspended_s == 7.0
    for _ in sending.feed(memoryview(begun[64:]), 108.0):
        pass
    assert sending.progress(109.0).suspended_s is None
