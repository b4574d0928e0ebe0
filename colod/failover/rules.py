"""The table of decisions: for any view, the first rule that fits says what to show and do.

The order is the argument. What keeps a second copy from running comes first and needs nobody's
answer; then what is known of ownership is brought up to date; only then do roles act on it. A rule
that destroys, runs or gives away anything demands a confirmed record that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from colod.errors import InvariantBroken
from colod.failover import record as records
from colod.failover.effects import Decision, Do, State, Swap
from colod.failover.learning import learn
from colod.failover.record import OwnershipRecord, RecordState
from colod.failover.view import (
    Answer,
    Contact,
    Copy,
    Fence,
    Journal,
    Link,
    Pending,
    Replica,
    View,
    Wanted,
    replica_of,
)
from colod.model import FIRST_PROMOTABLE_EPOCH, PairingId, Role


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: where it fits and what follows."""

    name: str
    fits: Callable[[View], bool]
    then: Callable[[View], Decision]


def decide(view: View, rules: tuple[Rule, ...] | None = None) -> Decision:
    """Return what follows from `view`.

    Raises:
        InvariantBroken: If no rule fits; the table is defective.
    """
    for rule in RULES if rules is None else rules:
        if rule.fits(view):
            return replace(rule.then(view), rule=rule.name)
    raise InvariantBroken(f"no rule fits {view}")


# --- predicates -------------------------------------------------------------------------------


def _is_primary(view: View) -> bool:
    return view.journal.role is Role.PRIMARY


def _is_secondary(view: View) -> bool:
    return view.journal.role is Role.SECONDARY


def _is_free(view: View) -> bool:
    """Whether the guest exists here and no pause reference holds it."""
    return view.guest in (Copy.RUNNING, Copy.SUSPENDED)


def _may_be_paired(view: View) -> bool:
    """An unknown PAIRED counts as PAIRED."""
    pending = view.journal.pending
    return view.is_paired or (
        pending is not None and pending.new is not None and pending.new.state is RecordState.PAIRED
    )


def _goes_well(view: View) -> bool:
    """Whether the primary's pairing is alive at both ends."""
    return view.is_link_healthy and view.peer_replica not in (Replica.LOST, Replica.FROZEN)


def _is_unsettled(view: View) -> bool:
    """Whether the guest here might belong to the other host by now."""
    if view.journal.record is None:
        return False
    if not view.is_mine:
        return True
    return _may_be_paired(view) and not _goes_well(view)


def _is_older(view: View) -> bool:
    """Whether the witness knows less than this host: it was restored or tampered with."""
    known = view.journal.record
    if view.answer is not Answer.READ or known is None:
        return False
    if view.record is None:
        return view.journal.wanted is not Wanted.UNPROTECTED
    if view.record.generation == known.generation:
        return (view.record.owner, view.record.pairing) != (known.owner, known.pairing)
    return view.record.generation < known.generation


def _is_news(view: View) -> bool:
    return (
        view.answer is Answer.READ
        and view.record is not None
        and (view.record, view.revision) != (view.journal.record, view.journal.revision)
    )


def _owns_alone(view: View) -> bool:
    return view.is_mine and not view.is_paired and view.is_activated


def _owns_unactivated(view: View) -> bool:
    return view.is_mine and not view.is_paired and not view.is_activated


def _owns_paired(view: View) -> bool:
    return view.is_mine and view.is_paired


def _is_peers(view: View) -> bool:
    return view.journal.record is not None and not view.is_mine


def _is_left_over(view: View) -> bool:
    """Whether anything of a session is still there."""
    return view.link is not Link.NONE or view.xl_alive


def _is_void(view: View) -> bool:
    """Whether this secondary's replica can never be promoted again, by a confirmed record."""
    record = view.journal.record
    if record is None or view.answer is not Answer.READ or view.is_replica_promised:
        return False
    if view.journal.pairing is None or not record.activated:
        return False
    return record.generation > view.journal.pairing_generation or view.peer_gave_up


def _is_promotable(view: View) -> bool:
    return view.is_replica_promised and replica_of(view) in (Replica.FOLLOWING, Replica.FROZEN)


