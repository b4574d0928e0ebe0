"""Every way to damage one row of the table of decisions, and what shows that it is damaged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from colod.errors import ColodError
from colod.failover.rules import RULES, Rule
from colod.failover.rules.table import AnyOf, Not, Predicate, Then, name_of
from colod.failover.view import View

Table = tuple[Rule, ...]


@dataclass(frozen=True)
class Mutant:
    """A damaged table.

    Attributes:
        name: What was done to it.
        rules: The damaged table.
        at: The first row that is damaged: for views that an earlier row fits, nothing changes.
        rows: How many of the table's own rows are.
    """

    name: str
    rules: Table
    at: int
    rows: int = 1


def mutants() -> Iterator[Mutant]:
    """Yield every mutant."""
    for at, rule in enumerate(RULES):
        yield Mutant(f"{rule.name}: dropped", (*RULES[:at], *RULES[at + 1 :]), at)
        for name, damaged in (*_effects(rule), *_conditions(rule)):
            yield Mutant(f"{rule.name}: {name}", (*RULES[:at], damaged, *RULES[at + 1 :]), at)
    for at, (first, second) in enumerate(itertools.pairwise(RULES)):
        swapped = (*RULES[:at], second, first, *RULES[at + 2 :])
        yield Mutant(f"{first.name}: after {second.name}", swapped, at, rows=2)


def _effects(rule: Rule) -> Iterator[tuple[str, Rule]]:
    then = rule.then
    assert isinstance(then, Then)
    if then.do is not None:
        yield "without its effect", replace(rule, then=replace(then, do=None))
    if then.learn is not None:
        yield "without learning", replace(rule, then=replace(then, learn=None))
    if then.record is not None:
        yield "without its write", replace(rule, then=replace(then, record=None))
    for field in then.journal:
        rest = {name: value for name, value in then.journal.items() if name != field}
        yield f"without noting {field}", replace(rule, then=replace(then, journal=rest))


def _conditions(rule: Rule) -> Iterator[tuple[str, Rule]]:
    for at, fact in enumerate(rule.when):
        rest = (*rule.when[:at], *rule.when[at + 1 :])
        yield f"without '{name_of(fact)}'", replace(rule, when=rest)
        for part in _weaker(fact):
            when = (*rule.when[:at], part, *rule.when[at + 1 :])
            yield f"'{name_of(part)}' for '{name_of(fact)}'", replace(rule, when=when)


def _weaker(fact: Predicate) -> Iterator[Predicate]:
    """Yield a condition's opposite and, of several facts, all but one."""
    yield fact.fact if isinstance(fact, Not) else Not(fact)
    inner = fact.fact if isinstance(fact, Not) else fact
    if isinstance(inner, AnyOf):
        for each in inner.facts:
            rest = AnyOf(tuple(other for other in inner.facts if other is not each))
            yield Not(rest) if isinstance(fact, Not) else rest


def differs(mutant: Mutant, views: Sequence[tuple[int, View]]) -> bool:
    """Return whether the mutant decides otherwise on any of `views`, each with its row's index."""
    rest = mutant.rules[mutant.at :]
    damaged = rest[: len(mutant.rules) - len(RULES) + mutant.rows]
    for at, view in views:
        if at >= mutant.at + mutant.rows:
            # It falls through the damaged rows as before, unless one of them fits now.
            if any(rule.fits(view) for rule in damaged) and _departs(damaged, RULES[at], view):
                return True
        elif at >= mutant.at and _departs(rest, RULES[at], view):
            return True
    return False


def _departs(rules: Table, was: Rule, view: View) -> bool:
    now = next((rule for rule in rules if rule.fits(view)), None)
    if now is was or (now is not None and now.then is was.then):
        return False
    try:
        return now is None or now.then(view) != was.then(view)
    except (AssertionError, ValueError, ColodError):
        return True
