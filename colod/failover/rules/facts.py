"""Named facts of a view, which the rules' conditions are made of."""

from __future__ import annotations

from colod.failover.learning import contradicts, may_begin_with
from colod.failover.record import NO_GENERATION, RecordState
from colod.failover.view import (
    Answer,
    Contact,
    Copy,
    Ended,
    Fence,
    Link,
    Replica,
    View,
    Wanted,
    replica_of,
)
from colod.model import Role

RESTART_S = 900.0
"""How long a guest that rebooted is tried to be started: later it may be down for other reasons."""

# --- the witness ------------------------------------------------------------------------------


def witness_was_read(view: View) -> bool:
    """The witness has answered since anything changed that makes its answer matter."""
    return view.answer is Answer.READ


def reading_is_stale(view: View) -> bool:
    """The witness was not asked since something changed."""
    return view.answer is Answer.STALE


def witness_has_none(view: View) -> bool:
    """The witness holds no record of the guest."""
    return view.record is None


def write_is_pending(view: View) -> bool:
    """The outcome of a write to the witness is not known."""
    return view.journal.pending is not None


def wish_to_be_alone_is_pending(view: View) -> bool:
    """It is not known whether this owner of a pair has left it."""
    pending = view.journal.pending
    if pending is None or pending.new is None or not owns_paired(view):
        return False
    return pending.new.owner == view.journal.host


def record_is_known(view: View) -> bool:
    """The journal knows a confirmed record."""
    return view.journal.record is not None


def protection_has_ended(view: View) -> bool:
    """The witness says that an owner of this or a later generation ended the protection."""
    journal = view.journal
    known = max(journal.generation, journal.pairing_generation)
    return (
        view.answer is Answer.READ
        and view.record is None
        and view.last_generation >= known > NO_GENERATION
    )


def protection_is_gone(view: View) -> bool:
    """The operator wants no protection any more, and no record of it is left."""
    return is_unprotected(view) and not record_is_known(view) and witness_was_read(view)


def record_is_older(view: View) -> bool:
    """The witness knows less than this host: it was restored, erased or tampered with."""
    known = view.journal.record
    if view.answer is not Answer.READ or known is None:
        return False
    if view.record is None:  # an owner's deletion leaves a mark; nothing at all means a loss
        return not protection_has_ended(view)
    return contradicts(view.record, known)


def record_is_foreign(view: View) -> bool:
    """A new protection finds the record of another pair's guest of its name, or of an earlier life.

    A host that knew a record learns what came after it: there, its own protection has ended.
    """
    return (
        view.answer is Answer.READ
        and view.journal.record is None
        and view.record is not None
        and not may_begin_with(view.record, view.journal)
    )


def record_is_news(view: View) -> bool:
    """The witness holds another record, or another revision of it, than the journal."""
    return (
        view.answer is Answer.READ
        and view.record is not None
        and (view.record, view.revision) != (view.journal.record, view.journal.revision)
    )


# --- who owns, and in which role --------------------------------------------------------------


def is_primary(view: View) -> bool:
    """This host is the guest's primary."""
    return view.journal.role is Role.PRIMARY


def is_secondary(view: View) -> bool:
    """This host is the guest's secondary."""
    return view.journal.role is Role.SECONDARY


def owns_alone(view: View) -> bool:
    """This host owns the guest, alone, and was seen running it."""
    return view.is_mine and not view.is_paired and view.is_activated


def owns_unactivated(view: View) -> bool:
    """This host owns the guest and was not seen running it yet."""
    return view.is_mine and not view.is_paired and not view.is_activated


def owns_paired(view: View) -> bool:
    """This host owns the guest and the other one may take over."""
    return view.is_mine and view.is_paired


def is_peers(view: View) -> bool:
    """The other host owns the guest."""
    return view.journal.record is not None and not view.is_mine


def winner_is_activated(view: View) -> bool:
    """The owner was seen running its copy."""
    return view.is_activated


