"""The gate closes once, releases by acknowledged epochs, and opens only for a sole owner."""

from __future__ import annotations

import pytest

from colod.errors import InvariantBroken
from colod.output.gate import (
    LOCK_STEP_BYTES,
    LOCKED_READ_BYTES,
    Do,
    Effect,
    Effects,
    Gate,
    Lock,
    Phase,
    Skip,
)

LONG = LOCK_STEP_BYTES + 1
WIDEN = Effect(Do.WIDEN_PIPE)


class Driven:
    """A gate whose events are told in the order in which a session tells them."""

    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate or Gate()

    def take(self, change: tuple[Gate, Effects]) -> Effects:
        self.gate, effects = change
        return effects

    def resume(self, epoch: int, *, shrinks: bool = True, size: int = LONG) -> None:
        """See CHECKPOINT and CHECKPOINT_END of `epoch`; go on to read."""
        (shrink,) = self.take(self.gate.may_resume(epoch, size))
        assert shrink == Effect(Do.SHRINK_PIPE, epoch + 1)
        self.take(self.gate.done(shrink) if shrinks else self.gate.failed(shrink, "EBUSY"))
        self.take(self.gate.sealed_whole(epoch))
        self.take(self.gate.reading())

    def begin(self, epoch: int) -> Effects:
        return self.take(self.gate.checkpoint_begun(epoch))

    def window(self, epoch: int, do: Do) -> None:
        """Go through a certain window."""
        assert self.begin(epoch) == (Effect(do, epoch),)
        assert self.gate.read_limit_bytes == 0
        assert self.take(self.gate.done(Effect(do, epoch))) == (WIDEN,)
        assert self.gate.read_limit_bytes is None

    def ack(self, epoch: int) -> Effects:
        return self.take(self.gate.acknowledged(epoch))


def closed() -> Driven:
    """Return a gate that closed in the window of checkpoint 2 and was acknowledged."""
    driven = Driven()
    driven.resume(1)
    driven.ack(1)
    driven.window(2, Do.CLOSE)
    driven.resume(2)
    driven.ack(2)
    return driven


def test_the_gate_closes_in_the_window_of_checkpoint_two() -> None:
    driven = Driven()
    driven.resume(1)
    assert not driven.gate.is_closed
    driven.window(2, Do.CLOSE)
    assert driven.gate.phase is Phase.HOLDING
    assert driven.gate.is_closed


def test_protection_begins_with_the_acknowledgement_of_checkpoint_two() -> None:
    driven = Driven()
    driven.resume(1)
    driven.ack(1)
    driven.window(2, Do.CLOSE)
    driven.resume(2)
    assert not driven.gate.is_protected
    assert driven.ack(2) == (), "no barrier stands in a plug that began with this window"
    assert driven.gate.is_protected


def test_an_acknowledged_epoch_is_released_up_to_its_barrier() -> None:
    driven = closed()
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3)
    assert driven.ack(3) == (Effect(Do.RELEASE_ONE, 3),)
    driven.take(driven.gate.done(Effect(Do.RELEASE_ONE, 3)))
    assert driven.gate.released == 3


def test_a_checkpoint_skips_its_barrier_while_one_waits() -> None:
    driven = closed()
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3)
    assert driven.begin(4) == (Effect(Do.NOTE_SKIPPED, 4, Skip.UNACKNOWLEDGED), WIDEN)
    assert driven.gate.read_limit_bytes is None
    driven.resume(4)
    assert driven.ack(3) == (Effect(Do.RELEASE_ONE, 3),)
    assert driven.ack(4) == (), "what epoch 4 made waits for the barrier of epoch 5"
    driven.window(5, Do.SET_BARRIER)
    driven.resume(5)
    assert driven.ack(5) == (Effect(Do.RELEASE_ONE, 5),)


