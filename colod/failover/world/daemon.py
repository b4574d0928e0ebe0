"""What a daemon does: its decision, the journal entry, then the effect — or part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from colod.failover.effects import Decision, Do, Effect, State, Swap
from colod.failover.learning import join, learn, unlearn
from colod.failover.record import RecordState, check_transition
from colod.failover.view import Answer, Fence, Journal, Link, Pending, Replica, Wanted
from colod.failover.world.state import (
    HOSTS,
    TERMS,
    Bounds,
    Decide,
    Domain,
    Host,
    Meeting,
    Move,
    Reading,
    Shared,
    view_of,
    with_guest,
)
from colod.failover.world.xen import resumed
from colod.model import FIRST_PROMOTABLE_EPOCH, Generation, HostName, PairingId, Role

JOINT = (Do.START_PAIRING, Do.FENCE_PEER, Do.ERASE)


def decision_of(host: Host, bounds: Bounds, decide: Decide) -> Decision | None:
    """Return what the host's daemon decides now, None where there is nobody to decide."""
    if not host.answers or host.journal is None:
        return None
    decision = decide(view_of(host, bounds))
    if decision.journal is None and decision.effect is None:
        return None
    return decision


def dies(host: Host, bounds: Bounds) -> Host:
    """The daemon dies, and its memory with it."""
    return replace(
        host,
        daemon=False,
        answer=Answer.STALE,
        seen=Reading(),
        contact=Host().contact,
        peer_replica=Replica.NONE,
        peer_gave_up=False,
        peer_keeps=0,
        failover_asked=False,
        in_time=False,
        draining=False,
        fence=Fence.NEEDED if bounds.fencing else Fence.NOT_NEEDED,
    )


def noted(host: Host, decision: Decision) -> Host:
    """Return the host with the decision's journal entry on disk."""
    return host if decision.journal is None else replace(host, journal=decision.journal)


def moves(i: int, host: Host, shared: Shared, bounds: Bounds, decide: Decide) -> Iterator[Move]:
    """Yield what the daemon of host `i` does next, where it involves no other host."""
    decision = decision_of(host, bounds, decide)
    if decision is None:
        return
    after, name, wrong = noted(host, decision), decision.rule, _forgets(host, decision)
    effect = decision.effect
    if effect is None:
        yield Move(name, after, shared, wrong=wrong)
        return
    if decision.journal is not None and shared.faults and "daemon" in bounds.kinds:
        crashed = dies(after, bounds)
        yield Move(f"{name}: journaled, then colod dies", crashed, _spent(shared), is_fault=True)
    wrong = wrong or _misdeed(i, host, shared, decision)
    if isinstance(effect, Swap) or effect is Do.SETTLE_WRITE:
        yield from _writes(i, name, after, shared, bounds, wrong)
    elif effect is Do.READ_WITNESS:
        yield Move(name, _reads(i, after, shared), shared)
    elif effect not in JOINT:
        yield from _acts(name, effect, after, shared, bounds, wrong)


def _spent(shared: Shared) -> Shared:
    return replace(shared, faults=shared.faults - 1)


def _acts(
    name: str, effect: Do, host: Host, shared: Shared, bounds: Bounds, wrong: str
) -> Iterator[Move]:
    for ending, after in _EFFECTS[effect](host):
        yield Move(name + ending, after, shared, wrong=wrong)
    for part, half in _halves(effect, host):
        if not shared.faults:
            return
        if "effect" in bounds.kinds:
            yield Move(f"{name}: {part}, and it fails", half, _spent(shared), is_fault=True)
        if "daemon" in bounds.kinds:
            dead = dies(half, bounds)
            yield Move(f"{name}: {part}, and colod dies", dead, _spent(shared), is_fault=True)


# --- what a decision must never be ------------------------------------------------------------


def _forgets(host: Host, decision: Decision) -> str:
    """A session is found by the journal's pairing: one that is dropped from it is lost sight of."""
    journal = decision.journal
    if journal is None or host.journal is None or journal.pairing == host.journal.pairing:
        return ""
    if host.link is Link.NONE and not host.xl:
        return ""
    return "a session is forgotten while it lives"