# --- what is here -----------------------------------------------------------------------------


def guest_is_free(view: View) -> bool:
    """The guest exists here and no pause reference holds it."""
    return view.guest in (Copy.RUNNING, Copy.SUSPENDED)


def guest_runs(view: View) -> bool:
    """The guest runs here."""
    return view.guest is Copy.RUNNING


def guest_has_run(view: View) -> bool:
    """The guest runs here, or has itself ended its run since this host let it."""
    has_ended = view.guest is Copy.DOWN and view.ended_by_itself
    return view.guest is Copy.RUNNING or (has_ended and view.journal.started)


def held_unnoted(view: View) -> bool:
    """Colod has paused the guest, and the journal does not say so yet."""
    return view.held_unnoted


def guest_is_paused(view: View) -> bool:
    """The guest is here, paused."""
    return view.guest is Copy.PAUSED


def guest_is_suspended(view: View) -> bool:
    """The guest is here, left suspended by a checkpoint that did not end."""
    return view.guest is Copy.SUSPENDED


def guest_is_here(view: View) -> bool:
    """A domain of the guest's name exists here."""
    return view.guest is not Copy.ABSENT


def guest_is_down(view: View) -> bool:
    """The guest is shut down or gone."""
    return view.guest in (Copy.ABSENT, Copy.DOWN)


def guest_may_be_gone(view: View) -> bool:
    """The guest is neither paused nor suspended here."""
    return view.guest not in (Copy.PAUSED, Copy.SUSPENDED)


def guest_is_gone(view: View) -> bool:
    """No domain of the guest's name exists here."""
    return view.guest is Copy.ABSENT


def end_is_to_be_cleared(view: View) -> bool:
    """The guest has ended its run; nobody but this host destroys its domain."""
    return view.guest is Copy.DOWN and view.ended in (Ended.CLEAR, Ended.RESTART)


def is_restarting(view: View) -> bool:
    """The guest rebooted not long ago, and this host starts it again."""
    since = view.journal.restarting_since
    is_recent = since > 0.0 and view.uptime_s - since < RESTART_S
    return is_recent and view.journal.boot == view.boot


def restart_is_noted(view: View) -> bool:
    """The journal says that the guest is to be started again."""
    return view.journal.restarting_since > 0.0


def end_is_followed(view: View) -> bool:
    """The guest ended its run a moment ago, or is about to be started again.

    Not once its domain is there, nor where it cannot be started: that may stay so.
    """
    if view.guest is Copy.DOWN:
        return view.ended is not Ended.NOTHING
    return is_restarting(view) and view.guest is Copy.ABSENT and not view.end_trouble


def start_is_due(view: View) -> bool:
    """It may be started now."""
    return view.start_due


def incoming_is_here(view: View) -> bool:
    """A replica that xl has not let go yet exists here."""
    return view.incoming


def copy_is_here(view: View) -> bool:
    """Any domain of the guest exists here."""
    return view.has_copy


def session_is_here(view: View) -> bool:
    """The session's process lives."""
    return view.link is not Link.NONE


def session_is_broken(view: View) -> bool:
    """The session has lost its peer, its stream or its xl."""
    return view.link is Link.BROKEN


def session_is_healthy(view: View) -> bool:
    """The session goes on as it should."""
    return view.is_link_healthy


def session_follows(view: View) -> bool:
    """Epochs are acknowledged."""
    return view.link is Link.FOLLOWING


def session_can_finish(view: View) -> bool:
    """The receiver has had whole epochs and still answers."""
    return view.link in (Link.FOLLOWING, Link.BROKEN)


def xl_lives(view: View) -> bool:
    """The xl that replicates or receives the guest lives."""
    return view.xl_alive


def is_left_over(view: View) -> bool:
    """Something of a session, or its xl, is still there."""
    return view.link is not Link.NONE or view.xl_alive


def guest_is_stranger(view: View) -> bool:
    """The domain of the guest's name here is not the one that xl made, or was seen running."""
    return view.guest_is_stranger