def test_an_acknowledgement_of_a_later_epoch_releases_an_earlier_barrier() -> None:
    driven = closed()
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3)
    driven.begin(4)
    driven.resume(4)
    assert driven.ack(4) == (Effect(Do.RELEASE_ONE, 3),)


def test_a_pipe_that_did_not_shrink_makes_the_window_uncertain() -> None:
    driven = closed()
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3, shrinks=False)
    driven.ack(3)
    assert driven.begin(4) == (Effect(Do.NOTE_SKIPPED, 4, Skip.NOT_LOCKED), WIDEN)
    assert driven.gate.is_protected, "held longer is still held"


def test_what_was_read_before_the_shrink_is_no_lock_step() -> None:
    driven = Driven()
    (shrink,) = driven.take(driven.gate.may_resume(1, LONG))
    driven.take(driven.gate.done(shrink))
    driven.take(driven.gate.sealed_whole(1))
    assert driven.begin(2) == (Effect(Do.NOTE_SKIPPED, 2, Skip.NOT_LOCKED), WIDEN)
    assert not driven.gate.is_closed


def test_an_uncertain_window_closes_nothing_and_the_next_one_does() -> None:
    driven = Driven()
    driven.resume(1, shrinks=False)
    driven.begin(2)
    driven.resume(2)
    driven.ack(2)
    assert not driven.gate.is_protected
    driven.window(3, Do.CLOSE)
    driven.resume(3)
    driven.ack(3)
    assert driven.gate.is_protected


def test_little_is_read_from_a_shrunk_pipe() -> None:
    driven = Driven()
    assert driven.gate.read_limit_bytes is None
    driven.resume(1)
    assert driven.gate.read_limit_bytes == LOCKED_READ_BYTES


def test_reading_on_in_the_window_is_a_defect() -> None:
    driven = Driven()
    driven.resume(1)
    driven.begin(2)
    with pytest.raises(InvariantBroken):
        driven.gate.reading()


def test_a_shrink_that_is_reported_late_proves_nothing() -> None:
    driven = Driven()
    (shrink,) = driven.take(driven.gate.may_resume(1, LONG))
    driven.take(driven.gate.reading())
    driven.begin(2)
    driven.take(driven.gate.done(shrink))
    assert driven.gate.lock is Lock.FREE


def test_a_short_checkpoint_moves_its_barrier_to_the_next_epoch() -> None:
    driven = closed()
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3, size=LOCK_STEP_BYTES)
    assert driven.ack(3) == ()
    assert driven.begin(4) == (Effect(Do.NOTE_SKIPPED, 4, Skip.UNACKNOWLEDGED), WIDEN)
    driven.resume(4)
    assert driven.ack(4) == (Effect(Do.RELEASE_ONE, 4),)


def test_a_short_checkpoint_cannot_be_the_first_that_protects() -> None:
    driven = Driven()
    driven.resume(1)
    driven.window(2, Do.CLOSE)
    driven.resume(2, size=LOCK_STEP_BYTES)
    driven.ack(2)
    assert not driven.gate.is_protected
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3)
    driven.ack(3)
    assert driven.gate.is_protected


def test_a_closing_that_was_undone_is_tried_again_in_the_next_window() -> None:
    driven = Driven()
    driven.resume(1)
    (close,) = driven.begin(2)
    skipped = Effect(Do.NOTE_SKIPPED, 2, Skip.CLOSE_FAILED)
    assert driven.take(driven.gate.failed(close, "no", undone=True)) == (skipped, WIDEN)
    assert not driven.gate.is_closed
    driven.resume(2)
    driven.window(3, Do.CLOSE)


