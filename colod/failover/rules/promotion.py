"""An owner whose copy does not run yet: a winner on its way, or one that was handed the guest."""

from __future__ import annotations

from colod.failover import record as records
from colod.failover.effects import Do, State
from colod.failover.record import OwnershipRecord
from colod.failover.rules import facts as f
from colod.failover.rules.causes import (
    HELD_FOR_WITNESS,
    LOOK_THEN_DESTROY,
    NAME_TAKEN,
    move_aside,
    rename_orphan,
)
from colod.failover.rules.table import Not, Rule, Then, act, any_of, known, note, show, swap
from colod.failover.view import Fence, View
from colod.model import INCOMING_SUFFIX


def _activated(view: View) -> OwnershipRecord:
    return records.activate(known(view), attempt=view.new_id)


def _handed_back(view: View) -> OwnershipRecord:
    return records.hand_back(known(view), attempt=view.new_id)


def _orphaned(view: View) -> str:
    if view.handed_over:
        return "xl ended before it gave the replica the guest's name"
    return "xl ended before it let the replica go, which may lack the end of the last epoch"


def _rename(view: View) -> str:
    guest, peer = view.journal.protection.guest, view.journal.peer
    if view.handed_over:
        return rename_orphan(view)
    goes_on = "it goes on"
    if not view.journal.may_hand_back:
        goes_on = f"colodctl failover {guest} there, with --force-reason"
    return (
        f"bring {peer} back: if it keeps its copy, {goes_on}; "
        f"only if it has none: {rename_orphan(view)}"
    )


def _fencing(view: View) -> State:
    """FENCING, or MANUAL_HOLD where it is tried again."""
    return State.MANUAL_HOLD if view.fence is Fence.DUE_AGAIN else State.FENCING


def _unproved(view: View) -> str:
    if view.fence is Fence.NEEDED:
        return ""
    trouble = f": {view.fence_trouble}" if view.fence_trouble else ""
    return f"nothing proves that {view.journal.peer} cannot write{trouble}"


def _confirm(view: View) -> str:
    if view.fence is Fence.NEEDED:
        return ""
    guest, peer = view.journal.protection.guest, view.journal.peer
    return f"switch {peer} off, then: colodctl fence-confirm {guest} --reason …"


def _start_by_hand(view: View) -> str:
    """Say what to do without a copy here; what the other host has goes once this one runs."""
    guest, peer = view.journal.protection.guest, view.journal.peer
    by_hand = "start the guest here by hand; colod takes it from there"
    if f.is_secondary(view):
        return by_hand
    return (
        f"look on {peer} first: {guest}{INCOMING_SUFFIX} may be all that is left "
        f"(colodctl status there); else {by_hand}"
    )


WAIT_FOR_FENCE = frozenset({"fence", "await_fence"})
"""The rules by which a takeover waits for a proof that the other host is off."""


OWNER_UNACTIVATED = (
    # What is left of a replica here is destroyed only after the other host runs its own copy.
    Rule(
        "hand_back",
        (
            f.promotes,
            f.replica_can_be_spared,
            any_of(f.incoming_is_here, Not(f.guest_is_here)),
            Not(f.has_started),
            f.may_hand_back,
            f.witness_was_read,
        ),
        swap(State.ARBITRATING, _handed_back, "the replica cannot run here"),
    ),
    Rule(
        "free_name",
        (f.promotes, f.name_is_taken, Not(f.has_started)),
        show(
            State.MANUAL_HOLD,
            NAME_TAKEN,
            move_aside,
        ),
    ),
    Rule(
        "await_rename",
        (f.promotes, f.incoming_is_here, Not(f.xl_lives), Not(f.has_started)),
        show(State.MANUAL_HOLD, _orphaned, _rename),
    ),
    # Nobody is fenced for a guest that this host cannot run: the other one may hold the last copy.
    # Nor once the guest was let run: a proof counts for its takeover, also over a daemon's restart.
    Rule(
        "fence",
        (f.owns_unactivated, f.copy_is_here, f.fence_is_needed, Not(f.has_started)),
        Then(state=_fencing, cause=_unproved, advice=_confirm, do=Do.FENCE_PEER),
    ),
    Rule(
        "await_fence",
        (f.owns_unactivated, f.copy_is_here, f.fence_is_unconfirmed, Not(f.has_started)),
        show(
            State.MANUAL_HOLD,
            _unproved,
            _confirm,
        ),
    ),
    Rule(
        "hand_over_to_xl",
        (
            f.promotes,
            f.session_can_finish,
            f.xl_lives,
            f.incoming_is_here,
            Not(f.was_handed_over),
        ),
        act(State.PROMOTING, Do.HAND_OVER),
    ),
    Rule(
        "await_takeover",
        (f.promotes, f.incoming_is_here, f.xl_lives),
        act(State.PROMOTING, Do.AWAIT_TAKEOVER),
    ),
    Rule(
        "never_run_stranger",
        (f.promotes, f.guest_is_stranger, Not(f.has_started)),
        show(
            State.MANUAL_HOLD,
            "the guest of that name here is not the replica",
            LOOK_THEN_DESTROY,
        ),
    ),
    # On disk first: a copy that has begun to run is never handed back.
    Rule(
        "run",
        (f.owns_unactivated, f.guest_is_paused),
        act(State.PROMOTING, Do.RUN_GUEST, started=True),
    ),
    Rule(
        "release_own",
        (f.owns_unactivated, f.is_primary, f.is_left_over),
        act(State.PROMOTING, Do.RELEASE_SESSION),
    ),
    Rule(
        "resume_own",
        (f.owns_unactivated, f.guest_is_suspended),
        act(State.PROMOTING, Do.RESUME_GUEST, started=True),
    ),
    Rule(
        "activate",
        (f.owns_unactivated, f.guest_has_run, f.witness_was_read),
        swap(State.PROMOTING, _activated, started=True),
    ),
    # What is started by hand from now on is nobody's replica, and nobody's stranger.
    Rule(
        "forget_replica",
        (f.promotes, f.replica_is_gone, Not(f.xl_lives), Not(f.has_started)),
        note(None, replica_domid=0),
    ),
    Rule(
        "nothing_to_run",
        (f.owns_unactivated, f.witness_was_read),
        show(
            State.MANUAL_HOLD,
            "this host owns the guest and has no copy of it",
            _start_by_hand,
        ),
    ),
    Rule("unactivated_without_witness", (f.owns_unactivated,), HELD_FOR_WITNESS),
)