def replica_is_gone(view: View) -> bool:
    """The journal still names the replica's domain, and neither name has a living one."""
    return view.journal.replica_domid > 0 and guest_is_down(view) and not view.incoming


def replica_is_unknown(view: View) -> bool:
    """The journal does not name the domain that xl has made for the replica."""
    return view.incoming_domid not in (0, view.journal.replica_domid)


def name_is_taken(view: View) -> bool:
    """Another domain has the name that xl is to give the replica."""
    return view.is_name_taken


def was_handed_over(view: View) -> bool:
    """xl has every acknowledged byte and was told that the stream is over."""
    return view.handed_over


def was_restarted(view: View) -> bool:
    """This host was restarted since its copy was last seen."""
    return view.boot != view.journal.boot


def gate_is_left(view: View) -> bool:
    """The journal names a gate, which may still hold output."""
    return view.journal.gate != ""


def gate_is_closed(view: View) -> bool:
    """The gate holds the guest's output."""
    return view.gate_closed


# --- what the journal remembers ---------------------------------------------------------------


def is_held(view: View) -> bool:
    """colod itself holds pause references on the guest."""
    return view.journal.held


def has_started(view: View) -> bool:
    """This host has begun to run its copy under this generation."""
    return view.journal.started


def may_hand_back(view: View) -> bool:
    """The other host still keeps its copy, since ours never ran."""
    return view.journal.may_hand_back


def has_pairing(view: View) -> bool:
    """The journal names a pairing."""
    return view.journal.pairing is not None


# --- what is wanted ---------------------------------------------------------------------------


def is_unprotected(view: View) -> bool:
    """The operator wants no protection any more."""
    return view.journal.wanted is Wanted.UNPROTECTED


def is_wanted_protected(view: View) -> bool:
    """The operator wants the guest protected."""
    return view.journal.wanted is Wanted.PROTECTED


def wants_pairing(view: View) -> bool:
    """A pairing is wanted, by the operator and by this host."""
    return view.wants_pairing


def quarantine_is_kept(view: View) -> bool:
    """A copy that lost the guest is to be put aside, not destroyed."""
    return view.keep_quarantined


def failover_is_asked(view: View) -> bool:
    """An operator has asked this host to take over."""
    return view.failover_asked


def is_forced(view: View) -> bool:
    """An operator has given a reason to take over against the rules."""
    record = view.journal.record
    is_ours = record is None or view.journal.host in (record.owner, record.peer)
    return view.journal.force_reason != "" and is_ours


def switchover_is_asked(view: View) -> bool:
    """An operator has asked this owner to give the guest to the other host."""
    return view.journal.switchover != ""


def switchover_is_off(view: View) -> bool:
    """The switchover takes too long, or the other host does not answer."""
    return view.switchover_is_late or view.contact is not Contact.UP


def final_epoch_is_acked(view: View) -> bool:
    """The epoch after which the guest was stopped for the switchover is acknowledged."""
    return 0 < view.final_epoch <= view.acked_epoch


def resync_is_due(view: View) -> bool:
    """A new pairing may be tried now."""
    return view.resync_due


# --- the other host ---------------------------------------------------------------------------


def peer_is_up(view: View) -> bool:
    """The other host's daemon answers."""
    return view.contact is Contact.UP


def peer_is_lost(view: View) -> bool:
    """Nothing was heard of the other host for longer than the limit."""
    return view.contact is Contact.LOST


def takeover_is_manual(view: View) -> bool:
    """This host takes over only when an operator asks for it."""
    return not (view.takeover_automatic and view.peer_is_configured)


def is_drained(view: View) -> bool:
    """This host gives up all its pairings, perhaps because it is about to stop."""
    return view.draining


def takeover_is_due(view: View) -> bool:
    """The other host is lost, and this one may take over by itself."""
    return peer_is_lost(view) and not takeover_is_manual(view) and not view.draining


