"""The engine finds what is wrong with small graphs whose faults are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from colod.failover.explorer import LOST, NO_WAY, Step, Verdict, explore

CALM = Verdict("", False, True)
GOAL = Verdict("", True, True)
DEAD = Verdict("", True, False)


class Toy:
    """A graph written down."""

    def __init__(self, steps: dict[int, list[Step]], verdicts: dict[int, Verdict]) -> None:
        self._steps = steps
        self._verdicts = verdicts

    def starts(self) -> Iterable[int]:
        return [0]

    def steps(self, state: int) -> Sequence[Step]:
        return self._steps.get(state, [])

    def judge(self, state: int) -> Verdict:
        return self._verdicts.get(state, CALM)


def test_a_graph_in_order_breaks_nothing() -> None:
    toy = Toy({0: [Step("on", 1)], 1: [Step("back", 0)]}, {1: GOAL})
    walk = explore(toy)
    assert (walk.states, walk.steps, walk.violations) == (2, 2, [])


def test_a_broken_state_is_told_by_its_shortest_history() -> None:
    toy = Toy(
        {0: [Step("a", 1), Step("b", 2)], 1: [Step("c", 3)], 2: [Step("d", 9)], 3: [Step("e", 9)]},
        {9: Verdict("two copies speak", False, True)},
    )
    violation = explore(toy).violations[0]
    assert (violation.what, violation.history, violation.state) == (
        "two copies speak",
        ("b", "d"),
        9,
    )
    assert str(violation).splitlines() == ["two copies speak", "  1 b", "  2 d"]


def test_a_step_may_break_a_promise_that_no_state_does() -> None:
    toy = Toy({0: [Step("on", 1), Step("token", 1, wrong="given twice")]}, {1: GOAL})
    violation = explore(toy).violations[0]
    assert (violation.what, violation.history) == ("given twice", ("token",))


def test_a_state_without_a_way_to_a_goal_is_a_violation() -> None:
    toy = Toy({0: [Step("on", 1), Step("off", 2)], 2: [Step("round", 2)]}, {1: GOAL})
    violation = explore(toy).violations[0]
    assert (violation.what, violation.history) == (NO_WAY, ("off",))


def test_a_way_by_accident_is_no_way_to_a_goal() -> None:
    toy = Toy({0: [Step("luck", 1, is_fault=True)]}, {1: GOAL})
    assert explore(toy).violations[0].what == NO_WAY


def test_only_accidents_may_lose_what_is_alive() -> None:
    by_accident = Toy({0: [Step("on", 2), Step("fire", 1, is_fault=True)]}, {1: DEAD, 2: GOAL})
    assert not explore(by_accident).violations
    by_itself = Toy({0: [Step("on", 2), Step("drop", 1)]}, {1: DEAD, 2: GOAL})
    assert explore(by_itself).violations[0].what == LOST


def test_as_many_violations_are_told_as_were_asked_for() -> None:
    toy = Toy({0: [Step("a", 1), Step("b", 2)]}, {1: Verdict("x", False, True)})
    toy._verdicts[2] = Verdict("y", False, True)
    assert [v.what for v in explore(toy, limit=5).violations] == ["x", "y"]
    assert len(explore(toy, limit=1).violations) == 1


def test_a_walk_that_is_given_up_proves_nothing() -> None:
    class Endless(Toy):
        def steps(self, state: int) -> Sequence[Step]:
            return [Step("on", state + 1)]

    with pytest.raises(MemoryError):
        explore(Endless({}, {}), max_states=100)
