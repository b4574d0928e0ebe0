"""What operators are told in more than one place, and why."""

from __future__ import annotations

from colod.failover.effects import State
from colod.failover.learning import is_between
from colod.failover.record import OwnershipRecord, RecordState
from colod.failover.rules.table import show
from colod.failover.view import Answer, Contact, Journal, Link, Replica, View
from colod.model import INCOMING_SUFFIX

WITNESS_AWAY = "the witness does not answer"
BRING_BACK_WITNESS = "bring the witness back; nothing is lost meanwhile"
NAME_TAKEN = "another domain has the guest's name: the replica cannot take over"
LOOK_THEN_DESTROY = "look at it, then xl destroy it"
SEE_FOREIGN_RECORD = "see docs/witness.md, 'A record of other hosts'"
RESTARTED = "this host was restarted; the other one has the guest's newest state"
HELD_FOR_WITNESS = show(State.MANUAL_HOLD, WITNESS_AWAY, BRING_BACK_WITNESS)


def foreign_record(record: OwnershipRecord, journal: Journal) -> str:
    """Say of a record that a new protection may not begin with what it is."""
    guest = journal.protection.guest
    if not is_between(record, journal):
        return f"the witness holds a record of {guest} between {record.owner} and {record.peer}"
    return (
        f"the witness holds a record of {guest} from before this protection: {record.owner} owns it"
        + (f", and {record.peer} may take over" if record.state is RecordState.PAIRED else "")
    )


def and_witness_away(view: View) -> str:
    """Say it behind another cause: an operator's takeover would wait for the witness, too."""
    return f"; {WITNESS_AWAY}: {BRING_BACK_WITNESS}" if view.answer is Answer.UNREACHABLE else ""


def move_aside(view: View) -> str:
    """Say how the name is made free; nothing is destroyed, whatever the domain turns out to be."""
    guest = view.journal.protection.guest
    return f"look at it, then xl rename {guest} {guest}--aside"


def rename_orphan(view: View) -> str:
    """Say how a replica that xl left gets its name."""
    guest = view.journal.protection.guest
    return f"xl rename {guest}{INCOMING_SUFFIX} {guest}"


def why(view: View) -> str:
    """Say why a pairing cannot go on."""
    if view.link_error:
        return view.link_error
    if view.peer_replica in (Replica.LOST, Replica.FROZEN):
        return f"the replica on {view.journal.peer} is {view.peer_replica}"
    return "the session is gone"


def link_error(view: View) -> str:
    """Say what ended the session."""
    return view.link_error or "the session is gone"


def degraded(view: View) -> State:
    """DEGRADED, or MANUAL_HOLD once the other host is lost."""
    return State.DEGRADED if view.contact is not Contact.LOST else State.MANUAL_HOLD


def protected(view: View) -> State:
    """PROTECTED where the gate holds output, else REPLICATING."""
    return State.PROTECTED if view.gated and view.gate_closed else State.REPLICATING


def _silence(view: View) -> str:
    return "" if view.contact is Contact.UP else "the other host's daemon is silent"


REPLICATE = show(protected, _silence)  # both ends of a pair show the same


def _progress(view: View) -> State:
    """PAIRING until the sessions have met, then SYNCING."""
    return State.PAIRING if view.link is Link.STARTING else State.SYNCING


def _is_waiting(view: View) -> bool:
    is_away = view.answer is Answer.UNREACHABLE
    return is_away and view.link is not Link.STARTING and view.is_promotable_epoch_acked


def _is_unarmed(view: View) -> bool:
    return view.is_pair_due and view.unarmed != ""


def _why_not_paired(view: View) -> str:
    if _is_unarmed(view):
        return f"self-fencing is required: {view.unarmed}"
    return WITNESS_AWAY if _is_waiting(view) else ""


def _how_to_pair(view: View) -> str:
    if _is_unarmed(view):
        return "see colodctl doctor and docs/fencing.md, 'Self-fencing'"
    return BRING_BACK_WITNESS if _is_waiting(view) else ""


PAIRING_ON = show(_progress, _why_not_paired, _how_to_pair)
