"""What a confirmed ownership record changes in a journal."""

from __future__ import annotations

from dataclasses import replace

from colod.failover.record import OwnershipRecord, RecordState
from colod.failover.view import Journal
from colod.model import Role


def learn(journal: Journal, record: OwnershipRecord, revision: int) -> Journal:
    """Return `journal` with `record` confirmed at `revision`, by our own write or by reading it."""
    old = journal.record
    is_new_grant = old is None or record.generation != old.generation
    return replace(
        journal,
        record=record,
        revision=revision,
        pending=None,
        started=journal.started and not is_new_grant,
        may_hand_back=_may_hand_back(journal, record) if is_new_grant else journal.may_hand_back,
    )


def unlearn(journal: Journal, revision: int) -> Journal:
    """Return `journal` after the record's deletion was confirmed."""
    return replace(journal, record=None, revision=revision, pending=None)


def _may_hand_back(journal: Journal, record: OwnershipRecord) -> bool:
    """Whether the former owner still keeps its copy for us.

    It does when we came by the guest straight out of a pair; after a hand-back or an operator's
    force there is nobody to hand it back to.
    """
    old = journal.record
    return (
        journal.role is Role.SECONDARY
        and old is not None
        and old.owner == journal.peer
        and old.state is RecordState.PAIRED
        and record.owner == journal.host
        and not record.activated
    )
