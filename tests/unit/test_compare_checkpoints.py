"""When checkpoints are asked for: one at a time, spaced, and never forgotten."""

from __future__ import annotations

import pytest

from colod.output.compare.checkpoints import CheckpointOptions, Checkpoints, Step
from colod.output.compare.decisions import Reason

OPTIONS = CheckpointOptions(spacing_min_s=1.0, interval_max_s=10.0, overdue_s=5.0)
START = 100.0


def begun() -> Checkpoints:
    """Return those of a pairing that has just made a checkpoint."""
    return Checkpoints(OPTIONS, START)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"spacing_min_s": 0.0}, "spacing_min_s 0.0"),
        ({"interval_max_s": float("inf")}, "interval_max_s inf"),
        ({"overdue_s": float("nan")}, "overdue_s nan"),
        ({"spacing_min_s": 9.0, "interval_max_s": 9.0}, "want less than interval_max_s, 9.0"),
    ],
)
def test_times_that_would_never_let_a_checkpoint_be_made_are_refused(
    wrong: dict[str, float], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        CheckpointOptions(**wrong)


def test_a_divergence_is_asked_for_at_once_when_the_last_checkpoint_is_long_ago() -> None:
    checkpoints = begun()
    assert checkpoints.ask(Reason.PAYLOAD, START + 1.0) is Step.REQUEST
    assert checkpoints.outstanding is Reason.PAYLOAD
    assert checkpoints.requested == {Reason.PAYLOAD: 1}


def test_soon_after_a_checkpoint_a_divergence_waits_and_keeps_its_reason() -> None:
    checkpoints = begun()
    assert checkpoints.ask(Reason.PAYLOAD, START + 0.25) is None
    assert checkpoints.ask(Reason.UNMATCHED, START + 0.5) is None
    assert checkpoints.next_deadline() == START + 1.0
    assert checkpoints.on_deadline(START + 0.75) is None
    assert checkpoints.on_deadline(START + 1.0) is Step.REQUEST
    assert checkpoints.requested == {Reason.PAYLOAD: 1}


@pytest.mark.parametrize("reason", [Reason.SPACE, Reason.OPERATOR])
def test_what_cannot_wait_overtakes_what_waits(reason: Reason) -> None:
    checkpoints = begun()
    checkpoints.ask(Reason.PAYLOAD, START)
    assert checkpoints.ask(reason, START) is Step.REQUEST
    assert checkpoints.outstanding is reason


def test_while_one_is_outstanding_nothing_is_asked() -> None:
    checkpoints = begun()
    checkpoints.ask(Reason.PAYLOAD, START + 2.0)
    assert checkpoints.ask(Reason.SPACE, START + 3.0) is None
    assert checkpoints.on_deadline(START + 3.0) is None
    assert checkpoints.requested.total() == 1


def test_a_checkpoint_serves_what_waits_and_counts_for_its_reason() -> None:
    checkpoints = begun()
    checkpoints.ask(Reason.PAYLOAD, START + 2.0)
    assert checkpoints.committed(START + 3.0) is Reason.PAYLOAD
    assert checkpoints.made == {Reason.PAYLOAD: 1}
    assert checkpoints.outstanding is None
    assert checkpoints.ask(Reason.TIMEOUT, START + 3.5) is None
    assert checkpoints.committed(START + 3.75) is None, "the toolstack's own: nobody was asked"
    assert checkpoints.unasked == 1
    assert checkpoints.next_deadline() == START + 13.75, "what waited is served by it, too"


def test_without_any_divergence_one_is_made_by_the_clock() -> None:
    checkpoints = begun()
    assert checkpoints.next_deadline() == START + 10.0
    assert checkpoints.on_deadline(START + 10.0) is Step.REQUEST
    assert checkpoints.requested == {Reason.PERIODIC: 1}


def test_a_checkpoint_that_does_not_come_is_told_once() -> None:
    checkpoints = begun()
    checkpoints.ask(Reason.PAYLOAD, START + 2.0)
    assert checkpoints.next_deadline() == START + 7.0
    assert checkpoints.on_deadline(START + 7.0) is Step.OVERDUE
    assert checkpoints.next_deadline() is None
    assert checkpoints.on_deadline(START + 99.0) is None
    assert checkpoints.overdue == 1
    checkpoints.committed(START + 100.0)
    checkpoints.ask(Reason.PAYLOAD, START + 102.0)
    assert checkpoints.on_deadline(START + 107.0) is Step.OVERDUE, "the next one is told, too"
