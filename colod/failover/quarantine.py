"""Whether a copy that lost its guest may be thrown away on an operator's word: pure.

The table destroys such a copy only after a confirmed record says that the owner was seen running
its own (`destroy_own`). That was then: here the owner must also have the guest now, since what was
put aside may by now be all that is left of it.
"""

from __future__ import annotations

from typing import NamedTuple

from colod.failover.record import OwnershipRecord
from colod.failover.rules import facts as f
from colod.failover.view import View
from colod.model import Generation


class Refusal(NamedTuple):
    """Why a copy may not be thrown away, and what an operator can do; both empty where it may."""

    why: str = ""
    advice: str = ""


MAY_GO = Refusal()


def refusal(view: View, generation: Generation, *, peer_has_guest: bool) -> Refusal:
    """Return why the copy here that lost its guest under `generation` must stay.

    Args:
        view: The facts, with the witness's answer. It is only as good as that is fresh.
        generation: Of the record by which this host lost the guest; the copy's is an earlier one.
        peer_has_guest: Whether the other host says, under the generation that this host knows,
            that it owns the guest, was seen running it and still has it.
    """
    journal, guest = view.journal, view.journal.protection.guest
    if not f.witness_was_read(view):
        return Refusal(
            f"the witness does not answer, so nobody knows who owns {guest}",
            "bring it back; see: colodctl doctor",
        )
    record = journal.record
    if record is None or f.write_is_pending(view) or view.record != record:
        return Refusal(f"it is not settled who owns {guest}", "wait until colodctl status tells")
    if record.generation < generation:
        return Refusal(
            f"the witness knows generation {record.generation} of {guest}, the copy was put aside "
            f"under {generation}",
            "see docs/failover.md, 'A witness that forgets'",
        )
    return _last_copy(view, record, peer_has_guest=peer_has_guest)


def _last_copy(view: View, record: OwnershipRecord, *, peer_has_guest: bool) -> Refusal:
    guest = view.journal.protection.guest
    if not f.winner_is_activated(view):
        return Refusal(
            f"{record.owner} owns {guest} and was not seen running it: this may be the last copy",
            f"wait until it runs on {record.owner}",
        )
    if f.is_peers(view) and not peer_has_guest:
        return Refusal(
            f"{record.owner} does not say now that it has {guest}: this may be the last copy",
            f"bring {record.owner} and {guest} there back, or look there yourself",
        )
    if view.is_mine and not f.has_guest(view):
        return Refusal(
            f"{guest} is not on this host, which owns it: this may be the last copy",
            f"bring {guest} back first",
        )
    return MAY_GO
