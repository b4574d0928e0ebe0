"""What one host knows of one protection when it decides: the journal and the facts around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from colod.failover.record import NO_GENERATION, OwnershipRecord, RecordState
from colod.model import (
    FIRST_PROMOTABLE_EPOCH,
    Disks,
    Epoch,
    Generation,
    HostName,
    Mode,
    PairingId,
    Protection,
    Role,
)


class Wanted(StrEnum):
    """What the operator last asked for."""

    PROTECTED = "protected"
    SUSPENDED = "suspended"
    UNPROTECTED = "unprotected"


class Answer(StrEnum):
    """How the witness stood when it was last asked."""

    STALE = "stale"
    """Not asked since something changed that makes its answer matter."""
    READ = "read"
    UNREACHABLE = "unreachable"


class Copy(StrEnum):
    """What the domain under the guest's own name is doing on this host."""

    ABSENT = "absent"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    """Suspended by a save that did not end, and no pause reference held."""
    DOWN = "down"
    """Shut down or crashed; xl has not cleaned it up yet."""


class Ended(StrEnum):
    """What is to be done with a domain whose guest has ended its run, as its configuration says."""

    NOTHING = "nothing"
    """It runs, or is to be left as it is."""
    SOON = "soon"
    """What its configuration says; for now xl may still be there to do it."""
    CLEAR = "clear"
    """Destroy it: the guest is to stay down."""
    RESTART = "restart"
    """Destroy it, and start the guest again."""


class Link(StrEnum):
    """How a session stands, as far as decisions go."""

    NONE = "none"
    """No session process."""
    STARTING = "starting"
    SYNCING = "syncing"
    FOLLOWING = "following"
    """Epochs are acknowledged."""
    BROKEN = "broken"
    """Its peer, its stream or its xl is gone; it keeps what it has and waits for a word."""


class Contact(StrEnum):
    """Whether the other host gives signs of life."""

    UP = "up"
    SILENT = "silent"
    """Its daemon does not answer, but not for long enough, or its session still speaks."""
    LOST = "lost"
    """Neither control nor data channel was heard for longer than the limit."""


class Replica(StrEnum):
    """How a replica stands on its secondary; what the primary is told of it."""

    NONE = "none"
    SYNCING = "syncing"
    FOLLOWING = "following"
    FROZEN = "frozen"
    LOST = "lost"


