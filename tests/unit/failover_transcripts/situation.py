"""Situations, and what colod says and does in them: one decision each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from colod.errors import ColodError
from colod.failover import record as records
from colod.failover.effects import Decision, Do, Effect, State, Swap
from colod.failover.record import OwnershipRecord
from colod.failover.rules import RULES, Rule, decide
from colod.failover.view import (
    Answer,
    Contact,
    Copy,
    Journal,
    Link,
    Pending,
    View,
    Wanted,
)
from colod.model import (
    Disks,
    Epoch,
    Generation,
    GuestName,
    HostName,
    PairingId,
    Protection,
    Role,
)

ALPHA, BETA = HostName("alpha"), HostName("beta")
TERMS = Protection(guest=GuestName("web"), primary=ALPHA, secondary=BETA, disks=Disks.NONE)
PAIRING, NEW_ID = PairingId("a" * 32), "b" * 32

FIRST = records.create(ALPHA, BETA, attempt="1")
PAIRED = records.pair(FIRST, PAIRING, Epoch(2), attempt="2")
LATER = records.go_alone(PAIRED, attempt="3")
TAKEN = records.take_over(PAIRED, PAIRING, attempt="3")
THEIRS = records.activate(TAKEN, attempt="4")
GIFT = records.hand_over(PAIRED, attempt="3")
FORCED = records.force(THEIRS, ALPHA, attempt="5", reason="beta burnt down")
GIVEN = records.hand_back(TAKEN, attempt="4")
"""alpha's again, unactivated, after beta could not run its copy."""
ELSEWHERE = records.create(HostName("gamma"), HostName("delta"), attempt="1")
REPLACED = records.create(ALPHA, HostName("gamma"), attempt="1", after=PAIRED.generation)
"""Of a protection that is not this one."""

REVISION = 7


NOTHING: Mapping[str, Any] = {}


def primary(
    known: OwnershipRecord | None, /, journal: Mapping[str, Any] = NOTHING, **facts: Any
) -> View:
    """Return what alpha, the primary, sees."""
    return _view(ALPHA, Role.PRIMARY, known, journal, {"guest": Copy.RUNNING} | facts)


def secondary(
    known: OwnershipRecord | None, /, journal: Mapping[str, Any] = NOTHING, **facts: Any
) -> View:
    """Return what beta, the secondary, sees."""
    return _view(BETA, Role.SECONDARY, known, journal, facts)


def _view(
    host: HostName,
    role: Role,
    record: OwnershipRecord | None,
    journal: Mapping[str, Any],
    facts: dict[str, Any],
) -> View:
    entry = Journal(
        protection=TERMS, host=host, role=role, record=record, revision=REVISION, boot="boot"
    )
    known: dict[str, Any] = {
        "boot": "boot",
        "new_id": NEW_ID,
        "answer": Answer.READ,
        "record": record,
        "revision": REVISION,
        "contact": Contact.UP,
    }
    return View(journal=replace(entry, **journal), **(known | facts))


IN_PAIR: dict[str, Any] = {"pairing": PAIRING, "pairing_generation": Generation(1)}
MINE: dict[str, Any] = {"may_hand_back": True} | IN_PAIR
FOLLOWS: dict[str, Any] = {"link": Link.FOLLOWING, "xl_alive": True, "acked_epoch": 5}
REPLICA: dict[str, Any] = FOLLOWS | {"incoming": True}
BROKEN: dict[str, Any] = FOLLOWS | {"link": Link.BROKEN, "link_error": "the stream was cut"}
PAUSED: dict[str, Any] = {"guest": Copy.PAUSED}
GONE: dict[str, Any] = {"guest": Copy.ABSENT}
STALE: dict[str, Any] = {"answer": Answer.STALE}
AWAY: dict[str, Any] = {"answer": Answer.UNREACHABLE}
UNPROTECTED: dict[str, Any] = {"wanted": Wanted.UNPROTECTED}
RESTARTING: dict[str, Any] = {"restarting_since": 0.5}
SUSPENDED: dict[str, Any] = {"wanted": Wanted.SUSPENDED}
LOST: dict[str, Any] = {"contact": Contact.LOST}


@dataclass(frozen=True)
class Transcript:
    """One situation and what follows.

    Attributes:
        what: A sentence.
        view: The situation.
        rule: The rule that fits.
        state: What is shown, None for an errand.
        effect: What is done; `Swap` stands for any write.
        notes: The journal's fields that change, `pending` of a write apart.
        asks_person: Whether advice must be given.
    """

    what: str
    view: View
    rule: str
    state: State | None
    effect: Do | type[Swap] | None = None
    notes: frozenset[str] = field(default_factory=frozenset)
    asks_person: bool = False

    def deviation(self, rules: tuple[Rule, ...] = RULES) -> str:
        """Return how the table departs from this transcript, or ""."""
        try:
            decision = decide(self.view, rules)
        except (ColodError, AssertionError, ValueError) as error:
            return f"{self.what}: {error!r}"
        wanted = (self.rule, self.state, self.effect, self.notes, self.asks_person)
        found = (
            decision.rule,
            decision.state,
            _kind(decision.effect),
            _notes(self.view.journal, decision),
            decision.advice != "",
        )
        return "" if found == wanted else f"{self.what}: {found}, expected {wanted}"


def _kind(effect: Effect | None) -> Do | type[Swap] | None:
    return Swap if isinstance(effect, Swap) else effect


def _notes(before: Journal, decision: Decision) -> frozenset[str]:
    after = decision.journal or before
    changed = {f.name for f in fields(Journal) if getattr(before, f.name) != getattr(after, f.name)}
    return frozenset(changed - ({"pending"} if isinstance(decision.effect, Swap) else set()))


def notes_of(*names: str) -> frozenset[str]:
    return frozenset(names)


WRITING = Pending(new=PAIRED, record=FIRST, revision=REVISION)
LEAVING = Pending(new=LATER, record=PAIRED, revision=REVISION)
GIVING = Pending(new=GIFT, record=PAIRED, revision=REVISION)
DELETING = Pending(new=None, record=FIRST, revision=REVISION)
