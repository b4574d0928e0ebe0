"""The promises, checked in every state and on every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from colod.failover.explorer import Verdict
from colod.failover.record import RecordState
from colod.failover.view import Fence, Link
from colod.failover.world.state import HOSTS, Bounds, Domain, Host, Shared


class Mark(NamedTuple):
    """What the promises look at of one host."""

    runs: bool
    speaks: bool
    is_fresh: bool
    is_closed: bool
    incoming_runs: bool
    holds: bool
    """Whether it has a copy that can still be run."""
    keeps: bool
    """Whether it has one, or a replica of which a person may make one."""
    holds_fresh: bool
    """Whether that copy has everything that the world has seen."""
    started: bool
    follows: bool
    awaits_fence: bool
    has_journal: bool
    is_secondary: bool
    is_superseded: bool
    """Whether it is a primary whose journal still knows a record."""


class Grant(NamedTuple):
    """What the promises look at of the witness."""

    owner: int
    """0 or 1; -1 where there is no record."""
    is_paired: bool
    is_activated: bool
    is_over: bool
    is_restored: bool


def mark_of(host: Host) -> Mark:
    """Return what the promises look at of `host`."""
    guest, incoming, journal = host.guest, host.incoming, host.journal
    copy = guest or (incoming if host.xl and host.acked > 0 else None)
    if copy is None and _is_restarting(host):
        copy = Domain()  # its disk is all that there is of a guest that reboots
    return Mark(
        runs=guest is not None and guest.runs,
        speaks=guest is not None and guest.speaks,
        is_fresh=guest is not None and guest.fresh,
        is_closed=guest is not None and guest.closed,
        incoming_runs=incoming is not None and incoming.runs,
        holds=copy is not None,
        keeps=copy is not None or (incoming is not None and incoming.whole),
        holds_fresh=copy is not None and copy.fresh,
        started=journal is not None and journal.started,
        follows=host.link is Link.FOLLOWING,
        awaits_fence=host.fence is Fence.UNCONFIRMED,
        has_journal=journal is not None,
        is_secondary=journal is not None and not host.is_sender,
        is_superseded=journal is not None and host.is_sender and journal.record is not None,
    )


def _is_restarting(host: Host) -> bool:
    journal = host.journal
    if journal is None or not host.is_up:
        return False
    return journal.restarting_since > 0.0 and journal.boot == str(host.boot)


def grant_of(shared: Shared) -> Grant:
    """Return what the promises look at of the witness."""
    record = shared.record
    if record is None:
        return Grant(-1, False, False, shared.is_over, shared.is_restored)
    return Grant(
        owner=HOSTS.index(record.owner),
        is_paired=record.state is RecordState.PAIRED,
        is_activated=record.activated,
        is_over=shared.is_over,
        is_restored=shared.is_restored,
    )


def judge(alpha: Mark, beta: Mark, grant: Grant, bounds: Bounds) -> Verdict:
    """Return what a state is worth."""
    marks = (alpha, beta)
    alive = is_alive(tuple(mark._replace(holds=mark.keeps) for mark in marks), grant)
    broken = _broken(marks, grant, bounds.gated, bounds.fencing)
    return Verdict(broken, not is_alive(marks, grant) or _is_good(marks, grant), alive)


def _broken(marks: tuple[Mark, Mark], grant: Grant, gated: bool, fencing: bool) -> str:
    if any(mark.incoming_runs for mark in marks):
        return "an incoming copy runs"
    if (fencing or not gated) and all(mark.runs for mark in marks):
        return "two copies run"
    return _misspoken(marks, grant) if gated else ""


def _misspoken(marks: tuple[Mark, Mark], grant: Grant) -> str:
    speaking = [i for i in (0, 1) if marks[i].speaks]
    if len(speaking) > 1:
        return "two copies speak"
    if any(not marks[i].is_fresh for i in speaking):
        return "a copy speaks that lacks what the world has seen"
    if grant.owner < 0 or grant.is_restored:
        return ""
    if speaking and speaking[0] != grant.owner:
        return f"{HOSTS[speaking[0]]} speaks and {HOSTS[grant.owner]} owns the guest"
    owner = marks[grant.owner]
    if grant.is_paired and owner.runs and not owner.is_closed:
        return "PAIRED with an open gate"
    return ""


def _is_good(marks: Sequence[Mark], grant: Grant) -> bool:
    """Whether the guest speaks from its owner, alone or protected, or nobody protects it.

    Also good, since only a person can go on: fencing proved nothing, and a person must see to it
    that the other host is off; or the witness was restored from a backup, and a person must say
    which host has the guest.
    """
    if grant.is_restored:
        return True
    if grant.owner < 0:
        # A primary that was cut off while the other host took over and then ended the protection
        # keeps its copy paused until a person looks at it.
        is_over = all(mark.is_superseded for mark in marks if mark.has_journal)
        return is_over and any(mark.speaks and not mark.has_journal for mark in marks)
    owner = marks[grant.owner]
    if owner.awaits_fence:
        return True
    is_protected = grant.is_paired and all(mark.follows for mark in marks)
    return grant.is_activated and owner.runs and (owner.speaks or is_protected)


def is_alive(marks: Sequence[Mark], grant: Grant) -> bool:
    """Whether some copy is left that the record allows to run, now or after a hand-back.

    Where it is not, an accident took the guest and a person decides what becomes of it: of the
    other host's disk, or of a replica that its xl left half-way (`Mark.keeps`).
    """
    if grant.is_over:
        return False
    if grant.is_restored:
        return any(mark.holds_fresh for mark in marks)
    if grant.owner < 0:
        return any(mark.holds_fresh and not mark.is_secondary for mark in marks)
    owner, peer = marks[grant.owner], marks[1 - grant.owner]
    if owner.holds:
        return True
    if owner.started:
        # It may have spoken before it died: what the other host has is too old to go on from.
        return False
    return (grant.is_paired or not grant.is_activated) and peer.holds


def broken_write(shared: Shared, then: Shared) -> str:
    """Return which promise a change of the witness's record breaks."""
    before, after = shared.record, then.record
    if then.is_restored or before is None or after is None or before == after:
        return ""
    same = (before.owner, before.pairing) == (after.owner, after.pairing)
    if after.generation < before.generation or (after.generation == before.generation and not same):
        return "a fencing token was given twice"
    return ""