@pytest.mark.parametrize("do", [Do.SET_BARRIER, Do.RELEASE_ONE])
def test_a_call_of_unknown_outcome_leaves_the_gate_closed_until_ownership_is_settled(
    do: Do,
) -> None:
    driven = closed()
    if do is Do.SET_BARRIER:
        driven.begin(3)
    else:
        driven.window(3, Do.SET_BARRIER)
        driven.resume(3)
        driven.ack(3)
    effects = driven.take(driven.gate.failed(Effect(do, 3), "time-out"))
    assert Effect(Do.NOTE_LOST, 3, "time-out") in effects
    assert (WIDEN in effects) == (do is Do.SET_BARRIER), "the guest must not stay suspended"
    assert driven.gate.is_closed
    assert not driven.gate.is_protected
    if do is Do.SET_BARRIER:
        driven.take(driven.gate.may_resume(3, LONG))
        driven.take(driven.gate.sealed_whole(3))
        assert driven.ack(3) == ()
    assert driven.take(driven.gate.owner_alone()) == (WIDEN, Effect(Do.OPEN))


def test_a_gate_left_by_a_crash_is_closed_and_only_ownership_opens_it() -> None:
    driven = Driven(Gate.adopt())
    assert driven.gate.is_closed
    assert not driven.gate.is_protected
    driven.take(driven.gate.owner_alone())
    driven.take(driven.gate.done(Effect(Do.OPEN)))
    assert driven.gate.phase is Phase.OPENED
    assert driven.take(driven.gate.owner_alone()) == ()


def test_an_opened_gate_never_closes_again() -> None:
    driven = closed()
    driven.take(driven.gate.owner_alone())
    driven.take(driven.gate.done(Effect(Do.OPEN)))
    assert driven.begin(3) == (WIDEN,)
    assert driven.take(driven.gate.may_resume(3, LONG)) == ()
    driven.take(driven.gate.reading())
    assert driven.begin(4) == (WIDEN,)
    assert not driven.gate.is_closed


def test_an_opening_that_failed_is_asked_for_again() -> None:
    driven = closed()
    driven.take(driven.gate.owner_alone())
    driven.take(driven.gate.failed(Effect(Do.OPEN), "time-out"))
    assert driven.gate.is_closed
    assert Effect(Do.OPEN) in driven.take(driven.gate.owner_alone())


def test_an_interface_that_comes_later_ends_protection_until_it_is_covered_and_acknowledged() -> (
    None
):
    driven = closed()
    assert driven.take(driven.gate.interface_seen("vif1.1")) == (Effect(Do.COVER, 2, "vif1.1"),)
    assert not driven.gate.is_protected
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3)
    driven.take(driven.gate.done(Effect(Do.COVER, 2, "vif1.1")))
    driven.ack(3)
    assert not driven.gate.is_protected, "the window came before the interface was covered"
    driven.take(driven.gate.done(Effect(Do.RELEASE_ONE, 3)))
    driven.window(4, Do.SET_BARRIER)
    driven.resume(4)
    driven.ack(4)
    assert driven.gate.is_protected


def test_an_interface_that_went_away_is_not_waited_for() -> None:
    driven = closed()
    driven.take(driven.gate.interface_seen("vif1.1"))
    driven.take(driven.gate.interface_gone("vif1.1"))
    driven.window(3, Do.SET_BARRIER)
    driven.resume(3)
    driven.ack(3)
    assert driven.gate.is_protected


def test_an_overflow_is_told_and_changes_nothing() -> None:
    driven = closed()
    before = driven.gate
    assert driven.take(driven.gate.overflowed(7)) == (Effect(Do.NOTE_OVERFLOW, 2, "7"),)
    assert driven.gate == before


@pytest.mark.parametrize("epoch", [0, 1, 3, 9])
def test_an_acknowledgement_that_cannot_be_is_a_defect(epoch: int) -> None:
    driven = Driven()
    driven.resume(1)
    driven.ack(1)
    driven.begin(2)
    with pytest.raises(InvariantBroken):
        driven.ack(epoch)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_checkpoint_out_of_turn_is_a_defect(epoch: int) -> None:
    driven = Driven()
    driven.resume(1)
    with pytest.raises(InvariantBroken):
        driven.begin(epoch)
