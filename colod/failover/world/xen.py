"""What xl, libxc and the sessions do by themselves, and what the two sessions do together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from colod.failover.view import Answer, Contact, Link, Replica
from colod.failover.world.state import (
    LIVE,
    Bounds,
    Domain,
    Host,
    Meeting,
    keeps_copy,
    replica_on,
    with_guest,
)
from colod.model import FIRST_PROMOTABLE_EPOCH, PairingId

# --- one host ---------------------------------------------------------------------------------


def resumed(host: Host) -> Host:
    """libxl resumes the guest, as far as pause references let it."""
    return with_guest(host, suspended=False)


def breaks(host: Host) -> Host:
    """The session reports that it cannot go on."""
    return replace(host, link=Link.BROKEN, answer=Answer.STALE)


def sees_end(host: Host) -> bool:
    """Whether the receiving xl has read the end of its stream."""
    return host.handed_over or host.link is Link.NONE


def takes_over(host: Host) -> Host:
    """End of file at the receiving xl: it renames the copy and unpauses it once, or destroys it."""
    copy = host.incoming
    if copy is None or host.acked == 0 or host.guest is not None:
        return replace(host, xl=False, incoming=None)
    copy = replace(copy, pauses=max(0, copy.pauses - 1), whole=False)
    return replace(host, xl=False, incoming=None, guest=copy)


def spontaneous(host: Host) -> Iterator[tuple[str, Host]]:
    """Yield what Xen and the session do on a host that is up, unasked."""
    if host.xl and host.is_sender:
        if host.link is Link.NONE:
            yield "xl resumes the guest", replace(resumed(host), xl=False)
        elif host.guest is None or host.guest.ended:
            yield "xl remus ends", breaks(replace(host, xl=False))
        else:
            yield from _checkpoints(host)
    elif host.xl and sees_end(host):
        yield "xl takes over", takes_over(host)
    if host.guest is not None and host.guest.unbuilt:
        yield "xl create ends", replace(host, guest=Domain(), answer=Answer.STALE)
    incoming = host.incoming
    if incoming is not None and incoming.pauses == 1 and host.link in (*LIVE, Link.BROKEN):
        yield (
            "the receiver takes the second pause",
            replace(host, incoming=replace(incoming, pauses=2)),
        )


def _checkpoints(host: Host) -> Iterator[tuple[str, Host]]:
    guest = host.guest
    assert guest is not None
    if not guest.suspended and guest.pauses == 0 and host.link is not Link.STARTING:
        yield "a checkpoint begins", with_guest(host, suspended=True)
    elif guest.suspended and host.link in (Link.SYNCING, Link.FOLLOWING):
        yield "the guest resumes", resumed(host)


# --- what happens to the other host -----------------------------------------------------------


def _receives(host: Host) -> Host:
    """Begin to sync: the incoming copy is made, with one pause reference."""
    return replace(
        host, link=Link.SYNCING, incoming=Domain(pauses=1, fresh=False), answer=Answer.STALE
    )


def _has_first(host: Host) -> Host:
    return replace(host, link=Link.FOLLOWING, acked=1, answer=Answer.STALE)


def _has_promotable(host: Host) -> Host:
    assert host.incoming is not None
    return replace(
        host,
        acked=int(FIRST_PROMOTABLE_EPOCH),
        incoming=replace(host.incoming, fresh=True, whole=True),
    )


RECEIVER_ACTS = {
    "receives": _receives,
    "has checkpoint 1": _has_first,
    "has checkpoint 2": _has_promotable,
}


# --- two hosts --------------------------------------------------------------------------------


class Wire(NamedTuple):
    """What a session can tell of the other one."""

    pairing: PairingId | None
    is_sender: bool
    link: Link
    xl: bool
    acked: int
    pauses: int


class Said(NamedTuple):
    """What a heartbeat says."""

    answers: bool
    pairing: PairingId | None
    replica: Replica
    keeps_under: int
    """The generation under which it has lost the guest and keeps its copy, 0 if it does not."""


def wire_of(host: Host) -> Wire:
    """Return what the other session can tell of this host's."""
    pauses = host.incoming.pauses if host.incoming is not None else 0
    return Wire(
        host.pairing if host.is_up else None,
        host.is_sender,
        host.link if host.is_up else Link.NONE,
        host.xl,
        host.acked,
        pauses,
    )


def replication(host: Host, other: Wire, net: bool, bounds: Bounds) -> Iterator[Meeting]:
    """Yield what the sessions do, told from one end; the sender's end drives."""
    if not host.is_up or host.link not in LIVE:
        return
    joined = (
        net
        and host.pairing is not None
        and host.pairing == other.pairing
        and other.is_sender != host.is_sender
        and other.link in LIVE
        and other.xl
        and host.xl
    )
    if not joined:
        yield Meeting("the session notices", breaks(host))
    elif host.is_sender:
        yield from _advance(host, other.acked, other.pauses, bounds)


def _advance(host: Host, there: int, pauses: int, bounds: Bounds) -> Iterator[Meeting]:
    """Replicate one step. An epoch is whole there before its acknowledgement is here."""
    guest, promotable = host.guest, int(FIRST_PROMOTABLE_EPOCH)
    if host.link is Link.STARTING:
        begun = replace(host, link=Link.SYNCING)
        yield Meeting("the first copy begins", begun, "receives")
    elif there == 0 and pauses >= 2:
        # The receiver keeps the first copy's tail back until the second pause is taken.
        yield Meeting("checkpoint 1 is whole there", host, "has checkpoint 1")
    elif there > host.acked:
        acked = replace(host, link=Link.FOLLOWING, acked=there)
        yield Meeting(f"checkpoint {there} is acknowledged", acked)
    elif there == 1 and guest is not None:
        if bounds.gated and not guest.closed:
            yield Meeting("the gate closes", with_guest(host, closed=True))
        else:
            yield Meeting(f"checkpoint {promotable} is whole there", host, "has checkpoint 2")


def hear_of(host: Host) -> Said:
    """Return what a host says in a heartbeat, if anything."""
    journal = host.journal
    if not host.answers or journal is None:
        return Said(host.answers, None, Replica.NONE, 0)
    keeps_under = journal.generation if keeps_copy(host) else 0
    return Said(True, host.pairing, replica_on(host), keeps_under)


def contact(host: Host, said: Said, net: bool) -> Iterator[Meeting]:
    """Yield a heartbeat, or its absence, as one host's daemon meets it."""
    if not host.answers:
        return
    answers, pairing, replica, keeps = said
    if net and answers:
        common = host.pairing is not None and host.pairing == pairing
        replica = replica if common else Replica.NONE
        gave_up = host.pairing is not None and not common
        known = (host.contact, host.peer_replica, host.peer_gave_up, host.peer_keeps)
        if known != (Contact.UP, replica, gave_up, keeps):
            heard = replace(
                host,
                contact=Contact.UP,
                peer_replica=replica,
                peer_gave_up=gave_up,
                peer_keeps=keeps,
                answer=Answer.STALE,
            )
            yield Meeting("hears the other", heard)
    elif host.contact is not Contact.LOST and host.link is not Link.FOLLOWING:
        yield Meeting(
            "finds the other lost", replace(host, contact=Contact.LOST, answer=Answer.STALE)
        )