# --- shorthands for what follows --------------------------------------------------------------


def _show(state: State, cause: str = "", advice: str = "") -> Decision:
    return Decision(rule="", state=state, cause=cause, advice=advice)


def _act(
    view: View, state: State | None, effect: Do, cause: str = "", **journal: object
) -> Decision:
    entry = replace(view.journal, **journal) if journal else None  # type: ignore[arg-type]
    if entry == view.journal:
        entry = None
    return Decision(rule="", state=state, cause=cause, journal=entry, effect=effect)


def _note(view: View, state: State | None, cause: str = "", **journal: object) -> Decision:
    entry = replace(view.journal, **journal)  # type: ignore[arg-type]
    return Decision(rule="", state=state, cause=cause, journal=entry)


def _swap(
    view: View, new: OwnershipRecord | None, state: State, cause: str = "", **journal: object
) -> Decision:
    pending = Pending(new=new, record=view.journal.record, revision=view.journal.revision)
    entry = replace(view.journal, pending=pending, **journal)  # type: ignore[arg-type]
    return Decision(rule="", state=state, cause=cause, journal=entry, effect=Swap(new))


def _known(journal: Journal) -> OwnershipRecord:
    assert journal.record is not None
    return journal.record


_WITNESS_AWAY = "the witness does not answer"
_BRING_BACK_WITNESS = "bring the witness back; nothing is lost meanwhile"


def _held_for_witness(view: View) -> Decision:
    return _show(State.MANUAL_HOLD, _WITNESS_AWAY, _BRING_BACK_WITNESS)


def _replicating(view: View) -> Decision:
    held = view.gated and view.gate_closed
    state = State.PROTECTED if held else State.REPLICATING
    cause = "" if view.contact is Contact.UP else "the other host's daemon is silent"
    return _show(state, cause)


def _why(view: View) -> str:
    if view.link_error:
        return view.link_error
    if view.peer_replica in (Replica.LOST, Replica.FROZEN):
        return f"the replica on {view.journal.peer} is {view.peer_replica}"
    return "the session is gone"


# --- what holds whoever owns ------------------------------------------------------------------

_SAFETY = (
    Rule(
        "erase",
        lambda v: (
            v.journal.wanted is Wanted.UNPROTECTED
            and v.journal.record is None
            and v.journal.pending is None
            and not (_is_secondary(v) and (v.has_copy or _is_left_over(v)))
        ),
        lambda v: _act(v, State.STOPPED, Do.ERASE),
    ),
    # First of all: a guest that may belong to the other host does not run, whoever answers.
    Rule(
        "hold",
        lambda v: _is_free(v) and _is_unsettled(v),
        lambda v: _act(v, State.ARBITRATING, Do.HOLD_GUEST, _why(v), held=True),
    ),
)

# --- bringing what is known of ownership up to date -------------------------------------------

_KNOWLEDGE = (
    Rule(
        "settle",
        lambda v: v.journal.pending is not None,
        lambda v: _act(
            v,
            State.MANUAL_HOLD
            if v.answer is Answer.UNREACHABLE
            else (State.SYNCING if _goes_well(v) else State.ARBITRATING),
            Do.SETTLE_WRITE,
            "the outcome of a write to the witness is not known yet",
        ),
    ),
    Rule(
        "ask",
        lambda v: v.answer is Answer.STALE,
        lambda v: _act(v, None, Do.READ_WITNESS),
    ),
    Rule(
        "older",
        _is_older,
        lambda v: _show(
            State.MANUAL_HOLD,
            "the witness knows less than this host's journal: it was restored or erased",
            "see docs/witness.md, 'An older witness'",
        ),
    ),
    Rule(
        "learn",
        _is_news,
        lambda v: Decision(
            rule="",
            state=None,
            journal=learn(v.journal, _read(v), v.revision),
        ),
    ),
    Rule(
        "deleted",
        lambda v: (
            v.answer is Answer.READ
            and v.record is None
            and v.journal.record is not None
            and v.journal.wanted is Wanted.UNPROTECTED
        ),
        lambda v: _note(v, None, record=None, revision=v.revision),
    ),
)


