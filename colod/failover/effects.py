"""What a decision can ask for: one journal entry, then one effect, then a new look at the facts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from colod.failover.record import OwnershipRecord
from colod.failover.view import Journal


class State(StrEnum):
    """State of a protection on one host, as operators see it (docs/failover.md)."""

    STOPPED = "STOPPED"
    ALONE = "ALONE"
    PAIRING = "PAIRING"
    SYNCING = "SYNCING"
    REPLICATING = "REPLICATING"
    PROTECTED = "PROTECTED"
    DEGRADED = "DEGRADED"
    ARBITRATING = "ARBITRATING"
    FENCING = "FENCING"
    PROMOTING = "PROMOTING"
    LOST_RACE = "LOST_RACE"
    SWITCHOVER = "SWITCHOVER"
    SUSPENDED = "SUSPENDED"
    QUARANTINED = "QUARANTINED"
    MANUAL_HOLD = "MANUAL_HOLD"
    GUEST_SHUTDOWN = "GUEST_SHUTDOWN"


class Do(StrEnum):
    """The effects that need no argument; what each must verify before it counts as done."""

    READ_WITNESS = "read_witness"
    """Ask the witness; the answer, or that there was none, is in the next view."""
    SETTLE_WRITE = "settle_write"
    """Find out what became of the pending write, or send the very same write again."""
    HOLD_GUEST = "hold_guest"
    """Take a pause reference on the guest; verified by its state."""
    RUN_GUEST = "run_guest"
    """Drop pause references until the guest runs; verified by its state."""
    QUIESCE_GUEST = "quiesce_guest"
    """Pause the guest in the suspended window of a checkpoint, which so becomes its final one."""
    RESUME_GUEST = "resume_guest"
    """Make a guest run again that was left suspended when its xl died."""
    CLEAR_ENDED = "clear_ended"
    """Destroy the domain of a guest that has ended its run, as xl does where it still watches."""
    START_GUEST = "start_guest"
    """Start a guest that rebooted from its configuration file; verified by its running."""
    DESTROY_GUEST = "destroy_guest"
    """Destroy the local copy of a guest that the other host owns and runs."""
    QUARANTINE_GUEST = "quarantine_guest"
    """Put that copy aside, paused, under another name."""
    START_PAIRING = "start_pairing"
    """Check both hosts, have the peer start a receiver, start `xl remus` with our sender."""
    RELEASE_SESSION = "release_session"
    """End the sender and its xl; xl resumes the guest as far as pause references let it."""
    HAND_OVER = "hand_over"
    """Have the receiver give xl every acknowledged byte and then the end of the stream."""
    AWAIT_TAKEOVER = "await_takeover"
    """Wait until xl has given the copy the guest's name."""
    DISCARD_REPLICA = "discard_replica"
    """Kill the receiving xl and its helper, destroy the copy, verify that nothing is left."""
    FENCE_PEER = "fence_peer"
    """Prove that the other host cannot write."""
    OPEN_GATE = "open_gate"
    DISCARD_GATE = "discard_gate"
    """Let the guest's output go."""
    FORGET_PEER = "forget_peer"
    """Tell the peer that the protection ended."""
    ERASE = "erase"
    """Remove the protection from this host's journal."""


MAY_RUN_GUEST = frozenset({Do.RUN_GUEST, Do.RESUME_GUEST, Do.RELEASE_SESSION, Do.START_GUEST})
"""Effects after which a guest that was seen stopped may run; xl resumes what is released."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Write `new` to the witness in place of the journal's record; None deletes.

    The same decision's journal entry names it as pending, so that a crash in between leaves an
    unknown outcome and not a forgotten one.
    """

    new: OwnershipRecord | None


Effect = Do | Swap


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from a view.

    Attributes:
        rule: The rule that fitted.
        state: What the operator sees; None for an errand that changes nothing of it.
        cause: Why, as the end of a sentence; "" where the state says it all.
        advice: What an operator can do, where something is wanted of one.
        journal: Entry to write and fsync first, or None to leave the journal as it is.
        effect: What to do then, or None to wait for something to change.
    """

    rule: str
    state: State | None
    cause: str = ""
    advice: str = ""
    journal: Journal | None = None
    effect: Effect | None = None
