"""When this host is left to its watchdog: a host that can neither ask nor stop its guest is reset.

A second line behind ownership and output commit. It decides nothing about who owns a guest, and
nobody may take it for a proof that a host is off: a watchdog may be disarmed, broken or slow.

The watchdog is fed only on evidence that no other host can be running what this one still runs.
The evidence of a guest at risk is one of three: its other host was heard of late, the witness said
of late that this host owns it, or the copy here was seen stopped. So neither a lost witness nor a
lost peer alone resets a host, nor does both together as long as this daemon can pause the guest:
to reset a host whose guest is paused would destroy what may be the last copy, and protect nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from colod.failover.record import RecordState
from colod.failover.view import Journal, Link, View
from colod.model import Generation, GuestName, Role


class Risk(StrEnum):
    """Whether another host may run this guest while a copy of it runs here."""

    NONE = "none"
    """Nobody else may take it over, or no copy of it here can run."""
    PAIRED = "paired"
    """The other host may take it over, or may do so as soon as a write that is due is done."""
    LOST = "lost"
    """The other host has it, and the copy here was not seen stopped since."""


class Order(StrEnum):
    """What is to be done with the watchdog."""

    FEED = "feed"
    """Arm it if it is not armed, and feed it."""
    DISARM = "disarm"
    """Nothing is at risk here."""
    STARVE = "starve"
    """Do not feed it and do not arm it: an armed one resets the host if this lasts."""
    WAIT = "wait"
    """As STARVE, but nothing is wrong: this daemon has not looked yet, or no guest runs here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """One protection of this host, as its watchdog sees it.

    Attributes:
        guest: The guest.
        risk: Whether another host may run it.
        has_looked: Whether this daemon has looked at the guest's domain yet.
        is_stopped: Whether no copy of the guest that this host was running can run, as was seen
            since this daemon last let one run.
        peer_heard_at: Monotonic time when the other host was last heard, None if never.
        witness_said_at: Monotonic time when a third party last said that this host owns the guest,
            None if never, and where there is no third party.
    """

    guest: GuestName
    risk: Risk
    has_looked: bool
    is_stopped: bool
    peer_heard_at: float | None = None
    witness_said_at: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done, and why, for people."""

    order: Order
    why: str = ""


def risk_of(
    journal: Journal, view: View | None, *, is_stopped: bool, peer_generation: Generation
) -> Risk:
    """Return what another host may do with the guest of `journal`.

    Args:
        journal: What is on disk.
        view: What was last seen, None if nothing yet.
        is_stopped: As `Guarded.is_stopped`.
        peer_generation: The generation under which the other host says that it is the primary; 0
            where it does not. A newer one alone tells nothing: it may have learned of a write of
            ours before we did.
    """
    if journal.record is None or journal.role is Role.SECONDARY:
        return Risk.NONE  # a replica is kept paused by two references, and lets nobody be hurt
    if not journal.is_owner or peer_generation > journal.generation:
        return Risk.NONE if is_stopped else Risk.LOST
    is_due = view is not None and view.link is Link.FOLLOWING and view.is_pair_due
    return Risk.PAIRED if _may_be_taken(journal) or is_due else Risk.NONE


def _may_be_taken(journal: Journal) -> bool:
    """Return whether the record lets the other host take over, or a write under way would."""
    pending = journal.pending
    is_pending = (
        pending is not None and pending.new is not None and pending.new.state is RecordState.PAIRED
    )
    return journal.is_paired or is_pending


def judge(guests: Sequence[Guarded], *, is_armed: bool, now: float, fresh_s: float) -> Verdict:
    """Return what is to be done with the watchdog.

    Args:
        guests: All protections of this host.
        is_armed: Whether it runs.
        now: Monotonic time.
        fresh_s: How old a sign of the other host or of the witness may be.
    """
    at_risk = [each for each in guests if each.risk is not Risk.NONE]
    if not at_risk:
        return Verdict(Order.DISARM)
    wrongs = [why for each in at_risk if (why := _wrong(each, now - fresh_s))]
    if wrongs and all(each.has_looked for each in at_risk):
        return Verdict(Order.STARVE, "; ".join(wrongs))
    if wrongs or not (is_armed or _may_be_armed(at_risk)):
        return Verdict(Order.WAIT)
    return Verdict(Order.FEED)


def _may_be_armed(at_risk: Sequence[Guarded]) -> bool:
    """Return whether there is reason to arm one: not at boot, before a copy was ever run here."""
    return all(each.has_looked for each in at_risk) and not all(each.is_stopped for each in at_risk)


def _wrong(guest: Guarded, since: float) -> str:
    """Say why this guest gives no evidence, "" where it does."""
    if guest.is_stopped:
        return ""
    if guest.risk is Risk.LOST:
        return f"the other host owns {guest.guest}, and the copy here was not seen stopped"
    signs = (guest.peer_heard_at, guest.witness_said_at)
    if any(at is not None and at >= since for at in signs):
        return ""
    return (
        f"neither the other host of {guest.guest} nor the witness is heard, and the guest was not "
        "seen stopped"
    )
