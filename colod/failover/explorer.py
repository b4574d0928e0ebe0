"""Walk every state that hosts, witness, network and a bounded number of faults can reach.

The engine knows nothing of colod: it walks a graph breadth first, checks an invariant in every
state and on every step, and keeps how each state was reached, so that a violation is reported by
its shortest history. `colod.failover.world` is the graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One way on from a state.

    Attributes:
        name: What happens, for people.
        after: The state it leads to.
        is_fault: Whether it is an accident or a person's act; goals must be reachable without.
    """

    name: str
    after: S
    is_fault: bool = False


@dataclass(frozen=True, slots=True)
class Violation(Generic[S]):
    """A broken promise and the shortest way to it."""

    what: str
    history: tuple[str, ...]
    state: S

    def __str__(self) -> str:
        """Number the history's steps."""
        lines = [f"{i:3} {name}" for i, name in enumerate(self.history, 1)]
        return "\n".join([self.what, *lines])


@dataclass(slots=True)
class Walk(Generic[S]):
    """What a walk found.

    Attributes:
        states: How many states were reached.
        steps: How many steps were taken.
        violations: Broken promises, at most the limit asked for.
        rules: How often each rule decided, by name.
    """

    states: int = 0
    steps: int = 0
    violations: list[Violation[S]] = field(default_factory=list)
    rules: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Graph(Generic[S]):
    came: dict[S, tuple[S, str] | None]
    calm: dict[S, list[S]]
    """For each state, the states that lead to it by a step that is no fault."""

    def history(self, state: S) -> tuple[str, ...]:
        names: list[str] = []
        while (link := self.came[state]) is not None:
            state, name = link
            names.append(name)
        return tuple(reversed(names))


def explore(
    starts: Iterable[S],
    steps: Callable[[S], Iterable[Step[S]]],
    broken: Callable[[S], str],
    broken_step: Callable[[S, Step[S]], str] = lambda _state, _step: "",
    is_goal: Callable[[S], bool] | None = None,
    *,
    limit: int = 1,
    max_states: int = 5_000_000,
) -> Walk[S]:
    """Visit everything that `starts` lead to.

    Args:
        starts: First states.
        steps: All ways on from a state.
        broken: Which promise a state breaks, "" for none.
        broken_step: Which promise a step breaks, "" for none.
        is_goal: If given, every state must have a way without faults to a state that is one.
        limit: Stop after this many violations.
        max_states: Give up above this many states.

    Raises:
        MemoryError: If there are more than `max_states` states; the walk proves nothing then.
    """
    walk: Walk[S] = Walk()
    graph: _Graph[S] = _Graph({}, {})
    queue: deque[S] = deque()
    goals: list[S] = []
    for state in starts:
        graph.came[state] = None
        queue.append(state)
    while queue and len(walk.violations) < limit:
        state = queue.popleft()
        walk.states += 1
        if what := broken(state):
            walk.violations.append(Violation(what, graph.history(state), state))
        if is_goal is not None and is_goal(state):
            goals.append(state)
        for step in steps(state):
            _take(walk, graph, queue, state, step, broken_step)
        if len(graph.came) > max_states:
            raise MemoryError(f"more than {max_states} states")
    if is_goal is not None and not walk.violations:
        _check_goals(walk, graph, goals, limit)
    return walk


def _take(
    walk: Walk[S],
    graph: _Graph[S],
    queue: deque[S],
    state: S,
    step: Step[S],
    broken_step: Callable[[S, Step[S]], str],
) -> None:
    walk.steps += 1
    if step.after not in graph.came:
        graph.came[step.after] = (state, step.name)
        queue.append(step.after)
    if not step.is_fault:
        graph.calm.setdefault(step.after, []).append(state)
    if what := broken_step(state, step):
        walk.violations.append(Violation(what, (*graph.history(state), step.name), step.after))


def _check_goals(walk: Walk[S], graph: _Graph[S], goals: list[S], limit: int) -> None:
    """Go backwards from the goals; what is not met has no way to any of them."""
    met = set(goals)
    queue = deque(goals)
    while queue:
        for before in graph.calm.get(queue.popleft(), ()):
            if before not in met:
                met.add(before)
                queue.append(before)
    for state in graph.came:
        if state not in met:
            text = "no way leads from here to a good end without a person's help"
            walk.violations.append(Violation(text, graph.history(state), state))
            if len(walk.violations) >= limit:
                return
