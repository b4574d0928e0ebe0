"""Seeded runs of the real daemons over ports in memory, in virtual time."""

from __future__ import annotations

import pytest

from tests.sim.run import Outcome, run_seed

SEEDS = 200
PART = 25


def told(bad: list[Outcome]) -> str:
    """Say what is wrong, and how to see it again."""
    return "\n".join(
        f"python -m tests.sim {each.seed} 1: {each.end}: {each.violations[:3]} {each.states}"
        for each in bad
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1, SEEDS, PART))
def test_every_promise_is_kept_and_the_guest_is_protected_in_the_end(first: int) -> None:
    outcomes = [run_seed(seed) for seed in range(first, first + PART)]
    bad = [each for each in outcomes if not each.is_good]
    assert not bad, told(bad)
    assert sum(each.end == "protected" for each in outcomes) > PART // 2
    assert all(each.faults for each in outcomes)


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = run_seed(7), run_seed(7)
    assert first.log == second.log
    assert len(first.log) > 10


def test_without_arbitration_the_observer_sees_two_speakers_and_lost_output() -> None:
    """Each host has a record of its own then: the check can fail."""
    outcomes = [run_seed(seed, arbitrates=False) for seed in range(1, 13)]
    seen = "\n".join(text for each in outcomes for text in each.violations)
    assert "two speakers" in seen
    assert "was heard up to" in seen