class Fence(StrEnum):
    """Whether the other host is proved unable to write."""

    NOT_NEEDED = "not_needed"
    NEEDED = "needed"
    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"
    DUE_AGAIN = "due_again"
    """Nothing proved it, and it is time to try once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceWord:
    """An operator's word that the other host is off, given for one takeover.

    Attributes:
        generation: Of the grant whose takeover waited for it; it counts for no other.
        reason: How the operator knows.
        operator: Who said it.
    """

    generation: Generation
    reason: str
    operator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A write to the witness whose outcome is not known yet.

    Attributes:
        new: The record that was sent; None deletes.
        record: What it replaces, as it was read.
        revision: The witness's revision of what it replaces.
    """

    new: OwnershipRecord | None
    record: OwnershipRecord | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What this host has on disk of one protection; the only memory that decisions have.

    Attributes:
        protection: The terms.
        host: This host.
        role: What this host is for the guest.
        record: The newest ownership record that was confirmed to this host.
        revision: The witness's revision of it.
        pending: A write that was sent, or may have been.
        pairing: The pairing that this host's session or replica belongs to.
        pairing_generation: The record's generation when that pairing began.
        held: Whether colod itself holds pause references on the guest of that name.
        held_domid: Secondary: the domain that it holds, which is not the replica; 0 if not known.
        replica_domid: Secondary: the domain that xl made for this pairing; 0 if never seen.
            `boot` is then the host's at that time.
        started: Whether this host has begun to run its copy under the record's generation.
        may_hand_back: Whether the other host still keeps a copy because ours was never activated.
        wanted: The operator's wish; kept by the owner.
        boot: The host's boot id when its copy of the guest was last seen.
        reason: Why the guest was last left alone, for people.
        gate: The output gate that this host's session has or left, as the session was told of it
            (JSON); "" when none is there.
        force_reason: An operator's decision to take the guest over against the rules, not yet done.
        switchover: Id of the switchover that an operator asked this owner for, "" for none.
        fence_word: An operator's word that the other host is off, until that takeover ends.
        restarting_since: When it was decided to start a guest that rebooted again, in seconds since
            the boot `boot`; 0 where it was not.
        restart_uuid: The UUID that it keeps then, "" if it is not known.
    """

    protection: Protection
    host: HostName
    role: Role
    record: OwnershipRecord | None = None
    revision: int = 0
    pending: Pending | None = None
    pairing: PairingId | None = None
    pairing_generation: Generation = NO_GENERATION
    held: bool = False
    held_domid: int = 0
    replica_domid: int = 0
    started: bool = False
    may_hand_back: bool = False
    wanted: Wanted = Wanted.PROTECTED
    boot: str = ""
    reason: str = ""
    gate: str = ""
    force_reason: str = ""
    switchover: str = ""
    fence_word: FenceWord | None = None
    restarting_since: float = 0.0
    restart_uuid: str = ""

    @property
    def peer(self) -> HostName:
        """The other host of the protection."""
        return self.protection.other(self.host)

    @property
    def is_owner(self) -> bool:
        """Whether the newest confirmed record names this host as owner."""
        return self.record is not None and self.record.owner == self.host

    @property
    def is_paired(self) -> bool:
        """Whether the newest confirmed record lets the peer take over."""
        return self.record is not None and self.record.state is RecordState.PAIRED

    @property
    def is_activated(self) -> bool:
        """Whether the newest confirmed record's owner was seen running its copy."""
        return self.record is not None and self.record.activated

    @property
    def generation(self) -> Generation:
        """The newest generation that this host knows to be confirmed; 0 before the first."""
        return self.record.generation if self.record else NO_GENERATION

    @property
    def valid_fence_word(self) -> FenceWord | None:
        """The operator's word where it was given for the grant that is known now."""
        word = self.fence_word
        return word if word is not None and word.generation == self.generation else None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that a decision may depend on.

    Attributes:
        journal: What is on disk.
        boot: The host's present boot id.
        new_id: 32 fresh hexadecimal digits for whatever the decision must name.
        uptime_s: Seconds since that boot, above 0.
        answer: How the witness stands; `record` and `revision` are its answer when READ.
        last_generation: Generation of a deleted record, where the witness has none.
        guest: The domain under the guest's own name on this host.
        guest_domid: Its number, 0 where there is none.
        held_unnoted: Whether colod has paused it and could not note that: the session did, as the
            guest was rebooted while no daemon looked, or the daemon, whose disk is full.
        ended_by_itself: Whether the guest, which is down, asked for that: so it has run.
        ended: What is to be done with it where the guest has ended its run.
        start_due: Whether a guest that rebooted may be started now.
        end_trouble: How the guest's run ended, and what keeps colod from seeing to it.
        end_uuid: The UUID of a guest that rebooted, "" if it is not known.
        incoming: Whether the domain `GUEST--incoming` exists on this host.
        incoming_domid: Its number, 0 where there is none.
        link: The session of the journal's pairing on this host.
        link_error: Why it is BROKEN.
        xl_alive: Whether xl, which replicates or receives the guest here, is still there.
        acked_epoch: Newest acknowledged epoch of that session.
        final_epoch: Sender: the epoch in whose window the guest was paused for the journal's
            switchover, so that nothing of it comes after; 0 while there is none.
        handed_over: Receiver: xl has got everything and was told that the stream is over.
        contact: Signs of life of the other host.
        peer_replica: Primary: what the secondary says of the replica of the journal's pairing.
        peer_is_configured: Whether the configuration names the protection's other host as peer.
        peer_gave_up: The other host, asked after our pairing began, said that it has left it.
        peer_keeps_copy: The other host, which lost the guest to us, still has its own copy, as it
            stopped; said under our generation, by a daemon that answers now.
        resync_due: Whether a new pairing may be tried now.
        failover_asked: An operator asked this host to take the guest over.
        switchover_is_late: The time for a switchover is over, or nobody knows when it began.
        fence: Whether promotion waits for fencing.
        fence_trouble: Why fencing proved nothing, "" where it was not tried or did.
        gate_closed: Whether this host's gate holds the guest's output.
        gated: Whether output of this guest can be held at all.
        sound_from: The first epoch from which on the gate let out nothing that the peer lacks.
        draining: Whether this host is giving up all its pairings.
        takeover_automatic: Whether a secondary takes over without being asked.
        automation_paused: Whether an operator has paused that; for words only.
        keep_quarantined: Whether a copy that lost ownership is put aside, not destroyed.
        unarmed: Why this host's watchdog, which must be armed before the other one may take over,
            is not; "" where it is, or need not be.
    """

    journal: Journal
    boot: str
    new_id: str
    uptime_s: float = field(default=1.0, compare=False)
    answer: Answer = Answer.STALE
    record: OwnershipRecord | None = None
    revision: int = 0
    last_generation: Generation = NO_GENERATION
    guest: Copy = Copy.ABSENT
    guest_domid: int = 0
    held_unnoted: bool = False
    ended_by_itself: bool = False
    ended: Ended = Ended.NOTHING
    start_due: bool = False
    end_trouble: str = ""
    end_uuid: str = ""
    incoming: bool = False
    incoming_domid: int = 0
    link: Link = Link.NONE
    link_error: str = ""
    xl_alive: bool = False
    acked_epoch: int = 0
    final_epoch: int = 0
    handed_over: bool = False
    contact: Contact = Contact.SILENT
    peer_replica: Replica = Replica.NONE
    peer_is_configured: bool = True
    peer_gave_up: bool = False
    peer_keeps_copy: bool = False
    resync_due: bool = False
    failover_asked: bool = False
    switchover_is_late: bool = True
    fence: Fence = Fence.NOT_NEEDED
    fence_trouble: str = ""
    gate_closed: bool = False
    gated: bool = False
    sound_from: int = 0
    takeover_automatic: bool = True
    automation_paused: bool = False
    keep_quarantined: bool = False
    draining: bool = False
    unarmed: str = ""

    @property
    def wants_pairing(self) -> bool:
        """Whether a pairing is wanted, by the operator and by this host."""
        return self.journal.wanted is Wanted.PROTECTED and not self.draining

    @property
    def is_mine(self) -> bool:
        """Whether the newest confirmed record names this host as owner."""
        return self.journal.is_owner

    @property
    def is_paired(self) -> bool:
        """Whether the newest confirmed record lets the peer take over."""
        return self.journal.is_paired

    @property
    def is_activated(self) -> bool:
        """Whether the newest confirmed record's owner was seen running its copy."""
        return self.journal.is_activated

    @property
    def is_link_healthy(self) -> bool:
        """Whether the session goes on as it should."""
        return self.link in (Link.STARTING, Link.SYNCING, Link.FOLLOWING)

    @property
    def is_replica_promised(self) -> bool:
        """Whether the record lets this host promote the very pairing that it replicates."""
        record, pairing = self.journal.record, self.journal.pairing
        return record is not None and pairing is not None and record.pairing == pairing

    @property
    def has_copy(self) -> bool:
        """Whether any domain of this guest exists here."""
        return self.incoming or self.guest is not Copy.ABSENT

    @property
    def guest_is_stranger(self) -> bool:
        """Whether the domain of the guest's name here is not the replica, but came from elsewhere.

        It is not the one that xl made, or it was running when this daemon paused it: a replica is
        paused from the beginning, by pauses that are not this daemon's. But in COLO it runs, heard
        by nobody, and a mended xl gives it its name when its session has died.
        """
        journal = self.journal
        if journal.role is Role.PRIMARY or self.guest is Copy.ABSENT:
            return False
        is_made_by_xl = (self.guest_domid, self.boot) == (journal.replica_domid, journal.boot)
        may_run = is_made_by_xl and journal.protection.mode is Mode.COLO
        was_running = journal.held and self._is_held_here and not may_run
        return was_running or (journal.replica_domid > 0 and not is_made_by_xl)

    @property
    def _is_held_here(self) -> bool:
        """Whether what this daemon holds may be the domain that has the guest's name."""
        return self.journal.held_domid in (0, self.guest_domid)

    @property
    def gives_replica_up(self) -> bool:
        """Whether this host, being drained, leaves the guest to a primary that is there."""
        return self.draining and self.contact is not Contact.LOST

    @property
    def is_name_taken(self) -> bool:
        """Whether another domain has the name that xl is to give the replica."""
        return self.incoming and self.guest is not Copy.ABSENT

    @property
    def is_pair_due(self) -> bool:
        """Whether the replica is good for PAIRED to be written."""
        is_held = self.gate_closed or not self.gated
        return self.link is Link.FOLLOWING and is_held and self.acked_epoch >= self.promotable_from

    @property
    def is_promotable_epoch_acked(self) -> bool:
        """Whether PAIRED may be written."""
        return self.is_pair_due and not self.unarmed

    @property
    def promotable_from(self) -> Epoch:
        """The first epoch that PAIRED may name."""
        return Epoch(max(FIRST_PROMOTABLE_EPOCH, self.sound_from))


def replica_of(view: View) -> Replica:
    """Return how the replica on this host stands; NONE on a primary.

    A host that is being drained calls its replica lost, so that the primary goes on alone; once the
    primary is lost, the replica may be all that is left. It counts as lost, too, where another
    domain has the guest's name: the replica could not take over.
    """
    if view.journal.role is Role.PRIMARY or view.journal.pairing is None:
        return Replica.NONE
    if view.gives_replica_up or view.is_name_taken:
        return Replica.LOST
    if view.link is Link.FOLLOWING:
        return Replica.FOLLOWING
    if view.link in (Link.STARTING, Link.SYNCING):
        return Replica.SYNCING
    return _ended_replica(view)


def _ended_replica(view: View) -> Replica:
    """Tell a copy that can still be promoted from one that lost its xl before xl let it go.

    xl gives the copy the guest's own name when its input ends in good order; until then only a
    living xl can finish it.
    """
    is_let_go = view.guest is Copy.PAUSED and not view.guest_is_stranger
    if is_let_go or (view.incoming and view.xl_alive):
        return Replica.FROZEN
    return Replica.LOST


def needs_fencing(disks: Disks) -> bool:
    """Return whether the other host must be proved unable to write before a promotion."""
    return disks is Disks.SHARED
