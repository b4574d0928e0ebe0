"""A secondary: it follows, takes over what it was promised, and clears away what is void."""

from __future__ import annotations

from colod.failover import record as records
from colod.failover.effects import Do, State
from colod.failover.record import OwnershipRecord
from colod.failover.rules import facts as f
from colod.failover.rules.causes import (
    HELD_FOR_WITNESS,
    LOOK_THEN_DESTROY,
    NAME_TAKEN,
    PAIRING_ON,
    REPLICATE,
    and_witness_away,
    degraded,
    link_error,
    move_aside,
    rename_orphan,
)
from colod.failover.rules.table import Not, Rule, act, any_of, forced, known, note, show, swap
from colod.failover.view import View


def _taken_over(view: View) -> OwnershipRecord:
    pairing = view.journal.pairing
    assert pairing is not None
    return records.take_over(known(view), pairing, attempt=view.new_id)


def _why_by_hand(view: View) -> str:
    return "automation is paused" if view.automation_paused else "policy.takeover is manual"


KEPT_FOR_WORD = "await_word"
"""A drained host cannot give its replica up: the other host is lost."""

_OF_NO_USE = any_of(f.replica_is_void, f.protection_is_gone)

SECONDARY = (
    # Given for the replica of that moment: it does not wait for another one to appear.
    Rule(
        "drop_force",
        (f.is_forced, f.replica_is_lost),
        note(None, force_reason=""),
    ),
    # xl could not give the replica its name, and the other domain would be taken for it.
    Rule(
        "stranger",
        (f.is_promised, f.name_is_taken),
        show(
            State.QUARANTINED,
            NAME_TAKEN,
            move_aside,
        ),
    ),
    Rule(
        "take_over",
        (
            f.is_promised,
            f.replica_is_sound,
            any_of(f.takeover_is_due, f.failover_is_asked, f.is_forced),
            f.witness_was_read,
        ),
        swap(
            State.ARBITRATING,
            _taken_over,
            lambda v: "by the operator" if v.failover_asked else f"{v.journal.peer} is lost",
        ),
    ),
    Rule(
        "force",
        (f.is_peers, f.is_forced, f.replica_is_sound, f.witness_was_read),
        swap(State.ARBITRATING, forced, "forced by the operator", force_reason=""),
    ),
    Rule(
        "follow",
        (f.is_promised, f.replica_is_sound, f.session_follows, Not(f.peer_is_lost)),
        REPLICATE,
    ),
    # By the record it would decide; without its journal it never will.
    Rule(
        "forgotten",
        (
            f.is_promised,
            f.replica_is_sound,
            f.peer_forgot_pairing,
            f.witness_was_read,
        ),
        show(
            State.MANUAL_HOLD,
            lambda v: f"{v.journal.peer} answers, and knows nothing of this pairing",
            lambda v: (
                f"if the guest does not run on {v.journal.peer}: "
                f"colodctl failover {v.journal.protection.guest}"
            ),
        ),
    ),
    Rule(
        "await_primary",
        (f.is_promised, f.replica_is_sound, Not(f.peer_is_lost)),
        show(
            State.DEGRADED,
            lambda v: f"{link_error(v)}; {v.journal.peer} decides",
            # It answers, so nothing here ends this: its own disk or xl may hang.
            lambda v: (
                f"if this lasts, look at {v.journal.peer}; colodctl failover "
                f"{v.journal.protection.guest} takes the guest from it"
            ),
        ),
    ),
    Rule(
        KEPT_FOR_WORD,
        (f.is_promised, f.replica_is_sound, f.is_drained),
        show(
            State.MANUAL_HOLD,
            lambda v: (
                f"{v.journal.peer} is lost, and this host was drained: the replica here may be "
                f"all that is left of the guest{and_witness_away(v)}"
            ),
            lambda v: (
                f"do not stop this host: bring {v.journal.peer} back, or: "
                f"colodctl failover {v.journal.protection.guest}"
            ),
        ),
    ),
    Rule(
        "await_operator",
        (f.is_promised, f.replica_is_sound, f.takeover_is_manual),
        show(
            State.MANUAL_HOLD,
            lambda v: (
                f"{v.journal.peer} is lost, and {_why_by_hand(v)}{and_witness_away(v)}"
                if v.peer_is_configured
                else f"{v.journal.peer} is not heard, since another peer is configured"
            ),
            lambda v: (
                f"bring {v.journal.peer} back, or: colodctl failover {v.journal.protection.guest}"
            ),
        ),
    ),
    Rule("await_witness", (f.is_promised, f.replica_is_sound), HELD_FOR_WITNESS),
    Rule(
        "replica_lost",
        (f.is_promised,),
        show(
            degraded,
            lambda v: f"the replica is lost; {v.journal.peer} goes on alone",
            lambda v: f"bring {v.journal.peer} back: what is left of the guest is there",
        ),
    ),
    Rule(
        "discard",
        (_OF_NO_USE, any_of(f.incoming_is_here, f.is_left_over)),
        act(State.STOPPED, Do.DISCARD_REPLICA),
    ),
    # A replica that xl let go is paused, by pauses that are not this daemon's. Anything else of
    # that name came from elsewhere, and is shown to a person (`quarantined`).
    Rule(
        "destroy_frozen",
        (
            _OF_NO_USE,
            f.has_pairing,
            f.guest_is_paused,
            any_of(Not(f.guest_is_stranger), f.has_started),
        ),
        act(State.STOPPED, Do.DESTROY_GUEST),
    ),
    Rule(
        "leave_stranger",
        (_OF_NO_USE, f.has_pairing, f.guest_is_here),
        note(None, pairing=None, replica_domid=0),
    ),
    Rule(
        "forget_pairing",
        (f.replica_is_void, Not(f.copy_is_here)),
        note(State.STOPPED, pairing=None, replica_domid=0),
    ),
    # Handed back, or never promised: until its owner runs, it may be all that is left.
    Rule(
        "keep_orphan",
        (
            f.is_peers,
            f.incoming_is_here,
            Not(f.xl_lives),
            Not(f.winner_is_activated),
        ),
        show(
            degraded,
            lambda v: f"an unfinished replica is kept until {v.journal.peer} runs its own copy",
            lambda v: (
                f"wait for {v.journal.peer}; only if it has none: {rename_orphan(v)}, "
                f"then colodctl failover {v.journal.protection.guest} with --force-reason"
            ),
        ),
    ),
    Rule("sync", (f.has_pairing, f.session_is_healthy), PAIRING_ON),
    Rule(
        "sync_broken",
        (f.has_pairing,),
        show(
            degraded,
            lambda v: f"{link_error(v)} before the replica was promotable",
            lambda v: f"wait for {v.journal.peer}",
        ),
    ),
    Rule(
        "quarantined",
        (f.guest_is_here,),
        show(
            State.QUARANTINED,
            "a guest of that name is here, but the other host owns it",
            LOOK_THEN_DESTROY,
        ),
    ),
    Rule(
        "stand_by",
        (),
        show(State.STOPPED, lambda v: v.journal.reason or f"waits for {v.journal.peer} to pair"),
    ),
)
