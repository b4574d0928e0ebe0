"""What a confirmed ownership record changes in a journal."""

from __future__ import annotations

from dataclasses import replace

from colod.failover.record import OwnershipRecord, RecordState
from colod.failover.view import Journal, Wanted
from colod.model import Generation, PairingId, Protection, Role


def learn(journal: Journal, record: OwnershipRecord, revision: int) -> Journal:
    """Return `journal` with `record` confirmed at `revision`, by our own write or by reading it.

    The first record must be one that this protection may begin with; a later one between other
    hosts tells that ours has ended. One that contradicts what is known is not learned: the witness
    was restored, and what this host knows may be all that is left of the truth. An operator's force
    is a word about the grant that was known then: with a newer one the other host has shown that it
    was not down. A word that the other host is off ends with the takeover that it was given for: it
    may be on again when the next one comes.
    """
    old = journal.record
    if contradicts(record, old) if old is not None else not may_begin_with(record, journal):
        return replace(journal, pending=None)
    is_new_grant = old is None or record.generation != old.generation
    is_outdated = old is not None and is_new_grant
    return replace(
        journal,
        record=record,
        revision=revision,
        pending=None,
        started=journal.started and not is_new_grant,
        may_hand_back=_may_hand_back(journal, record) if is_new_grant else journal.may_hand_back,
        force_reason="" if is_outdated else journal.force_reason,
        switchover="" if is_new_grant else journal.switchover,
        restarting_since=0.0 if is_new_grant else journal.restarting_since,
        restart_uuid="" if is_new_grant else journal.restart_uuid,
        fence_word=None if is_new_grant or record.activated else journal.fence_word,
    )


def join(
    journal: Journal, terms: Protection, pairing: PairingId, generation: Generation
) -> Journal:
    """Return the journal of a secondary, with no copy of the guest, that joins a new pairing.

    The owner's terms replace ours: it may have ended the protection and begun another one, for
    instance on shared disks, without our hearing of it. What an operator forced or gave their word
    for, and what was held, concerned a replica that is gone: nothing of it may act on the new one.
    """
    return replace(
        journal,
        protection=terms,
        pairing=pairing,
        pairing_generation=generation,
        held=False,
        held_domid=0,
        replica_domid=0,
        force_reason="",
        fence_word=None,
    )


def is_between(record: OwnershipRecord, journal: Journal) -> bool:
    """Return whether `record` is about the two hosts of this protection."""
    return {record.owner, record.peer} == {journal.host, journal.peer}


def may_begin_with(record: OwnershipRecord, journal: Journal) -> bool:
    """Return whether a protection that knows no record yet may take `record` for its own.

    A record between other hosts is another protection's. One that gives the other host a say is of
    an earlier life of the guest, or of its namesake there: to a primary that took it for its own,
    the guest that runs here would be a copy that lost.
    """
    if not is_between(record, journal):
        return False
    is_ours_alone = record.owner == journal.host and record.state is RecordState.ALONE
    return is_ours_alone or journal.role is Role.SECONDARY


def contradicts(record: OwnershipRecord, known: OwnershipRecord) -> bool:
    """Return whether a witness that once confirmed `known` can hold `record` only by going back."""
    if record.generation == known.generation:
        return (record.owner, record.pairing) != (known.owner, known.pairing)
    return record.generation < known.generation


def unlearn(journal: Journal, revision: int) -> Journal:
    """Return `journal` after a write of ours found no record at the witness.

    Only a host that wanted the record gone forgets it. For any other the protection was ended by
    a later owner, and its own copy is void: had it no record any more, it would create one.
    """
    pending = journal.pending
    wanted_gone = pending is not None and pending.new is None
    if wanted_gone or journal.wanted is Wanted.UNPROTECTED:
        return replace(journal, record=None, revision=revision, pending=None, fence_word=None)
    return replace(journal, pending=None)


def _may_hand_back(journal: Journal, record: OwnershipRecord) -> bool:
    """Whether the former owner still keeps its copy for us.

    It does when we came by the guest straight out of a pair, or when it gave us the guest, perhaps
    out of a pair that we never heard of; after a hand-back or an operator's force there is nobody
    to hand it back to.
    """
    old = journal.record
    return (
        journal.role is Role.SECONDARY
        and old is not None
        and old.owner == journal.peer
        and (old.state is RecordState.PAIRED or (record.given and old.activated))
        and record.owner == journal.host
        and not record.activated
    )