def _read(view: View) -> OwnershipRecord:
    assert view.record is not None
    return view.record


# --- a new protection -------------------------------------------------------------------------

_CREATION = (
    Rule(
        "create",
        lambda v: (
            _is_primary(v)
            and v.journal.record is None
            and v.answer is Answer.READ
            and v.journal.wanted is not Wanted.UNPROTECTED
        ),
        lambda v: _swap(
            v,
            records.create(
                v.journal.host, v.journal.peer, attempt=v.new_id, after=v.last_generation
            ),
            State.PAIRING,
            boot=v.boot,
        ),
    ),
    Rule(
        "await_creation",
        lambda v: _is_primary(v) and v.journal.record is None,
        _held_for_witness,
    ),
)

# --- the owner of a pair ----------------------------------------------------------------------

_OWNER_PAIRED = (
    # The guest died with its host, not by its own will: the replica is all there is of it.
    Rule(
        "host_was_restarted",
        lambda v: (
            _owns_paired(v)
            and not _is_left_over(v)
            and v.boot != v.journal.boot
            and v.answer is Answer.READ
        ),
        lambda v: _swap(
            v,
            records.hand_over(_known(v.journal), attempt=v.new_id),
            State.ARBITRATING,
            "this host was restarted; the other one has the guest's newest state",
        ),
    ),
    Rule(
        "leave_pair",
        lambda v: (
            _owns_paired(v) and v.journal.wanted is not Wanted.PROTECTED and v.answer is Answer.READ
        ),
        lambda v: _swap(
            v,
            records.go_alone(_known(v.journal), attempt=v.new_id),
            State.ARBITRATING,
            "by the operator",
            reason="by the operator",
        ),
    ),
    Rule("replicate", lambda v: _owns_paired(v) and _goes_well(v), _replicating),
    Rule(
        "go_alone",
        lambda v: _owns_paired(v) and v.answer is Answer.READ,
        lambda v: _swap(
            v,
            records.go_alone(_known(v.journal), attempt=v.new_id),
            State.ARBITRATING,
            _why(v),
            reason=_why(v),
        ),
    ),
    Rule("hold_without_witness", _owns_paired, _held_for_witness),
)

# --- an owner whose copy does not run yet -----------------------------------------------------


def _run(view: View) -> Decision:
    """Say on disk that the copy is about to run; after that it is never handed back."""
    return _act(view, State.PROMOTING, Do.RUN_GUEST, started=True)


def _promotes(view: View) -> bool:
    return _owns_unactivated(view) and _is_secondary(view)


_OWNER_UNACTIVATED = (
    Rule(
        "fence",
        lambda v: _promotes(v) and v.fence is Fence.NEEDED,
        lambda v: _act(v, State.FENCING, Do.FENCE_PEER),
    ),
    Rule(
        "await_fence",
        lambda v: _promotes(v) and v.fence is Fence.UNCONFIRMED,
        lambda v: _show(
            State.MANUAL_HOLD,
            f"nothing proves that {v.journal.peer} cannot write",
            f"switch {v.journal.peer} off, then confirm it",
        ),
    ),
    Rule(
        "hand_over_to_xl",
        lambda v: (
            _promotes(v)
            and v.link in (Link.FOLLOWING, Link.BROKEN)
            and v.xl_alive
            and v.incoming
            and not v.handed_over
        ),
        lambda v: _act(v, State.PROMOTING, Do.HAND_OVER),
    ),
    Rule(
        "await_takeover",
        lambda v: _promotes(v) and v.incoming and v.xl_alive,
        lambda v: _act(v, State.PROMOTING, Do.AWAIT_TAKEOVER),
    ),
    Rule(
        "drop_orphan",
        lambda v: _promotes(v) and v.incoming and not v.journal.started,
        lambda v: _act(
            v, State.PROMOTING, Do.DISCARD_REPLICA, "xl died before it let the replica go"
        ),
    ),
    Rule(
        "run",
        lambda v: _owns_unactivated(v) and v.guest is Copy.PAUSED,
        _run,
    ),
    Rule(
        "release_own",
        lambda v: _owns_unactivated(v) and _is_primary(v) and _is_left_over(v),
        lambda v: _act(v, State.PROMOTING, Do.RELEASE_SESSION),
    ),
    Rule(
        "resume_own",
        lambda v: _owns_unactivated(v) and v.guest is Copy.SUSPENDED,
        lambda v: _act(v, State.PROMOTING, Do.RESUME_GUEST, started=True),
    ),
    Rule(
        "activate",
        lambda v: _owns_unactivated(v) and v.guest is Copy.RUNNING and v.answer is Answer.READ,
        lambda v: _swap(
            v,
            records.activate(_known(v.journal), attempt=v.new_id),
            State.PROMOTING,
            started=True,
        ),
    ),
    Rule(
        "hand_back",
        lambda v: (
            _promotes(v)
            and not v.has_copy
            and not v.journal.started
            and v.journal.may_hand_back
            and v.answer is Answer.READ
        ),
        lambda v: _swap(
            v,
            records.hand_back(_known(v.journal), attempt=v.new_id),
            State.ARBITRATING,
            "the replica was lost before it ran",
        ),
    ),
    Rule(
        "nothing_to_run",
        lambda v: _owns_unactivated(v) and v.answer is Answer.READ,
        lambda v: _show(
            State.MANUAL_HOLD,
            "this host owns the guest and has no copy of it",
            "start the guest here by hand; colod takes it from there",
        ),
    ),
    Rule("unactivated_without_witness", _owns_unactivated, _held_for_witness),
)