def _misdeed(i: int, host: Host, shared: Shared, decision: Decision) -> str:
    # What an old backup of the witness says of ownership is no measure.
    record, effect = None if shared.is_restored else shared.record, decision.effect
    owner = record.owner if record is not None else None
    knows_pair = host.journal is not None and host.journal.is_paired
    if (
        effect in (Do.RUN_GUEST, Do.RESUME_GUEST)
        and owner not in (HOSTS[i], None)
        and not knows_pair
    ):
        return "a copy is run on a host that does not own the guest"
    is_alone = record is not None and record.state is RecordState.ALONE
    if effect is Do.START_GUEST and not (owner == HOSTS[i] and is_alone):
        return "a guest is started on a host that does not own it alone"
    if effect is Do.RUN_GUEST and host.guest and host.guest.unbuilt:
        return "a guest is run that xl still makes"
    if effect is Do.CLEAR_ENDED and not (host.guest and host.guest.ended):
        return "a guest is destroyed that has not ended"
    is_only = owner is None and host.guest is not None and host.guest.fresh
    if effect is Do.DESTROY_GUEST and (owner == HOSTS[i] or is_only):
        return "the owner's own copy is destroyed"
    if effect is Do.OPEN_GATE and record is not None and record.state is RecordState.PAIRED:
        return "a gate is opened while the other host may take over"
    if _writes_paired(effect) and not _has_acked_promotable(host):
        return "PAIRED is written before a promotable epoch was acknowledged"
    if _gives_pair_away(host, effect) and not (host.guest is None or _is_at_its_end(host)):
        return "a guest is given away before its final epoch is acknowledged"
    if decision.state is State.PROTECTED and not (host.guest and host.guest.closed):
        return "PROTECTED is shown and output is not held"
    return ""


def _writes_paired(effect: Effect | None) -> bool:
    return (
        isinstance(effect, Swap)
        and effect.new is not None
        and effect.new.state is RecordState.PAIRED
    )


def _gives_pair_away(host: Host, effect: Effect | None) -> bool:
    is_gift = isinstance(effect, Swap) and effect.new is not None and effect.new.given
    return is_gift and host.journal is not None and host.journal.is_paired


def _is_at_its_end(host: Host) -> bool:
    return host.final and host.guest is not None and host.guest.pauses > 0


def _has_acked_promotable(host: Host) -> bool:
    return host.link is Link.FOLLOWING and host.acked >= FIRST_PROMOTABLE_EPOCH


# --- the witness ------------------------------------------------------------------------------


def _reads(i: int, host: Host, shared: Shared) -> Host:
    if not shared.witness[i]:
        return replace(host, answer=Answer.UNREACHABLE)
    return replace(host, answer=Answer.READ, seen=shared.reading)


def _writes(
    i: int, name: str, host: Host, shared: Shared, bounds: Bounds, wrong: str
) -> Iterator[Move]:
    assert host.journal is not None
    pending = host.journal.pending
    assert pending is not None
    if not shared.witness[i]:
        if host.answer is not Answer.UNREACHABLE or wrong:
            away = replace(host, answer=Answer.UNREACHABLE)
            yield Move(f"{name} (no answer)", away, shared, wrong=wrong)
        return
    landed = land(HOSTS[i], shared, pending)
    yield Move(name, _settled(host, landed, pending), landed, wrong=wrong)
    if shared.faults and "write" in bounds.kinds:
        lost = land(HOSTS[i], _spent(shared), pending)
        yield Move(f"{name}, but the answer is lost", host, lost, is_fault=True)
        delayed = replace(_spent(shared), late=shared.late | {(i, pending)})
        yield Move(f"{name}, but the write is delayed", host, delayed, is_fault=True)


def land(writer: HostName, shared: Shared, pending: Pending) -> Shared:
    """Let a compare-and-swap take effect if nothing was written since; also twice, unharmed."""
    reading = shared.reading
    if (reading.revision, reading.record) != (pending.revision, pending.record):
        return shared
    check_transition(reading.record, pending.new, by=writer, after=reading.last_generation)
    last = reading.last_generation
    if pending.new is None and reading.record is not None:
        last = reading.record.generation
    return replace(shared, reading=Reading(pending.new, reading.revision + 1, last))


