"""A primary that lost the guest: its copy stays paused until the winner runs, then it goes."""

from __future__ import annotations

from colod.failover.effects import Do, State
from colod.failover.rules import facts as f
from colod.failover.rules.causes import HELD_FOR_WITNESS
from colod.failover.rules.table import Not, Rule, Then, act, forced, show, swap
from colod.model import Role

_BECOME_SECONDARY = Then(
    state=State.STOPPED,
    journal={
        "role": Role.SECONDARY,
        "pairing": None,
        "held": False,
        "started": False,
        "force_reason": "",
        "reason": lambda v: f"{v.journal.peer} took over",
    },
)

LOSER = (
    # Given on a person's word that the other host never ran its copy, or is off for good.
    Rule(
        "take_back",
        (
            f.has_lost,
            Not(f.winner_is_activated),
            f.is_forced,
            f.guest_is_here,
            f.witness_was_read,
        ),
        swap(State.ARBITRATING, forced, "forced by the operator", force_reason=""),
    ),
    Rule(
        "await_winner",
        (f.has_lost, Not(f.winner_is_activated), f.guest_is_here),
        show(State.LOST_RACE, lambda v: f"{v.journal.peer} owns the guest, not yet running"),
    ),
    Rule(
        "destroy_own",
        (f.has_lost, f.guest_is_here, f.witness_was_read, Not(f.quarantine_is_kept)),
        act(State.QUARANTINED, Do.DESTROY_GUEST),
    ),
    Rule(
        "release_lost",
        (f.has_lost, f.is_left_over, f.witness_was_read),
        act(State.QUARANTINED, Do.RELEASE_SESSION),
    ),
    Rule(
        "put_aside",
        (f.has_lost, f.guest_is_here, f.witness_was_read),
        act(State.QUARANTINED, Do.QUARANTINE_GUEST),
    ),
    Rule("lost_without_witness", (f.has_lost, Not(f.witness_was_read)), HELD_FOR_WITNESS),
    # What it holds is nobody's any more, and its interfaces may carry another guest's name by the
    # time this host owns the guest again.
    Rule(
        "discard_gate",
        (f.has_lost, f.gate_is_left),
        act(State.QUARANTINED, Do.DISCARD_GATE),
    ),
    Rule("become_secondary", (f.has_lost,), _BECOME_SECONDARY),
)