# --- an owner alone ---------------------------------------------------------------------------


def _alone(view: View) -> Decision:
    if view.guest is Copy.PAUSED:
        return _show(State.ALONE, "the guest is paused, not by colod", "xl unpause it")
    return _show(State.ALONE, view.journal.reason)


def _pairing_on(view: View) -> Decision:
    if view.link is Link.STARTING:
        return _show(State.PAIRING)
    if view.is_promotable_epoch_acked:
        return _show(State.SYNCING, _WITNESS_AWAY, _BRING_BACK_WITNESS)
    return _show(State.SYNCING)


_OWNER_ALONE = (
    Rule(
        "release_receiver",
        lambda v: _owns_alone(v) and _is_secondary(v) and v.link is not Link.NONE,
        lambda v: _act(v, State.PROMOTING, Do.RELEASE_SESSION),
    ),
    Rule(
        "become_primary",
        lambda v: _owns_alone(v) and _is_secondary(v),
        lambda v: _note(
            v,
            State.ALONE,
            role=Role.PRIMARY,
            pairing=None,
            held=False,
            started=False,
            may_hand_back=False,
            force_reason="",
            boot=v.boot,
            wanted=Wanted.PROTECTED,
            reason=f"took over from {v.journal.peer}",
        ),
    ),
    # Before its xl is let go: xl may wait for a suspension that a paused guest cannot do.
    Rule(
        "let_run",
        lambda v: _owns_alone(v) and v.guest is Copy.PAUSED and v.journal.held,
        lambda v: _act(v, State.ALONE, Do.RUN_GUEST),
    ),
    Rule(
        "release_sender",
        lambda v: (
            _owns_alone(v)
            and (
                v.link is Link.BROKEN
                or (v.link is Link.NONE and v.xl_alive)
                or (v.link is not Link.NONE and not v.wants_pairing)
            )
        ),
        lambda v: _act(v, State.ALONE, Do.RELEASE_SESSION, reason=v.link_error or v.journal.reason),
    ),
    Rule(
        "leave_pairing",
        lambda v: _owns_alone(v) and v.link is Link.NONE and v.journal.pairing is not None,
        lambda v: _note(v, None, pairing=None),
    ),
    Rule(
        "resume",
        lambda v: _owns_alone(v) and v.guest is Copy.SUSPENDED and not _is_left_over(v),
        lambda v: _act(v, State.ALONE, Do.RESUME_GUEST),
    ),
    Rule(
        "note_running",
        lambda v: (
            _owns_alone(v)
            and v.guest not in (Copy.PAUSED, Copy.SUSPENDED)
            and (v.journal.held or v.journal.started)
        ),
        lambda v: _note(v, None, held=False, started=False, may_hand_back=False),
    ),
    Rule(
        "open_gate",
        lambda v: _owns_alone(v) and v.gate_closed and v.link is Link.NONE,
        lambda v: _act(v, State.ALONE, Do.OPEN_GATE),
    ),
    Rule(
        "delete",
        lambda v: (
            _owns_alone(v) and v.journal.wanted is Wanted.UNPROTECTED and v.answer is Answer.READ
        ),
        lambda v: _swap(v, None, State.STOPPED),
    ),
    Rule(
        "guest_is_down",
        lambda v: _owns_alone(v) and v.guest in (Copy.ABSENT, Copy.DOWN) and v.link is Link.NONE,
        lambda v: _show(
            State.GUEST_SHUTDOWN, v.journal.reason, "start it with xl create; it is paired again"
        ),
    ),
    Rule(
        "stay_suspended",
        lambda v: _owns_alone(v) and not v.wants_pairing,
        lambda v: _show(
            State.SUSPENDED, "this host is being drained" if v.draining else "by the operator"
        ),
    ),
    Rule(
        "pair",
        lambda v: (
            _owns_alone(v)
            and v.is_promotable_epoch_acked
            and _goes_well(v)
            and v.journal.pairing is not None
            and v.answer is Answer.READ
        ),
        lambda v: _swap(
            v,
            records.pair(_known(v.journal), _pairing(v), FIRST_PROMOTABLE_EPOCH, attempt=v.new_id),
            State.SYNCING,
        ),
    ),
    Rule("pairing", lambda v: _owns_alone(v) and v.is_link_healthy, _pairing_on),
    Rule(
        "start_pairing",
        lambda v: (
            _owns_alone(v)
            and v.resync_due
            and v.contact is Contact.UP
            and v.guest is Copy.RUNNING
            and v.answer is Answer.READ
        ),
        lambda v: _act(
            v,
            State.PAIRING,
            Do.START_PAIRING,
            pairing=v.new_id,
            pairing_generation=_known(v.journal).generation,
            boot=v.boot,
        ),
    ),
    Rule("alone", _owns_alone, _alone),
)