def _settled(host: Host, shared: Shared, pending: Pending) -> Host:
    """Give the writer the outcome, if the witness can name it: an older one cannot."""
    journal, reading = host.journal, shared.reading
    assert journal is not None
    if reading.revision < pending.revision:
        return replace(host, answer=Answer.UNREACHABLE)
    if reading.record is None:
        settled = unlearn(journal, reading.revision)
    else:
        settled = learn(journal, reading.record, reading.revision)
    return replace(host, journal=settled, answer=Answer.READ, seen=reading, failover_asked=False)


# --- effects on this host ---------------------------------------------------------------------

_Endings = Iterator[tuple[str, Host]]


def _hold(host: Host) -> _Endings:
    pauses = host.guest.pauses + 1 if host.guest is not None else 0
    yield "", with_guest(host, pauses=pauses)


def _run(host: Host) -> _Endings:
    record = host.journal.record if host.journal is not None else None
    if record is not None and record.forced:
        # A person has accepted what is lost: from here on this copy is the guest.
        host = with_guest(host, fresh=True)
    yield "", with_guest(host, pauses=0)


def _quiesce(host: Host) -> _Endings:
    """Pause the guest in a checkpoint's window, if one comes in time."""
    if host.xl and host.link is Link.FOLLOWING and host.guest is not None:
        yield "", with_guest(replace(host, final=True), pauses=host.guest.pauses + 1)
    yield " (no window)", replace(host, in_time=False)


def _resume(host: Host) -> _Endings:
    yield "", resumed(host)


def _start(host: Host) -> _Endings:
    """Begin `xl create`, which goes on whatever becomes of the daemon."""
    yield "", replace(host, guest=Domain(pauses=1, unbuilt=True))


def _destroy(host: Host) -> _Endings:
    yield "", replace(host, guest=None)


def _open(host: Host) -> _Endings:
    yield "", with_guest(host, closed=False)


def _release(host: Host) -> _Endings:
    """End the session; a sender's xl resumes the guest, or has to be killed."""
    gone = replace(
        host, link=Link.NONE, acked=0, handed_over=False, final=False, session_holds=False
    )
    if not host.is_sender:
        yield "", gone
        return
    yield "", replace(resumed(gone), xl=False)
    guest = host.guest
    if guest is not None and (guest.suspended or guest.pauses):
        yield " (xl has to be killed)", replace(gone, xl=False)


def _hand_over(host: Host) -> _Endings:
    yield "", replace(host, handed_over=True)


def _no_change(host: Host) -> _Endings:
    """Do what the model does not look at."""
    yield "", host


def _wait(host: Host) -> _Endings:
    """Wait for what xl does by itself."""
    yield from ()


def _discard(host: Host) -> _Endings:
    yield "", replace(host, incoming=None, xl=False, link=Link.NONE, acked=0, handed_over=False)


_EFFECTS: dict[Do, Callable[[Host], _Endings]] = {
    Do.HOLD_GUEST: _hold,
    Do.RUN_GUEST: _run,
    Do.QUIESCE_GUEST: _quiesce,
    Do.RESUME_GUEST: _resume,
    Do.CLEAR_ENDED: _destroy,
    Do.START_GUEST: _start,
    Do.DESTROY_GUEST: _destroy,
    Do.QUARANTINE_GUEST: _destroy,
    Do.RELEASE_SESSION: _release,
    Do.HAND_OVER: _hand_over,
    Do.AWAIT_TAKEOVER: _wait,
    Do.DISCARD_REPLICA: _discard,
    Do.OPEN_GATE: _open,
    Do.DISCARD_GATE: _no_change,
}


def _halves(effect: Do, host: Host) -> Iterator[tuple[str, Host]]:
    """Yield where an effect of several steps can stop between them."""
    if effect is Do.DISCARD_REPLICA and host.xl:
        link = Link.BROKEN if host.link is not Link.NONE else Link.NONE
        yield "xl killed, its domain not destroyed", replace(host, xl=False, link=link)
    if effect is Do.DISCARD_REPLICA and host.link is not Link.NONE:
        yield (
            "xl and the domain gone, the session not ended",
            replace(host, xl=False, link=Link.BROKEN, incoming=None),
        )
    if effect is Do.RELEASE_SESSION and host.xl and host.link is not Link.NONE:
        gone = replace(
            host, link=Link.NONE, acked=0, handed_over=False, final=False, session_holds=False
        )
        yield "the session gone, xl not", gone
    if effect is Do.QUIESCE_GUEST and host.guest is not None:
        late = replace(host, in_time=False)
        yield "paused after the window", with_guest(late, pauses=host.guest.pauses + 1)
    if effect is Do.RUN_GUEST and host.guest is not None and host.guest.pauses > 1:
        yield "one reference dropped", with_guest(host, pauses=host.guest.pauses - 1)


