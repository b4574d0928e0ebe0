"""A model of two hosts, their Xen, the witness and the network, for the explorer.

It is what the promises are checked against, so it is no kinder than the real things: xl unpauses
at the end of a stream, pauses are counted, a killed sender makes xl resume the guest, a killed xl
leaves it suspended, writes to the witness may land late, and any process may die between a journal
entry and its effect. Faults are bounded in number; repairs are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from colod.failover.effects import Decision, Do, Swap
from colod.failover.explorer import Step
from colod.failover.learning import learn, unlearn
from colod.failover.record import OwnershipRecord, RecordState, check_transition
from colod.failover.rules import RULES, Rule, decide
from colod.failover.view import (
    Answer,
    Contact,
    Copy,
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


@dataclass(frozen=True, slots=True)
class Domain:
    """A copy of the guest.

    Attributes:
        pauses: Pause references that Xen counts.
        suspended: Whether libxc has suspended it for a checkpoint.
        closed: Whether its output gate is closed.
    """

    pauses: int = 0
    suspended: bool = False
    closed: bool = False

    @property
    def runs(self) -> bool:
        """Whether its processors run."""
        return self.pauses == 0 and not self.suspended

    @property
    def speaks(self) -> bool:
        """Whether its output reaches the world."""
        return self.runs and not self.closed


@dataclass(frozen=True, slots=True)
class Host:
    """One host: what is on disk, what runs, and what its daemon has in memory."""

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
    # The daemon's memory, gone when it dies.
    answer: Answer = Answer.STALE
    seen: tuple[OwnershipRecord | None, int] = (None, 0)
    contact: Contact = Contact.SILENT
    peer_replica: Replica = Replica.NONE
    peer_gave_up: bool = False
    failover_asked: bool = False
    pairings: int = 0


@dataclass(frozen=True, slots=True)
class World:
    """Everything there is.

    Attributes:
        hosts: alpha and beta.
        record: What the witness holds.
        revision: Its revision.
        late: Writes that are under way and may still land.
        net: Whether the hosts reach each other.
        witness: Whether each host reaches the witness.
        faults: How many more accidents may happen.
    """

    hosts: tuple[Host, Host]
    record: OwnershipRecord | None = None
    revision: int = 0
    late: frozenset[tuple[int, Pending]] = frozenset()
    net: bool = True
    witness: tuple[bool, bool] = (True, True)
    faults: int = 2


def start(faults: int) -> World:
    """Return the world just after `protect` on alpha, the guest running there."""
    alpha = Host(
        journal=Journal(protection=TERMS, host=HOSTS[0], role=Role.PRIMARY),
        guest=Domain(),
        contact=Contact.UP,
    )
    return World(hosts=(alpha, Host(contact=Contact.UP)), faults=faults)


class Model:
    """The ways on from a world, under a table of rules."""

    def __init__(
        self,
        rules: tuple[Rule, ...] | None = None,
        *,
        max_pairings: int = 2,
        kinds: frozenset[str] | None = None,
    ) -> None:
        """Take the rules to judge (None: colod's) and bounds.

        Args:
            rules: Table of decisions.
            max_pairings: How many pairings each host may begin.
            kinds: Names of the faults to inject; None for all.
        """
        self._rules = rules
        self._max_pairings = max_pairings
        self._kinds = kinds
        self._decide = lru_cache(maxsize=None)(self._decide_uncached)
        self.fired: dict[str, int] = {}

    def _decide_uncached(self, view: View) -> Decision:
        decision = decide(view, self._rules or RULES)
        self.fired[decision.rule] = self.fired.get(decision.rule, 0) + 1
        return decision

    def steps(self, world: World) -> Iterator[Step[World]]:
        """Yield everything that can happen next."""
        for i in (0, 1):
            yield from self._daemon_steps(world, i)
            yield from _xen_steps(world, i)
            yield from _contact_steps(world, i)
            yield from _repairs(world, i)
        yield from _replication_steps(world)
        yield from _late_writes(world)
        if not world.net:
            yield Step("the network heals", replace(world, net=True))
        if world.faults > 0:
            yield from self._faults(replace(world, faults=world.faults - 1))

    # --- the daemon -----------------------------------------------------------------------

    def view(self, world: World, i: int) -> View:
        """Return what host `i`'s daemon sees."""
        host = world.hosts[i]
        assert host.journal is not None
        n = host.pairings
        return View(
            journal=host.journal,
            boot=str(host.boot),
            new_id=f"{HOSTS[i]}{host.journal.generation}.{n}",
            answer=host.answer,
            record=host.seen[0] if host.answer is Answer.READ else None,
            revision=host.seen[1] if host.answer is Answer.READ else 0,
            guest=_copy(host.guest),
            incoming=host.incoming is not None,
            link=host.link,
            xl_alive=host.xl,
            acked_epoch=host.acked,
            handed_over=host.handed_over,
            contact=host.contact,
            peer_replica=host.peer_replica,
            peer_gave_up=host.peer_gave_up,
            resync_due=n < self._max_pairings,
            failover_asked=host.failover_asked,
            gated=True,
            gate_closed=host.guest is not None and host.guest.closed,
        )

    def _daemon_steps(self, world: World, i: int) -> Iterator[Step[World]]:
        host = world.hosts[i]
        if not (host.is_up and host.daemon) or host.journal is None:
            return
        decision = self._decide(self.view(world, i))
        if decision.journal is None and decision.effect is None:
            return
        noted = world
        if decision.journal is not None:
            noted = _with(world, i, journal=decision.journal)
        name = f"{HOSTS[i]}: {decision.rule}"
        if decision.effect is None:
            yield Step(name, noted)
            return
        if decision.journal is not None and world.faults and self._may("daemon"):
            crashed = _daemon_dies(noted, i)
            yield Step(
                f"{name}, journaled, and colod dies",
                replace(crashed, faults=world.faults - 1),
                is_fault=True,
            )
        yield from self._effect(noted, i, decision.effect, name)

    def _effect(self, world: World, i: int, effect: Do | Swap, name: str) -> Iterator[Step[World]]:
        if isinstance(effect, Swap) or effect is Do.SETTLE_WRITE:
            yield from self._write(world, i, name)
        elif effect is Do.READ_WITNESS:
            yield Step(name, _reads(world, i))
        elif effect is Do.START_PAIRING:
            yield Step(name, _starts_pairing(world, i))
        else:
            yield Step(name, _EFFECTS[effect](world, i))

    def _write(self, world: World, i: int, name: str) -> Iterator[Step[World]]:
        host = world.hosts[i]
        assert host.journal is not None
        pending = host.journal.pending
        assert pending is not None
        check_transition(pending.record, pending.new, by=HOSTS[i])
        if not world.witness[i]:
            if host.answer is not Answer.UNREACHABLE:
                yield Step(f"{name} (no answer)", _with(world, i, answer=Answer.UNREACHABLE))
            return
        landed = _land(world, i, pending)
        yield Step(name, _settle(landed, i, pending))
        if world.faults and self._may("write"):
            spent = replace(world, faults=world.faults - 1)
            yield Step(f"{name}, but the answer is lost", _land(spent, i, pending), is_fault=True)
            yield Step(
                f"{name}, but the write is delayed",
                replace(spent, late=spent.late | {(i, pending)}),
                is_fault=True,
            )

    # --- faults ---------------------------------------------------------------------------

    def _may(self, kind: str) -> bool:
        return self._kinds is None or kind in self._kinds

    def _faults(self, world: World) -> Iterator[Step[World]]:
        for i in (0, 1):
            host, name = world.hosts[i], HOSTS[i]
            if not host.is_up:
                continue
            yield from self._process_faults(world, i)
            if self._may("host"):
                yield Step(f"{name} dies", _host_dies(world, i), is_fault=True)
            if self._may("witness") and world.witness[i]:
                cut = tuple(up and j != i for j, up in enumerate(world.witness))
                yield Step(
                    f"{name} loses the witness",
                    replace(world, witness=(cut[0], cut[1])),
                    is_fault=True,
                )
            if self._may("suspicion") and host.contact is not Contact.LOST and host.daemon:
                yield Step(
                    f"{name} suspects the other for no reason",
                    _with(world, i, contact=Contact.LOST, answer=Answer.STALE),
                    is_fault=True,
                )
            if self._may("operator") and host.daemon and not host.failover_asked:
                yield Step(
                    f"an operator asks {name} to take over",
                    _with(world, i, failover_asked=True, answer=Answer.STALE),
                    is_fault=True,
                )
        if self._may("net") and world.net:
            yield Step("the network is cut", replace(world, net=False), is_fault=True)

    def _process_faults(self, world: World, i: int) -> Iterator[Step[World]]:
        host, name = world.hosts[i], HOSTS[i]
        if self._may("daemon") and host.daemon:
            yield Step(f"{name}: colod dies", _daemon_dies(world, i), is_fault=True)
        if self._may("session") and host.link is not Link.NONE:
            yield Step(f"{name}: the session dies", _session_dies(world, i), is_fault=True)
        if self._may("xl") and host.xl:
            yield Step(f"{name}: xl dies", _xl_dies(world, i), is_fault=True)
        if self._may("all") and (host.xl or host.link is not Link.NONE) and host.daemon:
            gone = _daemon_dies(_xl_dies(_session_dies(world, i), i), i)
            yield Step(f"{name}: colod, session and xl die together", gone, is_fault=True)


def _copy(domain: Domain | None) -> Copy:
    if domain is None:
        return Copy.ABSENT
    if domain.pauses:
        return Copy.PAUSED
    return Copy.SUSPENDED if domain.suspended else Copy.RUNNING


def _with(world: World, i: int, **changes: object) -> World:
    host = replace(world.hosts[i], **changes)  # type: ignore[arg-type]
    hosts = (host, world.hosts[1]) if i == 0 else (world.hosts[0], host)
    return replace(world, hosts=hosts)


# --- effects ----------------------------------------------------------------------------------


def _reads(world: World, i: int) -> World:
    if not world.witness[i]:
        return _with(world, i, answer=Answer.UNREACHABLE)
    return _with(world, i, answer=Answer.READ, seen=(world.record, world.revision))


def _hold(world: World, i: int) -> World:
    guest = world.hosts[i].guest
    if guest is None:
        return world
    return _with(world, i, guest=replace(guest, pauses=guest.pauses + 1))


def _run(world: World, i: int) -> World:
    guest = world.hosts[i].guest
    return world if guest is None else _with(world, i, guest=replace(guest, pauses=0))


def _resume(world: World, i: int) -> World:
    guest = world.hosts[i].guest
    return world if guest is None else _with(world, i, guest=replace(guest, suspended=False))


def _destroy(world: World, i: int) -> World:
    return _with(world, i, guest=None)


def _open(world: World, i: int) -> World:
    guest = world.hosts[i].guest
    return world if guest is None else _with(world, i, guest=replace(guest, closed=False))


def _release(world: World, i: int) -> World:
    """End this host's session; a sender's xl resumes the guest, pause references permitting."""
    host = world.hosts[i]
    world = _with(world, i, link=Link.NONE, acked=0, handed_over=False)
    if _is_sender(host):
        world = _with(world, i, xl=False)
        return _resume(world, i)
    return world


def _hand_over(world: World, i: int) -> World:
    return _with(world, i, handed_over=True)


def _await_takeover(world: World, i: int) -> World:
    return _takeover(world, i) if _xl_sees_end(world.hosts[i]) else world


def _discard(world: World, i: int) -> World:
    return _with(world, i, incoming=None, xl=False, link=Link.NONE, acked=0, handed_over=False)


def _erase(world: World, i: int) -> World:
    return _with(world, i, journal=None)


_EFFECTS = {
    Do.HOLD_GUEST: _hold,
    Do.RUN_GUEST: _run,
    Do.RESUME_GUEST: _resume,
    Do.DESTROY_GUEST: _destroy,
    Do.QUARANTINE_GUEST: _destroy,
    Do.RELEASE_SESSION: _release,
    Do.HAND_OVER: _hand_over,
    Do.AWAIT_TAKEOVER: _await_takeover,
    Do.DISCARD_REPLICA: _discard,
    Do.OPEN_GATE: _open,
    Do.ERASE: _erase,
}


def _starts_pairing(world: World, i: int) -> World:
    """Do what `prepare_receive` and `xl remus` do, or nothing where the peer refuses."""
    host, other = world.hosts[i], world.hosts[1 - i]
    world = _with(world, i, pairings=host.pairings + 1)
    assert host.journal is not None
    if not (world.net and other.is_up and other.daemon) or not _accepts(other):
        return world
    pairing = PairingId(str(host.journal.pairing))
    journal = other.journal or Journal(protection=TERMS, host=HOSTS[1 - i], role=Role.SECONDARY)
    journal = replace(
        journal,
        pairing=pairing,
        pairing_generation=Generation(host.journal.pairing_generation),
        pending=None,
    )
    world = _with(
        world,
        1 - i,
        journal=journal,
        link=Link.STARTING,
        xl=True,
        acked=0,
        handed_over=False,
        peer_gave_up=False,
        answer=Answer.STALE,
    )
    return _with(world, i, link=Link.STARTING, xl=True, acked=0, peer_replica=Replica.NONE)


def _accepts(host: Host) -> bool:
    """Whether a secondary with nothing left of an older pairing is asked."""
    journal = host.journal
    if host.guest is not None or host.incoming is not None or host.xl:
        return False
    if journal is None:
        return True
    return journal.role is Role.SECONDARY and journal.pairing is None and journal.pending is None


# --- the witness ------------------------------------------------------------------------------


def _land(world: World, i: int, pending: Pending) -> World:
    """Let a compare-and-swap take effect if nothing was written since; also twice, unharmed."""
    if world.revision != pending.revision or world.record != pending.record:
        return world
    check_transition(world.record, pending.new, by=HOSTS[i])
    return replace(world, record=pending.new, revision=world.revision + 1)


def _settle(world: World, i: int, pending: Pending) -> World:
    """Give the writer the outcome that the witness can now name."""
    journal = world.hosts[i].journal
    assert journal is not None
    seen = (world.record, world.revision)
    if world.record is None:
        settled = unlearn(journal, world.revision)
    else:
        settled = learn(journal, world.record, world.revision)
    return _with(world, i, journal=settled, answer=Answer.READ, seen=seen, failover_asked=False)


def _late_writes(world: World) -> Iterator[Step[World]]:
    for entry in sorted(world.late, key=repr):
        i, pending = entry
        landed = _land(replace(world, late=world.late - {entry}), i, pending)
        yield Step(f"a late write of {HOSTS[i]} arrives", landed)


# --- what Xen and the sessions do by themselves -----------------------------------------------


def _is_sender(host: Host) -> bool:
    return host.journal is not None and host.journal.role is Role.PRIMARY


def _xl_sees_end(host: Host) -> bool:
    return host.handed_over or host.link is Link.NONE


def _takeover(world: World, i: int) -> World:
    """End of file at the receiving xl: it renames the copy and unpauses it once, or destroys it."""
    host = world.hosts[i]
    copy = host.incoming
    if copy is None or host.acked == 0 or host.guest is not None:
        return _with(world, i, xl=False, incoming=None)
    copy = replace(copy, pauses=max(0, copy.pauses - 1))
    return _with(world, i, xl=False, incoming=None, guest=copy)


def _xen_steps(world: World, i: int) -> Iterator[Step[World]]:
    host, name = world.hosts[i], HOSTS[i]
    if not host.is_up:
        return
    if host.xl and _is_sender(host):
        if host.link is Link.NONE:
            yield Step(f"{name}: xl resumes the guest", _with(_resume(world, i), i, xl=False))
        if host.guest is None and host.link is not Link.NONE:
            yield Step(f"{name}: xl remus ends", _breaks(_with(world, i, xl=False), i))
    elif host.xl and _xl_sees_end(host) and host.link is Link.NONE:
        yield Step(f"{name}: xl takes over", _takeover(world, i))
    guest = host.guest
    if guest is not None and host.xl and host.link in (Link.FOLLOWING, Link.BROKEN):
        if not guest.suspended and guest.pauses == 0:
            yield Step(
                f"{name}: a checkpoint begins",
                _with(world, i, guest=replace(guest, suspended=True)),
            )
        elif guest.suspended and host.link is Link.FOLLOWING:
            yield Step(f"{name}: the guest resumes", _resume(world, i))


def _pairing_of(host: Host) -> str | None:
    return host.journal.pairing if host.journal is not None and host.is_up else None


def _replication_steps(world: World) -> Iterator[Step[World]]:
    sender = next((i for i in (0, 1) if _is_sender(world.hosts[i])), None)
    if sender is None:
        return
    s, r = world.hosts[sender], world.hosts[1 - sender]
    joined = (
        world.net
        and s.is_up
        and r.is_up
        and _pairing_of(s) is not None
        and _pairing_of(s) == _pairing_of(r)
        and not _is_sender(r)
    )
    live = (Link.STARTING, Link.SYNCING, Link.FOLLOWING)
    if joined and s.link in live and r.link in live and s.xl and r.xl:
        yield from _advance(world, sender)
        return
    for i in (0, 1):
        if world.hosts[i].is_up and world.hosts[i].link in live:
            yield Step(f"{HOSTS[i]}: the session notices", _breaks(world, i))


def _breaks(world: World, i: int) -> World:
    return _with(world, i, link=Link.BROKEN, answer=Answer.STALE)


def _advance(world: World, s: int) -> Iterator[Step[World]]:
    """Replicate one step: first copy, checkpoint 1, checkpoint 2 with its gate."""
    sender, r = world.hosts[s], 1 - s
    if sender.link is Link.STARTING:
        for i in (0, 1):
            world = _with(world, i, link=Link.SYNCING)
        # Its creation is the first pause reference, the receiver's own the second.
        yield Step("the first copy begins", _with(world, r, incoming=Domain(pauses=2)))
    elif sender.link is Link.SYNCING:
        for i in (0, 1):
            world = _with(world, i, link=Link.FOLLOWING, acked=1)
        yield Step("checkpoint 1 is acknowledged", world)
    elif sender.acked == 1 and sender.guest is not None:
        world = _with(world, s, guest=replace(sender.guest, closed=True), acked=2)
        yield Step("the gate closes and checkpoint 2 is acknowledged", _with(world, r, acked=2))


def _contact_steps(world: World, i: int) -> Iterator[Step[World]]:
    host, other = world.hosts[i], world.hosts[1 - i]
    if not (host.is_up and host.daemon):
        return
    if host.answer is Answer.READ and host.seen != (world.record, world.revision):
        yield Step(f"{HOSTS[i]}'s reading grows old", _with(world, i, answer=Answer.STALE))
    if world.net and other.is_up and other.daemon:
        heard = _hears(world, i)
        if heard != world:
            yield Step(f"{HOSTS[i]} hears {HOSTS[1 - i]}", heard)
    elif host.contact is not Contact.LOST and host.link is not Link.FOLLOWING:
        yield Step(
            f"{HOSTS[i]} finds the other lost",
            _with(world, i, contact=Contact.LOST, answer=Answer.STALE),
        )


def _hears(world: World, i: int) -> World:
    """Exchange one heartbeat: contact, and what the other says of the common pairing."""
    host, other = world.hosts[i], world.hosts[1 - i]
    pairing = _pairing_of(host)
    common = pairing is not None and pairing == _pairing_of(other)
    replica = Replica.NONE
    if common and other.journal is not None and other.journal.role is Role.SECONDARY:
        replica = _replica(other)
    gave_up = pairing is not None and not common
    news = (Contact.UP, replica, gave_up)
    if (host.contact, host.peer_replica, host.peer_gave_up) == news:
        return world
    return _with(
        world,
        i,
        contact=Contact.UP,
        peer_replica=replica,
        peer_gave_up=gave_up,
        answer=Answer.STALE,
    )


def _replica(host: Host) -> Replica:
    assert host.journal is not None
    return replica_of(
        View(
            journal=host.journal,
            boot="",
            new_id="",
            guest=_copy(host.guest),
            incoming=host.incoming is not None,
            link=host.link,
            xl_alive=host.xl,
        )
    )


# --- faults and repairs -----------------------------------------------------------------------


def _daemon_dies(world: World, i: int) -> World:
    return _with(
        world,
        i,
        daemon=False,
        answer=Answer.STALE,
        seen=(None, 0),
        contact=Contact.SILENT,
        peer_replica=Replica.NONE,
        peer_gave_up=False,
        failover_asked=False,
    )


def _session_dies(world: World, i: int) -> World:
    return _with(world, i, link=Link.NONE, answer=Answer.STALE, handed_over=False)


def _xl_dies(world: World, i: int) -> World:
    host = world.hosts[i]
    link = Link.NONE if host.link is Link.NONE else Link.BROKEN
    return _with(world, i, xl=False, link=link, answer=Answer.STALE)


def _host_dies(world: World, i: int) -> World:
    host = world.hosts[i]
    dead = Host(
        is_up=False, daemon=False, boot=host.boot + 1, journal=host.journal, pairings=host.pairings
    )
    hosts = (dead, world.hosts[1]) if i == 0 else (world.hosts[0], dead)
    return replace(world, hosts=hosts)


def _repairs(world: World, i: int) -> Iterator[Step[World]]:
    host, name = world.hosts[i], HOSTS[i]
    if not host.is_up:
        yield Step(f"{name} boots", _with(world, i, is_up=True))
    elif not host.daemon:
        yield Step(f"{name}: colod starts", _with(world, i, daemon=True))
    if not world.witness[i]:
        back = tuple(up or j == i for j, up in enumerate(world.witness))
        again = replace(world, witness=(back[0], back[1]))
        if host.answer is Answer.UNREACHABLE:
            again = _with(again, i, answer=Answer.STALE)
        yield Step(f"{name} reaches the witness again", again)


# --- the promises -----------------------------------------------------------------------------


def broken(world: World) -> str:
    """Return which promise this state breaks, or ""."""
    speaking = [i for i in (0, 1) if _speaks(world.hosts[i])]
    if len(speaking) > 1:
        return "two copies speak"
    record = world.record
    if speaking and record is not None and record.owner != HOSTS[speaking[0]]:
        return f"{HOSTS[speaking[0]]} speaks and {record.owner} owns the guest"
    if record is not None and record.state is RecordState.PAIRED:
        owner = world.hosts[HOSTS.index(record.owner)]
        if owner.guest is not None and not owner.guest.closed and owner.guest.runs:
            return "PAIRED with an open gate"
    if any(h.incoming is not None and h.incoming.runs for h in world.hosts):
        return "an incoming copy runs"
    return ""


def broken_step(world: World, step: Step[World]) -> str:
    """Return which promise this step breaks: only accidents may lose the guest."""
    if not step.is_fault and _has_guest(world) and not _has_guest(step.after):
        return "colod itself lost the guest"
    return ""


def is_good(world: World) -> bool:
    """Whether the guest speaks from its owner, or an accident has left no copy of it."""
    if not _has_guest(world):
        return True
    record = world.record
    if record is None:
        return False
    owner = world.hosts[HOSTS.index(record.owner)]
    runs = owner.guest is not None and owner.guest.runs
    return record.activated and runs and (_speaks(owner) or is_protected(world))


def is_protected(world: World) -> bool:
    """Whether the pair replicates, PAIRED, with a closed gate."""
    record = world.record
    if record is None or record.state is not RecordState.PAIRED:
        return False
    return all(h.link is Link.FOLLOWING for h in world.hosts)


def _speaks(host: Host) -> bool:
    return host.guest is not None and host.guest.speaks


def _has_guest(world: World) -> bool:
    """Whether some copy is left that the record allows to run, now or after a hand-back."""
    record = world.record
    if record is None:
        return any(host.guest is not None for host in world.hosts)
    owner = world.hosts[HOSTS.index(record.owner)]
    peer = world.hosts[HOSTS.index(record.peer)]
    if _holds(owner):
        return True
    if owner.journal is not None and owner.journal.started:
        # It may have spoken before it died: what the other host has is too old to go on from.
        return False
    return (record.state is RecordState.PAIRED or not record.activated) and _holds(peer)


def _holds(host: Host) -> bool:
    return host.guest is not None or (host.incoming is not None and host.xl and host.acked > 0)