def _pairing(view: View) -> PairingId:
    assert view.journal.pairing is not None
    return view.journal.pairing


# --- a primary that lost the guest ------------------------------------------------------------


def _lost(view: View) -> bool:
    return _is_peers(view) and _is_primary(view)


_LOSER = (
    Rule(
        "await_winner",
        lambda v: _lost(v) and not v.is_activated and v.guest is not Copy.ABSENT,
        lambda v: _show(State.LOST_RACE, f"{v.journal.peer} owns the guest, not yet running"),
    ),
    Rule(
        "destroy_own",
        lambda v: (
            _lost(v)
            and v.guest is not Copy.ABSENT
            and v.answer is Answer.READ
            and not v.keep_quarantined
        ),
        lambda v: _act(v, State.QUARANTINED, Do.DESTROY_GUEST),
    ),
    Rule(
        "release_lost",
        lambda v: _lost(v) and _is_left_over(v) and v.answer is Answer.READ,
        lambda v: _act(v, State.QUARANTINED, Do.RELEASE_SESSION),
    ),
    Rule(
        "put_aside",
        lambda v: _lost(v) and v.guest is not Copy.ABSENT and v.answer is Answer.READ,
        lambda v: _act(v, State.QUARANTINED, Do.QUARANTINE_GUEST),
    ),
    Rule(
        "lost_without_witness",
        lambda v: _lost(v) and v.answer is not Answer.READ,
        _held_for_witness,
    ),
    Rule(
        "become_secondary",
        _lost,
        lambda v: _note(
            v,
            State.STOPPED,
            role=Role.SECONDARY,
            pairing=None,
            held=False,
            started=False,
            reason=f"{v.journal.peer} took over",
        ),
    ),
)

# --- a secondary ------------------------------------------------------------------------------


def _force(view: View) -> Decision:
    forced = records.force(
        _known(view.journal),
        view.journal.host,
        attempt=view.new_id,
        reason=view.journal.force_reason,
    )
    return _swap(view, forced, State.ARBITRATING, "forced by the operator", force_reason="")