# --- effects that involve the other host ------------------------------------------------------


class Standing(NamedTuple):
    """What a daemon's effects can depend on of the other host."""

    answers: bool
    accepts: bool
    """Whether it would receive a new replica."""


def meetings(
    host: Host, other: Standing, net: bool, bounds: Bounds, decide: Decide
) -> Iterator[Meeting]:
    """Yield what the daemon does next, where it involves the other host."""
    decision = decision_of(host, bounds, decide)
    if decision is None or decision.effect not in JOINT:
        return
    after, name, wrong = noted(host, decision), decision.rule, _forgets(host, decision)
    reached = net and other.answers
    if decision.effect is Do.ERASE:
        erased = replace(after, journal=None, pairings=host.pairings)
        yield Meeting(name, erased, "forgets" if reached else "", wrong=wrong)
        if reached and "daemon" in bounds.kinds:
            yield Meeting(f"{name}, and colod dies", dies(erased, bounds), is_fault=True)
    elif decision.effect is Do.FENCE_PEER:
        yield Meeting(name, replace(after, fence=Fence.CONFIRMED), "dies")
        if "fence" in bounds.kinds:
            yield Meeting(f"{name} fails", replace(after, fence=Fence.UNCONFIRMED), is_fault=True)
    else:
        yield from _start_pairing(name, after, other, reached, bounds, wrong)


def standing_of(host: Host) -> Standing:
    """Return what effects of the other host's daemon can depend on of `host`."""
    return Standing(host.answers, _accepts(host))


def _accepts(host: Host) -> bool:
    """Whether a secondary with nothing left of an older pairing is asked."""
    journal = host.journal
    if host.guest is not None or host.incoming is not None or host.xl or host.draining:
        return False
    if journal is None:
        return True
    return journal.role is Role.SECONDARY and journal.pairing is None and journal.pending is None


def _start_pairing(
    name: str, host: Host, other: Standing, reached: bool, bounds: Bounds, wrong: str
) -> Iterator[Meeting]:
    """Do what `prepare_receive` and `xl remus` do, or nothing where the peer refuses."""
    assert host.journal is not None
    begun = replace(host, pairings=host.pairings + 1)
    if not (reached and other.accepts):
        yield Meeting(f"{name} (refused)", begun, wrong=wrong)
        return
    order = f"prepares {host.journal.pairing} {host.journal.pairing_generation}"
    runs = replace(begun, link=Link.STARTING, xl=True, acked=0, peer_replica=Replica.NONE)
    yield Meeting(name, runs, order, wrong=wrong)
    halves = {
        "there is a receiver and no sender": begun,
        "xl remus runs without a session": replace(runs, link=Link.NONE),
    }
    for part, half in halves.items():
        if "effect" in bounds.kinds:
            yield Meeting(f"{name}: {part}, and it fails", half, order, is_fault=True)
        if "daemon" in bounds.kinds:
            dead = dies(half, bounds)
            yield Meeting(f"{name}: {part}, and colod dies", dead, order, is_fault=True)


def prepares(i: int, host: Host, pairing: str, generation: int) -> Host:
    """Return host `i` after it has started a receiver."""
    journal = host.journal or Journal(protection=TERMS, host=HOSTS[i], role=Role.SECONDARY)
    return replace(
        host,
        journal=join(journal, TERMS, PairingId(pairing), Generation(generation)),
        link=Link.STARTING,
        xl=True,
        acked=0,
        handed_over=False,
        peer_gave_up=False,
        answer=Answer.STALE,
    )


def forgets(host: Host) -> Host:
    """Return a host that was told that the protection has ended."""
    journal = host.journal
    if journal is None or journal.role is not Role.SECONDARY:
        return host
    told = replace(journal, wanted=Wanted.UNPROTECTED)
    return replace(host, journal=told, answer=Answer.STALE)
