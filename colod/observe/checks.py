"""What load balancers and monitors ask of a host, answered from its status alone (docs/http.md).

A check says of each guest why it does not hold. What is not known, or was decided too long ago,
never holds: a check that fails for a moment costs less than one that holds wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from colod.failover.effects import State
from colod.failover.view import Copy
from colod.observe.documents import decided_age_s, lag_json, replica_of, role_of
from colod.v1 import admin_pb2, types_pb2

FRESH_S: Final = 15.0
"""How old the facts of a decision may be. In good order it is a second; xl that hangs, or an effect
that takes long, makes it older."""

WITNESS_ANSWERS: Final = "answers"
WITNESS_AWAY: Final = "does not answer"
"""What a status says of a witness that gave no answer."""

Status = admin_pb2.ProtectionStatus

_QUIET: Final = frozenset(
    {
        *(State.STOPPED, State.ALONE, State.SUSPENDED, State.PAIRING, State.SYNCING),
        *(State.REPLICATING, State.PROTECTED, State.SWITCHOVER),
    }
)
"""States in which nothing is amiss; no ownership is being settled in them."""

_CHECKPOINTED: Final = frozenset(
    {State.SYNCING, State.REPLICATING, State.PROTECTED, State.SWITCHOVER}
)
"""States in which a guest that runs is seen suspended now and then, for a checkpoint."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for.

    Attributes:
        host: The host that answers.
        guest: The guest; "" for all of this host.
        lag_s: The oldest that a replica may be, None for any age.
    """

    host: str
    guest: str = ""
    lag_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question.

    Attributes:
        why: Says why it does not hold of a guest; "" where it does.
        parameters: What may be asked for.
        needs_guest: Whether a guest has to be named.
        holds_of_none: Whether it holds on a host without protections.
    """

    why: Callable[[Status, Asked], str]
    parameters: frozenset[str] = frozenset()
    needs_guest: bool = False
    holds_of_none: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer: each guest that was looked at, and why the check does not hold of it."""

    check: str
    guests: Sequence[tuple[Status, str]]
    why_none: str = ""

    @property
    def holds(self) -> bool:
        """Whether the check holds."""
        return not self.why

    @property
    def why(self) -> str:
        """Why it does not, "" where it does."""
        return self.why_none or "; ".join(
            f"{each.guest}: {why}" for each, why in self.guests if why
        )


def is_current(status: Status) -> bool:
    """Tell whether the state was decided on facts that are fresh enough to rest anything on."""
    age_s = decided_age_s(status)
    return age_s is not None and age_s <= FRESH_S


def judge(name: str, reply: admin_pb2.StatusReply, asked: Asked) -> Verdict:
    """Answer the check `name` from the status of this host.

    A guest that was asked for must be in `reply`.
    """
    check = CHECKS[name]
    found = [each for each in reply.protections if asked.guest in ("", each.guest)]
    why_none = "" if found or check.holds_of_none else f"{asked.host} protects no guest"
    return Verdict(name, [(each, check.why(each, asked)) for each in found], why_none)


def verdict_json(verdict: Verdict, reply: admin_pb2.StatusReply) -> dict[str, Any]:
    """Return an answer as its documented JSON object."""
    return {
        "host": reply.host,
        "simulated": reply.simulated,
        "check": verdict.check,
        "holds": verdict.holds,
        "why": verdict.why,
        "guests": [
            {
                "guest": each.guest,
                "role": role_of(each),
                "state": each.state,
                "lag_s": lag_json(each)["lag_s"],
                "decided_age_s": decided_age_s(each),
                "holds": not why,
                "why": why,
            }
            for each, why in verdict.guests
        ],
    }


def _why_stale(status: Status, _: Asked) -> str:
    age_s = decided_age_s(status)
    if age_s is None:
        return "the daemon has not looked at it yet"
    if age_s > FRESH_S:
        return f"decided on facts that are {age_s:.0f} s old, want at most {FRESH_S:g} s"
    return ""


def _why_ill(status: Status, asked: Asked) -> str:
    if stale := _why_stale(status, asked):
        return stale
    if status.state not in _QUIET:
        return _state(status)
    if status.witness == WITNESS_AWAY:
        return f"the witness {WITNESS_AWAY}, so nobody could take the guest over"
    if status.standstill_cause:
        return f"has stood still for {status.standstill_s:.1f} s: {status.standstill_cause}"
    return f"waits for a person: {status.advice}" if status.advice else ""


def _why_unprotected(status: Status, asked: Asked) -> str:
    if stale := _why_stale(status, asked):
        return stale
    return "" if status.state == State.PROTECTED else _state(status)


def _why_not_primary(status: Status, asked: Asked) -> str:
    if status.role != types_pb2.ROLE_PRIMARY:
        return f"{status.peer} is its primary"
    if status.owner != asked.host:
        return f"{status.owner} owns it" if status.owner else "nobody knows who owns it"
    if stale := _why_stale(status, asked):
        return stale
    if status.state not in _QUIET:
        return _state(status)
    may_be_suspended = status.state in _CHECKPOINTED
    runs = (Copy.RUNNING, Copy.SUSPENDED) if may_be_suspended else (Copy.RUNNING,)
    return "" if status.guest_domain in runs else f"the guest here is {status.guest_domain}"


def _why_not_secondary(status: Status, asked: Asked) -> str:
    if status.role != types_pb2.ROLE_SECONDARY:
        return "this host is its primary"
    if stale := _why_stale(status, asked):
        return stale
    if not status.promotable:
        return f"the replica here ({replica_of(status)}) may not be promoted; {_state(status)}"
    if asked.lag_s is None:
        return ""
    lag_s = lag_json(status)["lag_s"]
    if lag_s is None:
        return "nobody knows how old the replica here is"
    if lag_s > asked.lag_s:
        return f"the replica here is {lag_s:.2f} s old, want at most {asked.lag_s:g} s"
    return ""


def _state(status: Status) -> str:
    return f"is {status.state}{f': {status.cause}' if status.cause else ''}"


CHECKS: Final[Mapping[str, Check]] = {
    "readyz": Check(why=_why_stale),
    "health": Check(why=_why_ill, parameters=frozenset({"guest"})),
    "protected": Check(why=_why_unprotected, parameters=frozenset({"guest"}), holds_of_none=False),
    "primary": Check(why=_why_not_primary, parameters=frozenset({"guest"}), needs_guest=True),
    "secondary": Check(
        why=_why_not_secondary, parameters=frozenset({"guest", "lag"}), needs_guest=True
    ),
}
"""All checks by their path."""