def _takes_over(view: View) -> Decision:
    cause = "by the operator" if view.failover_asked else f"{view.journal.peer} is lost"
    taken = records.take_over(_known(view.journal), _pairing(view), attempt=view.new_id)
    return _swap(view, taken, State.ARBITRATING, cause)


_SECONDARY = (
    Rule(
        "take_over",
        lambda v: (
            _is_promotable(v)
            and (v.contact is Contact.LOST or v.failover_asked or v.journal.force_reason != "")
            and v.answer is Answer.READ
        ),
        _takes_over,
    ),
    Rule(
        "force",
        lambda v: (
            _is_peers(v)
            and v.journal.force_reason != ""
            and replica_of(v) in (Replica.FOLLOWING, Replica.FROZEN)
            and v.answer is Answer.READ
        ),
        _force,
    ),
    Rule(
        "follow",
        lambda v: _is_promotable(v) and v.link is Link.FOLLOWING and v.contact is not Contact.LOST,
        _replicating,
    ),
    Rule(
        "await_primary",
        lambda v: _is_promotable(v) and v.contact is not Contact.LOST,
        lambda v: _show(
            State.DEGRADED, f"{v.link_error or 'the session is gone'}; {v.journal.peer} decides"
        ),
    ),
    Rule("await_witness", _is_promotable, _held_for_witness),
    Rule(
        "replica_lost",
        lambda v: v.is_replica_promised,
        lambda v: _show(
            State.DEGRADED if v.contact is not Contact.LOST else State.MANUAL_HOLD,
            f"the replica is lost; {v.journal.peer} goes on alone",
        ),
    ),
    Rule(
        "discard",
        lambda v: _is_void(v) and (v.incoming or _is_left_over(v)),
        lambda v: _act(v, State.STOPPED, Do.DISCARD_REPLICA),
    ),
    Rule(
        "destroy_frozen",
        lambda v: _is_void(v) and v.guest is not Copy.ABSENT,
        lambda v: _act(v, State.STOPPED, Do.DESTROY_GUEST),
    ),
    Rule(
        "forget_pairing",
        lambda v: _is_void(v) and not v.has_copy,
        lambda v: _note(v, State.STOPPED, pairing=None, held=False),
    ),
    Rule(
        "drop_unprotected",
        lambda v: (
            v.journal.wanted is Wanted.UNPROTECTED
            and v.journal.record is None
            and v.answer is Answer.READ
            and (v.incoming or _is_left_over(v))
        ),
        lambda v: _act(v, State.STOPPED, Do.DISCARD_REPLICA),
    ),
    Rule(
        "destroy_unprotected",
        lambda v: (
            v.journal.wanted is Wanted.UNPROTECTED
            and v.journal.record is None
            and v.answer is Answer.READ
            and v.journal.pairing is not None
            and v.guest is Copy.PAUSED
        ),
        lambda v: _act(v, State.STOPPED, Do.DESTROY_GUEST),
    ),
    Rule(
        "sync",
        lambda v: v.journal.pairing is not None and v.is_link_healthy,
        _pairing_on,
    ),
    Rule(
        "sync_broken",
        lambda v: v.journal.pairing is not None,
        lambda v: _show(
            State.DEGRADED if v.contact is not Contact.LOST else State.MANUAL_HOLD,
            f"{v.link_error or 'the session is gone'} before the replica was promotable",
            f"wait for {v.journal.peer}",
        ),
    ),
    Rule(
        "quarantined",
        lambda v: v.guest is not Copy.ABSENT,
        lambda v: _show(
            State.QUARANTINED,
            "a guest of that name is here, but the other host owns it",
            "look at it, then xl destroy it",
        ),
    ),
    Rule(
        "stand_by",
        lambda v: True,
        lambda v: _show(State.STOPPED, v.journal.reason or f"waits for {v.journal.peer} to pair"),
    ),
)

RULES: tuple[Rule, ...] = (
    *_SAFETY,
    *_KNOWLEDGE,
    *_CREATION,
    *_OWNER_PAIRED,
    *_OWNER_UNACTIVATED,
    *_OWNER_ALONE,
    *_LOSER,
    *_SECONDARY,
)
