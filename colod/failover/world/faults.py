"""Accidents, and what persons do; then what comes back by itself.

Kinds: `daemon session xl all host` (what dies), `net witness write` (what is cut, lost or late),
`suspicion` (a host takes the other for lost), `effect` (an effect fails half-way), `fence` (fencing
proves nothing), `guest` (it ends or reboots by its own will), `failover switchover drain suspend
unprotect force` (an operator's wish), `restore` (the witness comes back from an old backup).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from colod.failover.view import Answer, Contact, Journal, Link, Replica, Wanted
from colod.failover.world.daemon import dies as daemon_dies
from colod.failover.world.daemon import land
from colod.failover.world.state import (
    HOSTS,
    TERMS,
    Bounds,
    Domain,
    Host,
    Meeting,
    Move,
    Reading,
    Shared,
    replica_on,
)
from colod.failover.world.xen import breaks
from colod.model import Role

_DEATHS = ("daemon", "session", "xl", "all", "host")
_CUTS = ("net", "witness", "write", "suspicion", "effect", "fence", "restore")
_PERSONS = ("guest", "failover", "switchover", "drain", "suspend", "unprotect", "force")
KINDS = frozenset((*_DEATHS, *_CUTS, *_PERSONS))


def accidents(i: int, host: Host, shared: Shared, bounds: Bounds) -> Iterator[Move]:
    """Yield what may befall host `i`, each as the only accident of its step."""
    if not shared.faults or not host.is_up:
        return
    spent = replace(shared, faults=shared.faults - 1)
    for kind, name, after in _befalls(host, bounds):
        if kind in bounds.kinds:
            yield Move(name, after, spent, is_fault=True)
    if "unprotect" in bounds.kinds and host.daemon and host.journal is None and host.guest:
        journal = Journal(protection=TERMS, host=HOSTS[i], role=Role.PRIMARY, boot=str(host.boot))
        again = replace(host, journal=journal)
        yield Move("an operator protects the guest anew", again, spent, is_fault=True)
    if "witness" in bounds.kinds and shared.witness[i]:
        cut = _set(spent, i, reaches=False)
        yield Move("loses the witness", host, cut, is_fault=True)
    guest = host.guest
    if "guest" in bounds.kinds and guest is not None and guest.runs and host.is_sender:
        over = replace(spent, is_over=True)
        yield Move("the guest shuts down", replace(host, guest=None), over, is_fault=True)
        yield Move("the guest reboots", _reboots(host, bounds), spent, is_fault=True)
    has_run = host.is_sender or (host.journal is not None and host.journal.started)
    if "guest" in bounds.kinds and guest is not None and guest.runs and has_run:
        ended = replace(xl_dies(host), guest=replace(guest, ended=True))
        yield Move("the guest reboots, and no xl sees to it", ended, spent, is_fault=True)
    if "guest" in bounds.kinds and guest is not None and guest.unbuilt:
        yield Move("xl create fails", replace(host, guest=None), spent, is_fault=True)


def _reboots(host: Host, bounds: Bounds) -> Host:
    """Return the host with the domain that a reboot makes of the guest; its xl cannot go on.

    No gate holds the new domain. Whoever looks first pauses it, long before it has booted: the
    daemon, or its session while there is none (`colod.session.rebooting`). What a daemon has not
    seen yet counts as mute (`closed`); so does, by assumption, what neither of them can see before
    systemd has started a daemon again.
    """
    is_held = not host.daemon and host.link is not Link.NONE
    anew = Domain(closed=bounds.gated and not is_held, pauses=int(is_held))
    return replace(xl_dies(host), guest=anew, session_holds=is_held)


def _befalls(host: Host, bounds: Bounds) -> Iterator[tuple[str, str, Host]]:
    if host.daemon:
        yield "daemon", "colod dies", daemon_dies(host, bounds)
    yield from _process_deaths(host, bounds)
    yield "host", "the host dies", host_dies(host, bounds)
    if host.daemon and host.contact is not Contact.LOST:
        lost = replace(host, contact=Contact.LOST, answer=Answer.STALE)
        yield "suspicion", "suspects the other for no reason", lost
    if host.daemon and host.journal is not None:
        yield from _wishes(host)


def _process_deaths(host: Host, bounds: Bounds) -> Iterator[tuple[str, str, Host]]:
    if host.link is not Link.NONE:
        yield "session", "the session dies", session_dies(host)
    if host.xl:
        yield "xl", "xl dies", xl_dies(host)
        if host.handed_over and host.incoming is not None and host.guest is None:
            renamed = replace(
                xl_dies(host), guest=replace(host.incoming, whole=False), incoming=None
            )
            yield "xl", "xl dies between renaming and unpausing", renamed
    if host.daemon and (host.xl or host.link is not Link.NONE):
        gone = daemon_dies(xl_dies(session_dies(host)), bounds)
        yield "all", "colod, session and xl die together", gone
        gone = daemon_dies(session_dies(host), bounds)
        yield "all", "colod and the session die together", gone


def _wishes(host: Host) -> Iterator[tuple[str, str, Host]]:
    """Yield what an operator may ask of a living daemon; see `colod.daemon.host`."""
    journal = host.journal
    assert journal is not None
    if journal.role is Role.SECONDARY:
        if not host.failover_asked and replica_on(host) in (Replica.FOLLOWING, Replica.FROZEN):
            asked = replace(host, failover_asked=True, answer=Answer.STALE)
            yield "failover", "an operator asks it to take over", asked
    else:
        if not journal.switchover and journal.is_paired and host.guest and host.guest.closed:
            wish = replace(journal, switchover="by hand")
            asked = replace(host, journal=wish, in_time=True, final=False, answer=Answer.STALE)
            yield "switchover", "an operator asks it to give the guest away", asked
        for wanted in Wanted:
            if wanted is not journal.wanted:
                wish = replace(journal, wanted=wanted)
                asked = replace(host, journal=wish, answer=Answer.STALE)
                kind = "unprotect" if wanted is Wanted.UNPROTECTED else "suspend"
                yield kind, f"an operator wants the guest {wanted}", asked
    if not host.draining:
        yield (
            "drain",
            "an operator drains it",
            replace(host, draining=True, answer=Answer.STALE),
        )


def forcing(host: Host, other_is_up: bool) -> Iterator[Meeting]:
    """Yield an operator's force: given on the word, and here the truth, that the other is down."""
    journal = host.journal
    if other_is_up or not host.answers or journal is None or journal.force_reason:
        return
    if journal.role is Role.PRIMARY:
        is_lost = journal.record is not None and not journal.is_owner
        can = is_lost and not journal.is_activated and host.guest is not None
    else:
        can = replica_on(host) in (Replica.FOLLOWING, Replica.FROZEN)
    if can:
        forced = replace(journal, force_reason="by hand")
        after = replace(host, journal=forced, failover_asked=True, answer=Answer.STALE)
        yield Meeting("an operator forces it to take over", after, is_fault=True)


