"""The owner of a pair: it goes on, or settles that it goes on alone."""

from __future__ import annotations

from colod.failover import record as records
from colod.failover.effects import Do, State
from colod.failover.record import OwnershipRecord
from colod.failover.rules import facts as f
from colod.failover.rules.causes import HELD_FOR_WITNESS, REPLICATE, RESTARTED, protected, why
from colod.failover.rules.table import Not, Rule, act, handed_over, known, note, show, swap
from colod.failover.view import View


def _gone_alone(view: View) -> OwnershipRecord:
    return records.go_alone(known(view), attempt=view.new_id)


_SWITCHES = (f.owns_paired, f.switchover_is_asked, f.goes_well)

OWNER_PAIRED = (
    # The guest died with its host, not by its own will: the replica is all there is of it.
    Rule(
        "host_was_restarted",
        (f.owns_paired, Not(f.is_left_over), f.was_restarted, f.witness_was_read),
        swap(
            State.ARBITRATING,
            handed_over,
            RESTARTED,
        ),
    ),
    Rule(
        "leave_pair",
        (f.owns_paired, Not(f.wants_pairing), f.witness_was_read),
        swap(State.ARBITRATING, _gone_alone, "by the operator", reason="by the operator"),
    ),
    # A switchover that cannot be done leaves everything as it was: the pair is alive, so the guest
    # runs as before, its output held; that needs no witness. The guest first, then the note.
    Rule(
        "resume_from_switchover",
        (*_SWITCHES, f.switchover_is_off, f.is_held, f.guest_is_paused),
        act(State.SWITCHOVER, Do.RUN_GUEST, "the switchover is given up"),
    ),
    Rule(
        "give_switchover_up",
        (*_SWITCHES, f.switchover_is_off),
        note(None, switchover="", held=False),
    ),
    Rule(
        "give_away",
        (
            *_SWITCHES,
            f.is_held,
            f.guest_is_paused,
            f.final_epoch_is_acked,
            f.replica_follows_there,
            f.witness_was_read,
        ),
        swap(State.SWITCHOVER, handed_over, "by the operator", reason="by the operator"),
    ),
    Rule(
        "quiesce",
        (*_SWITCHES, f.replica_follows_there, f.guest_is_free),
        act(State.SWITCHOVER, Do.QUIESCE_GUEST, "the guest is being stopped", held=True),
    ),
    Rule(
        "await_final_epoch",
        _SWITCHES,
        show(State.SWITCHOVER, lambda v: f"the final epoch is on its way to {v.journal.peer}"),
    ),
    # The other host said that its replica was lost, and took it back.
    Rule(
        "go_on",
        (f.owns_paired, f.goes_well, f.guest_is_paused, f.is_held, f.witness_was_read),
        act(protected, Do.RUN_GUEST),
    ),
    Rule(
        "note_going_on",
        (f.owns_paired, f.goes_well, Not(f.guest_is_paused), f.is_held),
        note(None, held=False),
    ),
    Rule("replicate", (f.owns_paired, f.goes_well, Not(f.is_held)), REPLICATE),
    Rule(
        "go_alone",
        (f.owns_paired, f.witness_was_read),
        swap(State.ARBITRATING, _gone_alone, why, reason=why),
    ),
    Rule("hold_without_witness", (f.owns_paired,), HELD_FOR_WITNESS),
)
