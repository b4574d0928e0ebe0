"""Seeded runs of the real daemons over ports in memory, in virtual time."""

from __future__ import annotations

import pytest

from tests.sim.run import Outcome, run_seed
from tests.sim.world import Without

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


@pytest.mark.parametrize(
    ("without", "seen"),
    [
        (Without.ARBITRATION, "two speakers"),
        (Without.ARBITRATION, "was heard up to"),
        (Without.SECOND_PAUSE, "two copies write to the same disks"),
        (Without.ACKNOWLEDGEMENT, "was heard up to"),
    ],
)
def test_the_observer_sees_what_is_left_out(without: Without, seen: str) -> None:
    """The check can fail: without arbitration each host has a record of its own, and so on."""
    for seed in range(1, 60):
        outcome = run_seed(seed, without=without)
        if any(seen in each for each in outcome.violations):
            return
    pytest.fail(f"nobody saw that there is no {without}")
