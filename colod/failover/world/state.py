"""What the model knows of two hosts, their Xen, the witness and the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from colod.failover.effects import Decision
from colod.failover.record import NO_GENERATION, OwnershipRecord
from colod.failover.rules import facts
from colod.failover.view import (
    Answer,
    Contact,
    Copy,
    Ended,
    Fence,
    Journal,
    Link,
    Pending,
    Replica,
    View,
    replica_of,
)
from colod.model import Disks, Generation, GuestName, HostName, PairingId, Protection, Role

HOSTS = (HostName("alpha"), HostName("beta"))
TERMS = Protection(guest=GuestName("guest"), primary=HOSTS[0], secondary=HOSTS[1], disks=Disks.NONE)
LIVE = (Link.STARTING, Link.SYNCING, Link.FOLLOWING)


@dataclass(frozen=True, slots=True)
class Domain:
    """A copy of the guest.

    Attributes:
        pauses: Pause references that Xen counts.
        suspended: Whether libxc has suspended it for a checkpoint.
        ended: Whether the guest has rebooted in it, and no xl sees to that any more.
        unbuilt: Whether `xl create` still makes it.
        closed: Whether its output gate is closed.
        fresh: Whether it holds everything that the world has seen of the guest.
        whole: Incoming: whether it has a promotable epoch, so that a person may make a guest of it.
    """

    pauses: int = 0
    suspended: bool = False
    ended: bool = False
    unbuilt: bool = False
    closed: bool = False
    fresh: bool = True
    whole: bool = False

    @property
    def runs(self) -> bool:
        """Whether its processors run."""
        return self.pauses == 0 and not (self.suspended or self.ended)

    @property
    def speaks(self) -> bool:
        """Whether its output reaches the world."""
        return self.runs and not self.closed


@dataclass(frozen=True, slots=True)
class Reading:
    """What the witness said when it was last read."""

    record: OwnershipRecord | None = None
    revision: int = 0
    last_generation: Generation = NO_GENERATION


@dataclass(frozen=True, slots=True)
class Host:
    """One host: what is on disk, what runs, and what its daemon has in memory.

    Attributes:
        acked: Sender: newest acknowledged epoch. Receiver: newest epoch that xl has whole.
        final: Sender: the guest was paused in the window of a checkpoint, for the switchover that
            was last asked for.
        session_holds: Sender: its session has paused the guest, which rebooted without a daemon.
        pairings: How many pairings it has begun; the source of fresh ids.
        peer_keeps: The generation under which the other host last said that it keeps its copy.
    """

    is_up: bool = True
    daemon: bool = True
    boot: int = 1
    journal: Journal | None = None
    guest: Domain | None = None
    incoming: Domain | None = None
    link: Link = Link.NONE
    xl: bool = False
    acked: int = 0
    handed_over: bool = False
    final: bool = False
    session_holds: bool = False
    pairings: int = 0
    # The daemon's memory, gone when it dies.
    answer: Answer = Answer.STALE
    seen: Reading = Reading()
    contact: Contact = Contact.SILENT
    peer_replica: Replica = Replica.NONE
    peer_gave_up: bool = False
    peer_keeps: int = 0
    failover_asked: bool = False
    in_time: bool = False
    draining: bool = False
    fence: Fence = Fence.NOT_NEEDED

    @property
    def is_sender(self) -> bool:
        """Whether its xl and session are the primary's."""
        return self.journal is not None and self.journal.role is Role.PRIMARY

    @property
    def answers(self) -> bool:
        """Whether its daemon answers the other host."""
        return self.is_up and self.daemon

    @property
    def pairing(self) -> PairingId | None:
        """The pairing of its journal."""
        return self.journal.pairing if self.journal is not None else None


@dataclass(frozen=True, slots=True)
class Shared:
    """What is neither host's.

    Attributes:
        reading: What the witness holds.
        late: Writes that are under way and may still land.
        net: Whether the hosts reach each other.
        witness: Whether each host reaches the witness.
        backup: What an old copy of the witness's disk holds, None while there is none.
        is_restored: Whether the witness came back from it.
        is_over: Whether the guest ended by its own will.
        faults: How many more accidents may happen.
    """

    reading: Reading = Reading()
    late: frozenset[tuple[int, Pending]] = frozenset()
    net: bool = True
    witness: tuple[bool, bool] = (True, True)
    backup: Reading | None = None
    is_restored: bool = False
    is_over: bool = False
    faults: int = 2

    @property
    def record(self) -> OwnershipRecord | None:
        """The record that the witness holds."""
        return self.reading.record


