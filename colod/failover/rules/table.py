"""What a row of the table of decisions is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from colod.failover import record as records
from colod.failover.effects import Decision, Do, State, Swap
from colod.failover.record import OwnershipRecord
from colod.failover.view import Journal, Pending, View

T = TypeVar("T")

Predicate = Callable[[View], bool]
"""A named fact of a view; its docstring's first line says it in words (docs/failover.md)."""

Of = Callable[[View], T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """What follows from a view that fits; a callable where it depends on the view.

    Attributes:
        state: What to show; None for an errand that changes nothing of it.
        cause: Why.
        advice: What an operator can do.
        journal: Fields of the journal to change before anything is done.
        do: The effect, None to do nothing.
        record: The record to write to the witness, where that is the effect.
        learn: The whole new journal, where it comes of a rule's own.
    """

    state: State | Of[State] | None
    cause: str | Of[str] = ""
    advice: str | Of[str] = ""
    journal: Mapping[str, Any] = field(default_factory=dict)
    do: Do | None = None
    record: Of[OwnershipRecord | None] | None = None
    learn: Of[Journal] | None = None

    def __call__(self, view: View) -> Decision:
        """Return the decision for `view`."""
        journal, effect = self._journal(view), None
        if self.record is not None:
            new = self.record(view)
            journal = replace(journal, pending=_pending(journal, new))
            effect = Swap(new)
        return Decision(
            rule="",
            state=_of(self.state, view),
            cause=_of(self.cause, view),
            advice=_of(self.advice, view),
            journal=None if journal == view.journal else journal,
            effect=effect or self.do,
        )

    def _journal(self, view: View) -> Journal:
        journal = view.journal if self.learn is None else self.learn(view)
        return replace(journal, **{name: _of(value, view) for name, value in self.journal.items()})


def _pending(journal: Journal, new: OwnershipRecord | None) -> Pending:
    return Pending(new=new, record=journal.record, revision=journal.revision)


def _of(value: Any, view: View) -> Any:
    return value(view) if callable(value) else value


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: where it fits and what follows.

    Attributes:
        name: Its name in logs and in docs/failover.md.
        when: Facts that all must hold.
        then: What follows.
    """

    name: str
    when: tuple[Predicate, ...]
    then: Callable[[View], Decision]

    def fits(self, view: View) -> bool:
        """Return whether this row speaks of `view`."""
        return all(holds(view) for holds in self.when)


def show(state: State | Of[State], cause: str | Of[str] = "", advice: str | Of[str] = "") -> Then:
    """Return "only show this, and wait"."""
    return Then(state=state, cause=cause, advice=advice)


def act(
    state: State | Of[State] | None,
    effect: Do,
    cause: str | Of[str] = "",
    **journal: Any,
) -> Then:
    """Return "write `journal` down, then carry out `effect`"."""
    return Then(state=state, cause=cause, do=effect, journal=journal)


def note(state: State | None, cause: str = "", **journal: Any) -> Then:
    """Return "write `journal` down"."""
    return Then(state=state, cause=cause, journal=journal)


def swap(
    state: State,
    record: Of[OwnershipRecord | None],
    cause: str | Of[str] = "",
    **journal: Any,
) -> Then:
    """Return "write `record` to the witness, having noted that the write is pending"."""
    return Then(state=state, cause=cause, record=record, journal=journal)


def known(view: View) -> OwnershipRecord:
    """Return the newest confirmed record, which the rule's guard has shown to be there."""
    assert view.journal.record is not None
    return view.journal.record


def handed_over(view: View) -> OwnershipRecord:
    """Return the wish of a pair's owner that the other host own the guest."""
    return records.hand_over(known(view), attempt=view.new_id)


def forced(view: View) -> OwnershipRecord:
    """Return an operator's decision that this host owns the guest."""
    journal = view.journal
    return records.force(
        known(view), journal.host, attempt=view.new_id, reason=journal.force_reason
    )


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a fact."""

    fact: Predicate

    def __call__(self, view: View) -> bool:
        """Return whether the fact does not hold."""
        return not self.fact(view)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of several facts."""

    facts: tuple[Predicate, ...]

    def __call__(self, view: View) -> bool:
        """Return whether any fact holds."""
        return any(holds(view) for holds in self.facts)


def any_of(*facts: Predicate) -> AnyOf:
    """Return "at least one of `facts` holds"."""
    return AnyOf(facts)


def name_of(fact: Predicate) -> str:
    """Return how a rule's condition is called in tables and reports."""
    if isinstance(fact, Not):
        return f"not {name_of(fact.fact)}"
    if isinstance(fact, AnyOf):
        return f"({' or '.join(name_of(each) for each in fact.facts)})"
    return str(getattr(fact, "__name__", fact))
