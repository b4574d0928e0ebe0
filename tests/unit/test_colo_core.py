"""What the COLO proxy lets out before COLO, in it and after it, and where checkpoints cut."""

from __future__ import annotations

import pytest

from colod.errors import NotAllowedNow, PeerRefused
from colod.output.colo.core import Effects, Event, Phase, ProxyCore, ProxyOptions
from colod.output.colo.framing import Mark
from colod.output.compare.checkpoints import CheckpointOptions
from colod.output.compare.decisions import Reason
from colod.output.compare.limits import Limits
from tests.unit.compare_samples import udp

A, B, C = udp(b"a"), udp(b"b"), udp(b"c")
OPTIONS = ProxyOptions(checkpoints=CheckpointOptions(spacing_min_s=0.01))


class Proxy:
    """A proxy at a time that does not pass unless told."""

    def __init__(self, options: ProxyOptions = OPTIONS) -> None:
        self.core = ProxyCore(options)
        self.now = 100.0

    def primary(self, *frames: bytes) -> list[bytes]:
        return list(self.core.primary(frames, self.now).send)

    def secondary(self, *items: bytes | Mark) -> list[bytes]:
        return list(self.core.secondary(items, self.now).send)

    def is_cut_proved(self) -> bool:
        return self.core.is_cut_proved

    def committed(self) -> list[bytes]:
        return list(self.core.checkpoint_committed(self.now).send)

    def checkpoint(self) -> list[bytes]:
        """Cut both inputs, and make the checkpoint."""
        self.core.fence()
        return self.committed()

    def wait(self) -> Effects:
        deadline = self.core.next_deadline()
        assert deadline is not None
        self.now = deadline
        return self.core.on_deadline(self.now)


def comparing(options: ProxyOptions = OPTIONS) -> Proxy:
    """Return one right after a pairing's first checkpoint, cut as the options say."""
    proxy = Proxy(options)
    proxy.core.secondary_connected()
    proxy.core.begin()
    if options.has_marks:
        proxy.secondary(Mark(1))
        proxy.committed()
    else:
        proxy.checkpoint()
    return proxy


def test_options_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to assume where there are marks"):
        ProxyOptions(has_marks=True, are_cuts_assumed=True)
    with pytest.raises(ValueError, match="set_aside_bytes 0"):
        ProxyOptions(set_aside_bytes=0)


def test_before_colo_begins_everything_passes() -> None:
    proxy = Proxy()
    assert proxy.primary(A, B) == [A, B]
    proxy.core.begin()
    assert proxy.primary(C) == [C], "the first copy is under way: nothing is protected yet"
    assert proxy.secondary(A) == []
    assert proxy.core.next_deadline() is None


def test_the_first_checkpoint_begins_the_comparison() -> None:
    proxy = Proxy()
    proxy.core.begin()
    assert proxy.core.checkpoint_committed(proxy.now).events == (Event.BEGUN,)
    assert proxy.core.phase is Phase.COMPARING
    assert proxy.primary(A) == []


def test_what_both_say_passes_and_what_one_says_waits_for_a_checkpoint() -> None:
    proxy = comparing()
    assert proxy.primary(A, B) == []
    assert proxy.secondary(B) == [B]
    effects = proxy.wait()
    assert effects.request
    assert proxy.core.counts().requested == {Reason.UNMATCHED: 1}
    assert proxy.checkpoint() == [A]
    assert proxy.core.counts().made == {Reason.UNMATCHED: 1}


def test_a_checkpoint_is_asked_for_once() -> None:
    proxy = comparing()
    proxy.primary(A)
    assert proxy.wait().request
    proxy.primary(B)
    assert not proxy.core.ask(Reason.OPERATOR, proxy.now + 1).request


def test_a_checkpoint_that_does_not_come_is_told() -> None:
    proxy = comparing()
    assert proxy.core.ask(Reason.OPERATOR, proxy.now).request
    assert proxy.wait().events == (Event.OVERDUE,)
    assert proxy.core.counts().overdue == 1


def test_an_operators_checkpoint_means_nothing_where_nothing_is_compared() -> None:
    assert Proxy().core.ask(Reason.OPERATOR, 100.0) == Effects()


def test_frames_behind_a_fence_belong_to_the_time_after_the_checkpoint() -> None:
    proxy = comparing()
    proxy.primary(A)
    proxy.core.fence()
    assert proxy.primary(B) == []
    assert proxy.secondary(B, A) == [], "said by a secondary that has the new state already"
    assert proxy.committed() == [A, B], "A was sent before; B is matched by the new secondary's"


def test_without_a_proof_of_the_cut_the_secondary_proves_nothing() -> None:
    proxy = comparing()
    proxy.committed()
    proxy.primary(A)
    assert proxy.secondary(A) == []
    counts = proxy.core.counts()
    assert (counts.uncut, counts.stale_frames) == (1, 1)
    assert not proxy.is_cut_proved()
    assert proxy.checkpoint() == [A]
    assert proxy.is_cut_proved()
    proxy.primary(B)
    assert proxy.secondary(B) == [B], "the next one was cut"