def fence_is_needed(view: View) -> bool:
    """The other host must first be proved unable to write; one that gave the guest need not."""
    return view.fence in (Fence.NEEDED, Fence.DUE_AGAIN) and not _was_given(view)


def fence_is_unconfirmed(view: View) -> bool:
    """Fencing was tried, proved nothing, and is not to be tried again yet."""
    return view.fence is Fence.UNCONFIRMED and not _was_given(view)


def _was_given(view: View) -> bool:
    """Whether the former owner gave the guest itself, its own copy stopped or gone."""
    record = view.journal.record
    return record is not None and record.given


# --- put together -----------------------------------------------------------------------------


def peer_forgot_pairing(view: View) -> bool:
    """The other host answers and knows nothing of our pairing."""
    return view.peer_gave_up


def replica_can_be_spared(view: View) -> bool:
    """There is no replica, or it cannot run and the other host says that it keeps its own copy.

    Only that proves it: a host that answers may have been restarted, and have nothing.
    """
    if not view.incoming:
        return True
    return view.peer_keeps_copy and (view.is_name_taken or not view.xl_alive)


def keeps_copy(view: View) -> bool:
    """This host lost the guest, and still has its own copy as it stopped."""
    is_copy = view.guest not in (Copy.ABSENT, Copy.DOWN)
    return has_lost(view) and is_copy and not was_restarted(view)


def has_guest(view: View) -> bool:
    """This host owns the guest, was seen running it, and still has it."""
    is_here = view.guest not in (Copy.ABSENT, Copy.DOWN)
    return is_primary(view) and view.is_mine and winner_is_activated(view) and is_here


def goes_well(view: View) -> bool:
    """The primary's pairing is alive at both ends."""
    return view.is_link_healthy and not replica_is_given_up(view)


def replica_follows_there(view: View) -> bool:
    """The other host says that its replica follows."""
    return view.peer_replica is Replica.FOLLOWING


def replica_is_given_up(view: View) -> bool:
    """The other host says that its replica is lost, or will be."""
    return view.peer_replica in (Replica.LOST, Replica.FROZEN)


def may_be_paired(view: View) -> bool:
    """The record lets the other host take over, or a write that would is under way."""
    pending = view.journal.pending
    return view.is_paired or (
        pending is not None and pending.new is not None and pending.new.state is RecordState.PAIRED
    )


def ownership_is_unsettled(view: View) -> bool:
    """The guest here might belong to the other host by now."""
    if view.journal.record is None:
        return False
    if not view.is_mine:
        return True
    return may_be_paired(view) and not goes_well(view)


def promotes(view: View) -> bool:
    """This host owns the guest by promotion and was not seen running it yet."""
    return owns_unactivated(view) and is_secondary(view)


def has_lost(view: View) -> bool:
    """This host is the primary and the other one owns the guest."""
    return is_peers(view) and is_primary(view)


def is_promised(view: View) -> bool:
    """The record promises this host the very pairing that it replicates."""
    return view.is_replica_promised


def replica_is_sound(view: View) -> bool:
    """The replica here can be promoted as far as Xen goes."""
    return replica_of(view) in (Replica.FOLLOWING, Replica.FROZEN)


def replica_is_lost(view: View) -> bool:
    """There is no replica here that can be promoted, nor one that is on its way."""
    return replica_of(view) in (Replica.LOST, Replica.NONE)


def promotable_epoch_is_acked(view: View) -> bool:
    """The first promotable epoch is acknowledged, and the watchdog armed where that is required."""
    return view.is_promotable_epoch_acked


def replica_is_void(view: View) -> bool:
    """By a confirmed record, this secondary's replica can never be promoted again."""
    record = view.journal.record
    if record is None or view.answer is not Answer.READ or view.is_replica_promised:
        return False
    if view.journal.pairing is None or not record.activated:
        return False
    return record.generation > view.journal.pairing_generation or view.peer_gave_up