def session_dies(host: Host) -> Host:
    """Return the host without its session's process."""
    gone = replace(host, link=Link.NONE, handed_over=False, final=False, session_holds=False)
    return replace(gone, answer=Answer.STALE)


def xl_dies(host: Host) -> Host:
    """Return the host without its xl; what it left suspended stays so."""
    without = replace(host, xl=False, answer=Answer.STALE)
    return without if host.link is Link.NONE else breaks(without)


def host_dies(host: Host, bounds: Bounds) -> Host:
    """Return the host switched off: only its disk is left."""
    if not host.is_up:
        return host
    dead = Host(
        is_up=False, daemon=False, boot=host.boot + 1, journal=host.journal, pairings=host.pairings
    )
    return daemon_dies(dead, bounds)


def _set(shared: Shared, i: int, *, reaches: bool) -> Shared:
    a, b = shared.witness
    return replace(shared, witness=(reaches, b) if i == 0 else (a, reaches))


def repairs(i: int, host: Host, shared: Shared) -> Iterator[Move]:
    """Yield what comes back by itself at host `i`, and what grows old."""
    if not host.is_up:
        yield Move("boots", replace(host, is_up=True), shared)
    elif not host.daemon:
        yield Move("colod starts", replace(host, daemon=True), shared)
    elif host.answer is Answer.READ and host.seen != shared.reading:
        yield Move("its reading grows old", replace(host, answer=Answer.STALE), shared)
    if host.in_time and host.journal is not None and host.journal.switchover:
        yield Move("the switchover takes too long", replace(host, in_time=False), shared)
    if not shared.witness[i]:
        again = host
        if host.answer is Answer.UNREACHABLE:
            again = replace(host, answer=Answer.STALE)
        yield Move("reaches the witness again", again, _set(shared, i, reaches=True))


def common(shared: Shared, bounds: Bounds) -> Iterator[tuple[str, Shared, bool]]:
    """Yield what happens to neither host: late writes, the network, the witness's disk."""
    for entry in sorted(shared.late, key=repr):
        writer, pending = entry
        landed = land(HOSTS[writer], replace(shared, late=shared.late - {entry}), pending)
        yield f"a late write of {HOSTS[writer]} arrives", landed, False
    if not shared.net:
        yield "the network heals", replace(shared, net=True), False
    if not shared.faults:
        return
    spent = replace(shared, faults=shared.faults - 1)
    if "net" in bounds.kinds and shared.net:
        yield "the network is cut", replace(spent, net=False), True


def restoring(shared: Shared, known: int) -> Iterator[tuple[str, Shared, bool]]:
    """Yield how the witness is restored from an old backup.

    Only while both hosts know all that it forgets: a witness that forgets a grant before the loser
    has learned of it has given the guest to both, and no rule can mend that (docs/failover.md).

    Args:
        shared: What is shared.
        known: The generation that both hosts know of.
    """
    if shared.is_restored or not shared.faults:
        return
    if shared.backup is None and shared.reading != Reading():
        # Making a copy harms nothing; it is a choice of the walk, not an accident.
        yield "the witness is backed up", replace(shared, backup=shared.reading), True
    elif shared.backup not in (None, shared.reading) and known >= generation_of(shared.reading):
        old = replace(
            shared, reading=shared.backup, backup=None, is_restored=True, faults=shared.faults - 1
        )
        yield "the witness is restored from the backup", old, True


def generation_of(reading: Reading) -> int:
    """Return the newest generation that the witness has seen."""
    record = reading.record
    return reading.last_generation if record is None else record.generation