class World(NamedTuple):
    """Everything there is."""

    hosts: tuple[Host, Host]
    shared: Shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may happen in a walk.

    Attributes:
        faults: How many accidents and persons' acts.
        kinds: Which ones; see `colod.failover.world.faults`.
        pairings: How many pairings each host may begin.
        gated: Whether output can be held.
        fencing: Whether storage is shared, so that promotion needs fencing.
        prompt: Whether a broken session is noticed, and a guest that must be held is held, before
            anything slower happens: an assumption about time that only ungated guests need.
        keep_quarantined: Whether a copy that lost is put aside.
    """

    faults: int
    kinds: frozenset[str] = field(default_factory=frozenset)
    pairings: int = 1
    gated: bool = True
    fencing: bool = False
    prompt: bool = False
    keep_quarantined: bool = False


Decide = Callable[[View], Decision]


class Move(NamedTuple):
    """Something that happens to one host and to what is shared."""

    name: str
    host: Host
    shared: Shared
    is_fault: bool = False
    wrong: str = ""


class Meeting(NamedTuple):
    """Something that involves both hosts; `other` names what happens to the other one."""

    name: str
    host: Host
    other: str = ""
    is_fault: bool = False
    wrong: str = ""


def first_world(bounds: Bounds) -> World:
    """Return the world just after `protect` on alpha, the guest running there."""
    fence = Fence.NEEDED if bounds.fencing else Fence.NOT_NEEDED
    alpha = Host(
        journal=Journal(protection=TERMS, host=HOSTS[0], role=Role.PRIMARY, boot="1"),
        guest=Domain(),
        contact=Contact.UP,
        fence=fence,
    )
    return World((alpha, Host(contact=Contact.UP, fence=fence)), Shared(faults=bounds.faults))


def view_of(host: Host, bounds: Bounds) -> View:
    """Return what a host's daemon sees."""
    journal = host.journal
    assert journal is not None
    was_read = host.answer is Answer.READ
    seen = host.seen if was_read else Reading()
    return View(
        journal=journal,
        boot=str(host.boot),
        new_id=f"{journal.host}{journal.generation}.{host.pairings}",
        answer=host.answer,
        record=seen.record,
        revision=seen.revision,
        last_generation=seen.last_generation,
        guest=copy_of(host.guest),
        held_unnoted=host.session_holds,
        ended_by_itself=host.guest is not None and host.guest.ended,
        ended=Ended.RESTART if host.guest and host.guest.ended else Ended.NOTHING,
        start_due=True,
        incoming=host.incoming is not None,
        link=host.link,
        xl_alive=host.xl,
        acked_epoch=host.acked if host.link is not Link.NONE else 0,
        final_epoch=host.acked if host.final else 0,
        handed_over=host.handed_over,
        contact=host.contact,
        peer_replica=host.peer_replica,
        peer_gave_up=host.peer_gave_up,
        peer_keeps_copy=host.contact is Contact.UP and _is_current(host.peer_keeps, journal),
        resync_due=host.pairings < bounds.pairings,
        failover_asked=host.failover_asked,
        switchover_is_late=not host.in_time,
        fence=host.fence,
        gated=bounds.gated,
        gate_closed=host.guest is not None and host.guest.closed,
        draining=host.draining,
        keep_quarantined=bounds.keep_quarantined,
    )


def _is_current(generation: int, journal: Journal) -> bool:
    return journal.record is not None and journal.generation == generation


def copy_of(domain: Domain | None) -> Copy:
    """Return what `xl list` would show of a domain."""
    if domain is None:
        return Copy.ABSENT
    if domain.ended:
        return Copy.DOWN
    if domain.pauses:
        return Copy.PAUSED
    return Copy.SUSPENDED if domain.suspended else Copy.RUNNING


def replica_on(host: Host) -> Replica:
    """Return what a host says in its heartbeats of its replica."""
    return replica_of(_own_view(host))


def keeps_copy(host: Host) -> bool:
    """Return whether a host says in its heartbeats that its own copy is still there."""
    return facts.keeps_copy(_own_view(host))


def _own_view(host: Host) -> View:
    """Return what a host knows of itself, which is all that it speaks of."""
    assert host.journal is not None
    return View(
        journal=host.journal,
        boot=str(host.boot),
        new_id="",
        guest=copy_of(host.guest),
        incoming=host.incoming is not None,
        link=host.link,
        xl_alive=host.xl,
        contact=host.contact,
        draining=host.draining,
    )


def with_guest(host: Host, **changes: object) -> Host:
    """Return `host` with its guest changed, if it has one."""
    if host.guest is None:
        return host
    return replace(host, guest=replace(host.guest, **changes))  # type: ignore[arg-type]
