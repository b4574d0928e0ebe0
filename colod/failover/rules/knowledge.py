"""What holds whoever owns; bringing knowledge of ownership up to date; a new protection."""

from __future__ import annotations

from colod.failover import record as records
from colod.failover.effects import Do, State
from colod.failover.learning import learn
from colod.failover.record import OwnershipRecord
from colod.failover.rules import facts as f
from colod.failover.rules.causes import (
    HELD_FOR_WITNESS,
    RESTARTED,
    SEE_FOREIGN_RECORD,
    foreign_record,
    why,
)
from colod.failover.rules.table import Not, Rule, Then, act, any_of, handed_over, note, show, swap
from colod.failover.view import Answer, Journal, View, Wanted


def _settling(view: View) -> State:
    """MANUAL_HOLD while the witness is away, else SYNCING or ARBITRATING."""
    if view.answer is Answer.UNREACHABLE:
        return State.MANUAL_HOLD
    return State.SYNCING if f.goes_well(view) else State.ARBITRATING


def _learned(view: View) -> Journal:
    assert view.record is not None
    return learn(view.journal, view.record, view.revision)


def _created(view: View) -> OwnershipRecord:
    journal = view.journal
    return records.create(
        journal.host, journal.peer, attempt=view.new_id, after=view.last_generation
    )


def _foreign(view: View) -> str:
    assert view.record is not None
    return foreign_record(view.record, view.journal)


def _stranger(view: View) -> int:
    """Remember which domain it is: the replica may get its name while nobody looks."""
    return view.guest_domid if f.is_secondary(view) else 0


def _revision(view: View) -> int:
    return view.revision


SAFETY = (
    Rule(
        "erase",
        (
            f.is_unprotected,
            Not(f.record_is_known),
            Not(f.write_is_pending),
            any_of(f.is_primary, Not(any_of(f.copy_is_here, f.is_left_over))),
        ),
        act(State.STOPPED, Do.ERASE),
    ),
    # It is gone, and what is paused under that name is the replica that xl let go.
    Rule(
        "forget_stranger",
        (f.is_secondary, f.is_held, Not(f.guest_is_stranger)),
        note(None, held=False, held_domid=0),
    ),
    # Whoever lets it run drops all pauses; what is not noted counts as a person's.
    Rule(
        "note_held",
        (f.held_unnoted, f.guest_is_paused, Not(f.is_held)),
        note(None, held=True, held_domid=_stranger),
    ),
    # First of all: a guest that may belong to the other host does not run, whoever answers.
    Rule(
        "hold",
        (f.guest_is_free, f.ownership_is_unsettled),
        act(State.ARBITRATING, Do.HOLD_GUEST, why, held=True, held_domid=_stranger),
    ),
    # It would go on beside the replica, under whatever name.
    Rule(
        "hold_stranger",
        (f.promotes, f.guest_is_free, f.name_is_taken, Not(f.has_started)),
        act(State.PROMOTING, Do.HOLD_GUEST, held=True, held_domid=_stranger),
    ),
    # Only while it has the name that xl alone gives: later it could be mistaken for another one.
    # Domains are numbered anew with each start of the host.
    Rule(
        "note_replica",
        (f.is_secondary, f.has_pairing, f.replica_is_unknown),
        note(None, replica_domid=lambda v: v.incoming_domid, boot=lambda v: v.boot),
    ),
)

_DELETED = (f.witness_was_read, f.witness_has_none, f.record_is_known, f.is_unprotected)

KNOWLEDGE = (
    # Its guest has died with the host meanwhile. The new wish replaces the very record that the old
    # one would: only one of them can win, and if the old one has, that is learned.
    Rule(
        "give_instead",
        (f.wish_to_be_alone_is_pending, f.was_restarted, Not(f.is_left_over)),
        swap(State.ARBITRATING, handed_over, RESTARTED),
    ),
    Rule(
        "settle",
        (f.write_is_pending,),
        act(_settling, Do.SETTLE_WRITE, "the outcome of a write to the witness is not known yet"),
    ),
    Rule("ask", (f.reading_is_stale,), act(None, Do.READ_WITNESS)),
    # What a host missed while it was down or cut off, the witness tells it.
    Rule(
        "ended",
        (f.is_secondary, f.protection_has_ended, Not(f.is_unprotected)),
        note(None, wanted=Wanted.UNPROTECTED),
    ),
    Rule(
        "ended_elsewhere",
        (f.protection_has_ended, f.record_is_known, Not(f.is_unprotected)),
        show(
            State.MANUAL_HOLD,
            lambda v: f"{v.journal.peer} took over and then ended the protection",
            "colodctl unprotect here too, then look at the paused copy and xl destroy it",
        ),
    ),
    Rule(
        "foreign",
        (f.record_is_foreign,),
        show(
            State.MANUAL_HOLD,
            _foreign,
            SEE_FOREIGN_RECORD,
        ),
    ),
    Rule(
        "older",
        (f.record_is_older,),
        show(
            State.MANUAL_HOLD,
            "the witness knows less than this host's journal: it was restored or erased",
            "see docs/witness.md, 'An older witness'",
        ),
    ),
    Rule("learn", (f.record_is_news,), Then(state=None, learn=_learned)),
    # While the record still says to hold the guest: without one, nobody would.
    Rule(
        "release_deleted",
        (*_DELETED, f.is_primary, f.is_left_over),
        act(State.STOPPED, Do.RELEASE_SESSION),
    ),
    Rule("deleted", _DELETED, note(None, record=None, revision=_revision)),
)

CREATION = (
    Rule(
        "create",
        (
            f.is_primary,
            Not(f.record_is_known),
            f.witness_was_read,
            Not(f.is_unprotected),
        ),
        # A record that was deleted left its revision: what is replaced is its absence since then.
        swap(State.PAIRING, _created, boot=lambda v: v.boot, revision=_revision),
    ),
    Rule("await_creation", (f.is_primary, Not(f.record_is_known)), HELD_FOR_WITNESS),
)
