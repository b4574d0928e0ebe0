"""Walk every state that a graph can reach, and check promises in each and on each way.

The engine knows nothing of colod: it walks breadth first and keeps how each state was reached, so
that a violation is reported by its shortest history. `colod.failover.world` is the graph. States
are integers, because millions of them are compared and kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Step(NamedTuple):
    """One way on from a state.

    Attributes:
        name: What happens, for people.
        after: The state it leads to.
        is_fault: Whether it is an accident or a person's act; goals must be reachable without.
        wrong: Which promise the step itself breaks, "" for none.
    """

    name: str
    after: int
    is_fault: bool = False
    wrong: str = ""


class Verdict(NamedTuple):
    """What a state is worth.

    Attributes:
        broken: Which promise it breaks, "" for none.
        is_good: Whether it is a goal.
        is_alive: Whether what must not be lost is still there; only accidents may lose it.
    """

    broken: str
    is_good: bool
    is_alive: bool


class Graph(Protocol):
    """What can be explored."""

    def starts(self) -> Iterable[int]:
        """Return the first states."""

    def steps(self, state: int) -> Sequence[Step]:
        """Return all ways on from `state`."""

    def judge(self, state: int) -> Verdict:
        """Return what `state` is worth."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise and the shortest way to it."""

    what: str
    history: tuple[str, ...]
    state: int

    def __str__(self) -> str:
        """Number the history's steps."""
        lines = [f"{i:3} {name}" for i, name in enumerate(self.history, 1)]
        return "\n".join([self.what, *lines])


@dataclass(slots=True)
class Walk:
    """What a walk found.

    Attributes:
        states: How many states were reached.
        steps: How many steps were taken.
        violations: Broken promises, at most the limit asked for.
    """

    states: int = 0
    steps: int = 0
    violations: list[Violation] = field(default_factory=list)


LOST = "colod itself lost the guest"
NO_WAY = "no way leads from here to a good end without a person's help"


class _Visited:
    """The states met, in the order in which they were met, and how."""

    def __init__(self) -> None:
        self.index: dict[int, int] = {}
        self.came_from = array("i")
        self.came_by: list[str] = []
        self.alive = bytearray()
        self.goals: list[int] = []
        # The calm steps, as pairs of indices.
        self.calm_from = array("i")
        self.calm_to = array("i")

    def history(self, at: int) -> tuple[str, ...]:
        names: list[str] = []
        while at >= 0:
            names.append(self.came_by[at])
            at = self.came_from[at]
        return tuple(reversed(names[:-1]))


class _Search:
    def __init__(self, graph: Graph, limit: int) -> None:
        self.graph = graph
        self.limit = limit
        self.met = _Visited()
        self.walk = Walk()
        self.states: list[int] = []

    def reach(self, state: int, before: int, name: str) -> int:
        """Note a state met for the first time; return its index."""
        met = self.met
        at = met.index[state] = len(self.states)
        self.states.append(state)
        met.came_from.append(before)
        met.came_by.append(name)
        verdict = self.graph.judge(state)
        met.alive.append(verdict.is_alive)
        if verdict.is_good:
            met.goals.append(at)
        if verdict.broken:
            self.blame(verdict.broken, met.history(at), state)
        return at

    def blame(self, what: str, history: tuple[str, ...], state: int) -> None:
        if len(self.walk.violations) < self.limit:
            self.walk.violations.append(Violation(what, history, state))

    def expand(self, at: int) -> None:
        met, index = self.met, self.met.index
        was_alive = met.alive[at]
        steps = self.graph.steps(self.states[at])
        self.walk.steps += len(steps)
        for name, after, is_fault, wrong in steps:
            to = index.get(after)
            if to is None:
                to = self.reach(after, at, name)
            if not is_fault:
                met.calm_from.append(at)
                met.calm_to.append(to)
                if was_alive and not met.alive[to]:
                    self.blame(LOST, (*met.history(at), name), after)
            if wrong:
                self.blame(wrong, (*met.history(at), name), after)

    def check_goals(self) -> None:
        """Go backwards from the goals; what is not met has no way to any of them."""
        count, met = len(self.states), self.met
        first, before = _by_target(count, met.calm_from, met.calm_to)
        found = bytearray(count)
        stack = met.goals
        for at in stack:
            found[at] = 1
        while stack:
            at = stack.pop()
            for k in range(first[at], first[at + 1]):
                if not found[before[k]]:
                    found[before[k]] = 1
                    stack.append(before[k])
        at = found.find(0)
        while at >= 0 and len(self.walk.violations) < self.limit:
            self.blame(NO_WAY, met.history(at), self.states[at])
            at = found.find(0, at + 1)


def _by_target(
    count: int, sources: array[int], targets: array[int]
) -> tuple[array[int], array[int]]:
    """Sort edges by their target: where each target's sources begin, and the sources."""
    first = array("i", bytes(4 * (count + 1)))
    for to in targets:
        first[to + 1] += 1
    for at in range(count):
        first[at + 1] += first[at]
    place = array("i", first)
    before = array("i", bytes(4 * len(sources)))
    for source, to in zip(sources, targets, strict=True):
        before[place[to]] = source
        place[to] += 1
    return first, before


def explore(graph: Graph, *, limit: int = 1, max_states: int = 20_000_000) -> Walk:
    """Visit everything that the graph's starts lead to.

    Args:
        graph: What to explore.
        limit: Stop after this many violations.
        max_states: Give up above this many states.

    Raises:
        MemoryError: If there are more than `max_states` states; the walk proves nothing then.
    """
    search = _Search(graph, limit)
    for state in graph.starts():
        search.reach(state, -1, "")
    at = 0
    while at < len(search.states) and len(search.walk.violations) < limit:
        search.expand(at)
        at += 1
        if at > max_states:
            raise MemoryError(f"more than {max_states} states")
    if not search.walk.violations:
        search.check_goals()
    search.walk.states = len(search.states)
    return search.walk