def test_a_cut_may_be_assumed_but_is_not_called_proved() -> None:
    proxy = comparing(ProxyOptions(are_cuts_assumed=True))
    proxy.committed()
    proxy.primary(A)
    assert proxy.secondary(A) == [A]
    assert not proxy.is_cut_proved()
    assert proxy.core.counts().assumed == 1


def test_a_mark_before_the_checkpoint_sets_aside_what_follows_it() -> None:
    proxy = comparing(ProxyOptions(has_marks=True))
    proxy.primary(A, B)
    assert proxy.secondary(Mark(2), C, B) == []
    assert proxy.committed() == [A, B]
    assert proxy.primary(B, C) == [B, C], "set aside, and compared now"


def test_a_mark_after_the_checkpoint_makes_void_what_comes_before_it() -> None:
    proxy = comparing(ProxyOptions(has_marks=True))
    proxy.committed()
    assert proxy.primary(A) == []
    assert proxy.secondary(A) == [], "sent before the checkpoint"
    assert not proxy.is_cut_proved()
    assert proxy.secondary(Mark(2), A) == [A]
    assert proxy.is_cut_proved()


def test_a_fence_does_not_replace_marks() -> None:
    proxy = comparing(ProxyOptions(has_marks=True))
    proxy.checkpoint()
    proxy.primary(A)
    assert proxy.secondary(A) == []


def test_a_mark_that_goes_back_is_refused() -> None:
    proxy = comparing(ProxyOptions(has_marks=True))
    with pytest.raises(PeerRefused, match="mark 0 after mark 1"):
        proxy.secondary(Mark(0))


def test_marks_may_run_ahead_of_libxls_word_by_more_than_one() -> None:
    proxy = comparing(ProxyOptions(has_marks=True))
    proxy.secondary(Mark(2), A, Mark(3), B)
    proxy.committed()
    proxy.committed()
    assert proxy.primary(A, B) == [B]


def test_a_new_connection_of_the_secondary_proves_nothing_before_the_next_cut() -> None:
    proxy = comparing()
    proxy.core.secondary_connected()
    proxy.primary(A)
    assert proxy.secondary(A) == []
    assert proxy.checkpoint() == [A]
    proxy.primary(B)
    assert proxy.secondary(B) == [B]


def test_what_is_set_aside_is_bounded_and_losses_are_told_once_for_each_checkpoint() -> None:
    proxy = comparing(ProxyOptions(set_aside_bytes=200))
    proxy.core.fence()
    proxy.secondary(A)
    assert proxy.core.primary([B, C], proxy.now).events == (Event.LOST,)
    assert proxy.core.primary([C], proxy.now).events == ()
    proxy.secondary(B)
    counts = proxy.core.counts()
    assert (counts.held_frames, counts.lost_frames, counts.stale_frames) == (1, 3, 1)
    proxy.committed()
    proxy.core.fence()
    assert proxy.core.primary([B] * 2, proxy.now).events == (Event.LOST,)


def test_at_the_comparisons_bound_frames_are_lost_and_that_is_told() -> None:
    proxy = comparing(ProxyOptions(limits=Limits(held_frames=2)))
    assert proxy.core.primary([A, B], proxy.now).request
    assert proxy.core.primary([C], proxy.now).events == (Event.LOST,)
    assert proxy.core.counts().lost_frames == 1


def test_alone_everything_held_leaves_and_everything_passes() -> None:
    proxy = comparing()
    proxy.primary(A)
    proxy.core.fence()
    proxy.primary(B)
    assert list(proxy.core.owner_alone(proxy.now).send) == [A, B]
    assert proxy.core.phase is Phase.ALONE
    assert proxy.primary(C) == [C]
    assert proxy.core.next_deadline() is None


def test_the_word_of_a_libxl_whose_pairing_was_ended_closes_nothing() -> None:
    proxy = comparing()
    proxy.core.owner_alone(proxy.now)
    assert proxy.core.checkpoint_committed(proxy.now) == Effects()
    assert proxy.primary(A) == [A]


def test_another_pairing_begins_only_when_the_last_one_is_settled() -> None:
    proxy = comparing()
    with pytest.raises(NotAllowedNow, match="still serves another pairing"):
        proxy.core.begin()
    proxy.core.owner_alone(proxy.now)
    proxy.core.begin()
    assert proxy.primary(A) == [A]
    proxy.checkpoint()
    proxy.primary(A)
    assert proxy.secondary(A) == [A]


def test_a_fence_without_a_pairing_is_refused() -> None:
    with pytest.raises(NotAllowedNow):
        Proxy().core.fence()


def test_counts_go_on_over_pairings() -> None:
    proxy = comparing()
    proxy.primary(A)
    proxy.wait()
    proxy.checkpoint()
    before = proxy.core.counts()
    proxy.core.owner_alone(proxy.now)
    after = proxy.core.counts()
    assert before == after
    assert after.made == {Reason.UNMATCHED: 1}
    proxy.core.begin()
    proxy.checkpoint()
    assert proxy.core.counts().unasked == before.unasked + 1
