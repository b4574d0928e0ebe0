"""Gather what a decision depends on: journal, witness, Xen, session, peer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from colod.daemon.colo import has_toolstack
from colod.daemon.contact import PeerContact
from colod.daemon.domains import SentName, copy_of
from colod.daemon.ended import GuestEnds
from colod.daemon.parts import Parts
from colod.daemon.proof import Proof
from colod.daemon.sessions import SessionHandle
from colod.failover.detector import Sign
from colod.failover.effects import State
from colod.failover.record import NO_GENERATION, RecordState
from colod.failover.rules.facts import has_guest, keeps_copy
from colod.failover.view import (
    Answer,
    Contact,
    Copy,
    Fence,
    Journal,
    Link,
    Replica,
    View,
    needs_fencing,
    replica_of,
)
from colod.model import INCOMING_SUFFIX, Generation, GuestName, Role
from colod.toolstack.port import Domain
from colod.v1 import peer_pb2, types_pb2
from colod.v1.session_pb2 import SessionStatus
from colod.v1.types_pb2 import Gate
from colod.witness.base import Stored

_CALM_READ_S: Final = 10.0
"""How old the witness's answer may be while nothing is wanted of it."""

_ANXIOUS_READ_S: Final = 1.0
FAILOVER_ASKED_S: Final = 60.0
"""How long an operator's wish that this host take over stands, unless it is met before."""
SWITCHOVER_S: Final = 45.0
"""How long a switchover may take up to the handover: libxl gives a guest that cannot follow its
request to suspend, such as a paused one, up after 60 s, and its replication with it."""
_CALM: Final = frozenset(
    {State.REPLICATING, State.PROTECTED, State.SYNCING, State.PAIRING, State.SUSPENDED}
)

_LISTING_MAX_S: Final = 0.5
"""A listing that takes longer is begun no sooner than this before it is needed."""
_AFTER_S: Final = 0.005
_REUSED_S: Final = 0.25

_STOPPED: Final = frozenset({Copy.ABSENT, Copy.PAUSED, Copy.DOWN})
UNARMED: Final = "the watchdog is not armed yet"

_REPLICA_CODES: Final = {
    Replica.NONE: types_pb2.REPLICA_STATE_NONE,
    Replica.SYNCING: types_pb2.REPLICA_STATE_SYNCING,
    Replica.FOLLOWING: types_pb2.REPLICA_STATE_FOLLOWING,
    Replica.FROZEN: types_pb2.REPLICA_STATE_FROZEN,
    Replica.LOST: types_pb2.REPLICA_STATE_LOST,
}
_REPLICAS: Final = {code: replica for replica, code in _REPLICA_CODES.items()}
_ROLE_CODES: Final = {
    Role.PRIMARY: types_pb2.ROLE_PRIMARY,
    Role.SECONDARY: types_pb2.ROLE_SECONDARY,
}


class Facts:
    """The facts around one protection, and how fresh they are.

    Attributes:
        view: The last view that was put together, None before the first.
        answer: How the witness stands for decisions: STALE where it has to be asked again.
        last_answer: What came of asking it last, for people: one that hangs is not well while it
            is being asked. STALE before the first time.
        stored: What it answered.
        draining: Whether this host gives up all its pairings.
        proof: What is known of the other host's being off.
        unarmed: Why this host's watchdog is not armed, "" while it is.
        read_at: Monotonic time of the witness's last answer, None before the first.
        ends: Follows the ends of the guest's runs.
    """

    def __init__(self, parts: Parts, journal: Journal) -> None:
        """Know nothing yet."""
        self.view: View | None = None
        self.answer = self.last_answer = Answer.STALE
        self.stored = Stored(None, 0)
        self.draining = False
        self._switchover_error = ""
        self.proof = Proof()
        self.unarmed = UNARMED
        self.read_at: float | None = None
        self.ends = GuestEnds(parts)
        self._looked_at = float("-inf")
        self._listing_s = 0.0
        self._listed_at = float("-inf")
        self._only_asked = False
        self._local: View | None = None
        self._name = SentName(journal.protection.guest)
        self._let_run_at = float("-inf")
        self._parts = parts
        self._limits = parts.limits
        self._contact = PeerContact(parts.heartbeat, parts.carriers, parts.limits)
        self._asked_at = float("-inf")
        self._acted_at = float("-inf")
        self._failover_until = float("-inf")
        self._switchover_until = float("-inf")
        self._newest_heard = NO_GENERATION
        self._pairing_since = time.monotonic()
        self._resync_at = float("-inf")
        self._resync_asked = False
        self._backoff_s = parts.limits.resync_backoff_s
        self._was_paired = _is_paired(journal)

    # --- what changes them ------------------------------------------------------------------

    def answered(self, answer: Answer, stored: Stored | None = None) -> None:
        """Note what came of asking the witness just now."""
        self.answer = self.last_answer = answer
        self._asked_at = time.monotonic()
        if stored is not None:
            self.stored, self.read_at = stored, self._asked_at

    def acted(self) -> None:
        """Note that something on this host was changed just now."""
        self._acted_at, self._only_asked = time.monotonic(), False

    def asked(self) -> None:
        """Note that the witness was asked just now, and nothing else was done."""
        self._only_asked = True

    def lets_run(self) -> None:
        """Note that what is done now may let the guest run: that it was seen stopped is over."""
        self._let_run_at = time.monotonic()

    @property
    def is_seen_stopped(self) -> bool:
        """Whether the guest of this name was seen not to run since this daemon last let it."""
        view = self.view
        return view is not None and view.guest in _STOPPED and self._looked_at > self._let_run_at

    def journaled(self, was: Journal, journal: Journal) -> None:
        """Note that the entry was replaced: how pairings go decides when the next one is tried.

        One that came to be PAIRED ends the failures before it; one that ends without, for whatever
        cause, is a failure, and the wait doubles with each. What the peer said of one pairing is
        not about the next.
        """
        if _is_paired(journal):
            self._was_paired, self._backoff_s = True, self._limits.resync_backoff_s
        if journal.pairing == was.pairing:
            return
        self._pairing_since = time.monotonic()
        self._resync_asked = False
        self._resync_at = time.monotonic() + self._backoff_s
        if was.pairing is not None and not self._was_paired:
            self._backoff_s = min(self._backoff_s * 2, self._limits.resync_backoff_max_s)
        self._was_paired = _is_paired(journal)

    def peer_joined(self) -> None:
        """Note that the peer has joined the pairing: what it said before that says nothing of it.

        It had not heard of the pairing then, which looks like having given it up.
        """
        self._pairing_since = time.monotonic()

    @property
    def resync_wait_s(self) -> float:
        """How long it is to the next attempt to pair, if nobody asks for one before."""
        return max(0.0, self._resync_at - time.monotonic())

    def resync_now(self) -> None:
        """Allow the next attempt to pair at once."""
        self._resync_asked = True
        self._backoff_s = self._limits.resync_backoff_s

    def ask_failover(self) -> None:
        """Note that an operator wants this host to take over."""
        self._failover_until = time.monotonic() + FAILOVER_ASKED_S
        self.answer = Answer.STALE

    @property
    def is_failover_asked(self) -> bool:
        """Whether an operator's wish for a takeover is still to be met."""
        return time.monotonic() < self._failover_until

    def ask_switchover(self) -> None:
        """Note that an operator wants this host to give the guest away, from now on for a while."""
        self._switchover_until = time.monotonic() + SWITCHOVER_S
        self._switchover_error = ""
        self.answer = Answer.STALE

    def why_given_up(self) -> str:
        """Return why the last switchover was given up, as far as this host knows."""
        if not self._switchover_error and time.monotonic() >= self._switchover_until:
            return f"it was not done within {SWITCHOVER_S:g} s"
        return self._switchover_error or "colodctl history tells what came between"

    def switchover_failed(self, why: str) -> None:
        """Note why the switchover has to be given up."""
        self._switchover_until = float("-inf")
        self._switchover_error = why

    def forget_failover(self) -> None:
        """The wish was met or has become pointless."""
        self._failover_until = float("-inf")

    # --- looking ----------------------------------------------------------------------------

    async def look(self, journal: Journal, session: SessionHandle | None, state: State) -> View:
        """Return the facts as they are now.

        xl is looked for before domains are listed: an xl that was gone then has given the copy
        its name before the listing, or never will.

        Raises:
            ToolstackError: If Xen does not answer.
            GuestRenamed: If the guest that is replicated from here has another name now.
        """
        began = time.monotonic()
        local = _local(journal, self._parts.boot, session)
        # In step, a listing of a moment ago will do; also where nothing but the witness was asked
        # since, and neither session nor xl have changed: it was made after xl was looked for.
        is_same = self._only_asked and local == self._local
        will_do = local.link is Link.FOLLOWING or (is_same and began - self._listed_at < _REUSED_S)
        domains = await self._parts.domains.by_name(since=self._acted_at if will_do else began)
        if not will_do:
            self._listed_at = began
            self._listing_s = min(time.monotonic() - began, _LISTING_MAX_S)
        self._only_asked, self._local = False, local
        guest, is_peer = journal.protection.guest, journal.peer == self._parts.peer
        self._name.check(domains, is_sent=_is_sent(journal, local), is_owner=journal.is_owner)
        contact = await self._contact_of(session, is_peer=is_peer)
        theirs = None
        if is_peer:
            theirs = self._parts.heartbeat.answer(guest, asked_after=self._pairing_since)
        end = await self.ends.look(journal, domains.get(guest))
        view = replace(
            local,
            new_id=uuid.uuid4().hex,
            uptime_s=time.monotonic(),  # since the boot, for every process: clock_gettime(2)
            guest=copy_of(domains.get(guest)),
            guest_domid=_domid(domains, guest),
            held_unnoted=self._is_held_unnoted(guest, session, _domid(domains, guest)),
            ended_by_itself=end.by_itself,
            ended=end.ended,
            start_due=end.start_due,
            end_trouble=end.trouble,
            end_uuid=end.uuid,
            incoming=guest + INCOMING_SUFFIX in domains,
            incoming_domid=_domid(domains, guest + INCOMING_SUFFIX),
            contact=contact,
            peer_replica=_replica_there(journal, theirs),
            peer_is_configured=is_peer,
            peer_gave_up=_gave_up(journal, theirs) and contact is Contact.UP,
            peer_keeps_copy=_keeps_copy(journal, theirs) and contact is Contact.UP,
            resync_due=self._is_resync_due(),
            failover_asked=self.is_failover_asked,
            switchover_is_late=time.monotonic() >= self._switchover_until,
            fence=self._fence_of(journal, contact),
            fence_trouble=self.proof.trouble_of(journal.generation),
            takeover_automatic=self._limits.takeover_automatic
            and not self._parts.automation.is_paused,
            automation_paused=self._parts.automation.is_paused,
            keep_quarantined=self._limits.keep_quarantined
            or self._parts.quarantine.is_kept(guest, _domid(domains, guest)),
            draining=self.draining,
            unarmed=self.unarmed if self._limits.self_fence_required else "",
        )
        if journal.role is Role.SECONDARY:
            # For show: only the primary's daemon knows whether output is held there.
            # What it said last stays true for as long as its session follows.
            is_held = contact is not Contact.LOST and _says_protected(journal, theirs)
            view = replace(view, gated=is_held, gate_closed=is_held)
        self._age(view, state, theirs.generation if theirs else 0, began)
        self.view, self._looked_at = self.with_answer(view), began
        return self.view

    async def _contact_of(self, session: SessionHandle | None, *, is_peer: bool) -> Contact:
        """Return how the peer is heard; wait for the moment of a change that is about to come."""

        def look() -> Contact:
            heard_at = session.peer_heard_at if session else None
            address = session.peer_address if session else ""
            return self._contact.look(heard_at, address, is_peer=is_peer)

        contact, change_s = look(), self._contact.next_change_s()
        if change_s is None or change_s > self._listing_s:
            return contact
        await asyncio.sleep(max(0.0, change_s) + _AFTER_S)
        return look()

    def _is_held_unnoted(self, guest: GuestName, session: SessionHandle | None, domid: int) -> bool:
        """Tell whether the guest's domain was paused by a daemon or its session, unnoted."""
        status = session.status if session is not None else None
        held = (self._parts.holds.domid(guest), status.held_domid if status else 0)
        return domid > 0 and domid in held

    def signs(self) -> Sequence[Sign]:
        """Return by which signals the other host is heard, and how each stands."""
        return self._contact.signs()

    def next_change_s(self) -> float | None:
        """Return in how many seconds to look, for the peer to count as silent or lost in time.

        Looking takes as long as xl's listing does, and the peer is judged at its end.
        """
        change_s = self._contact.next_change_s()
        return None if change_s is None else max(0.0, change_s - self._listing_s)

    def _fence_of(self, journal: Journal, contact: Contact) -> Fence:
        """Return how fencing stands.

        A host that is heard again is not switched off because a proof was missing while it was
        lost: people may be at work on it, and its other guests run.
        """
        if not needs_fencing(journal.protection.disks):
            return Fence.NOT_NEEDED
        may_ask_again = contact is Contact.LOST and not self._parts.automation.is_paused
        return self.proof.of(journal.generation, time.monotonic(), may_ask_again=may_ask_again)

    def _is_resync_due(self) -> bool:
        if self._resync_asked:
            return True
        if self._parts.automation.is_paused:
            return False
        return self._limits.resync_automatic and self.resync_wait_s == 0.0

    def with_answer(self, view: View) -> View:
        """Return `view` with what the witness has answered by now."""
        return replace(
            view,
            answer=self.answer,
            record=self.stored.record,
            revision=self.stored.revision,
            last_generation=self.stored.last_generation,
        )

    def _age(self, view: View, state: State, their_generation: int, began: float) -> None:
        """Have the witness asked again where its answer may no longer be the whole truth.

        Its age is taken at the beginning of this look: where looking takes longer than an answer
        is fresh (a slow dom0), no answer would ever be used otherwise.
        """
        is_calm = state in _CALM and self.answer is Answer.READ
        limit_s = _CALM_READ_S if is_calm else _ANXIOUS_READ_S
        if their_generation > view.journal.generation:
            limit_s = _ANXIOUS_READ_S
        is_old = began - self._asked_at > limit_s
        if their_generation > max(view.journal.generation, self._newest_heard):
            is_old, self._newest_heard = True, Generation(their_generation)
        if self.answer is Answer.UNREACHABLE and view.journal.pending is not None:
            return  # settling the write is asking
        if is_old or self.view is None or _signs(self.view) != _signs(view):
            self.answer = Answer.STALE


def _local(journal: Journal, boot: str, session: SessionHandle | None) -> View:
    """Return a view that holds what the journal and the session say and nothing else."""
    blank = View(journal=journal, boot=boot, new_id="")
    if session is None:
        return replace(blank, **_gate(journal, Link.NONE, None))
    status, link = session.status, session.link
    return replace(
        blank,
        link=link,
        link_error=status.error if status and link is Link.BROKEN else "",
        xl_alive=has_toolstack(journal, session),
        acked_epoch=status.progress.acked_epoch if status and link is not Link.NONE else 0,
        final_epoch=_final_epoch(journal, status) if link is Link.FOLLOWING else 0,
        handed_over=bool(status and status.handed_over),
        **_gate(journal, link, status),
    )


def _is_sent(journal: Journal, local: View) -> bool:
    return journal.role is Role.PRIMARY and local.link is Link.FOLLOWING


def _domid(domains: Mapping[str, Domain], name: str) -> int:
    return domains[name].domid if name in domains else 0


def _final_epoch(journal: Journal, status: SessionStatus | None) -> int:
    """Return the final epoch of the journal's own switchover: an older one's is none any more."""
    if status is None or not journal.switchover or status.quiesce_attempt != journal.switchover:
        return 0
    return status.final_epoch


def _gate(journal: Journal, link: Link, status: SessionStatus | None) -> dict[str, Any]:
    """Return how output is held: a session says so; what a dead one had counts as closed."""
    if not journal.gate:
        return {}
    if link is Link.NONE:
        return {"gated": True, "gate_closed": True}
    gate = status.gate if status else Gate()
    return {
        "gated": True,
        "gate_closed": gate.is_protected,
        "sound_from": gate.sound_from,
    }


def _signs(view: View) -> object:
    """Return the facts whose change makes the witness's last answer doubtful."""
    return (view.link, view.contact, view.peer_replica, view.peer_gave_up, view.guest)


def _is_paired(journal: Journal) -> bool:
    record = journal.record
    return (
        record is not None
        and record.state is RecordState.PAIRED
        and record.pairing == journal.pairing
    )


def _is_common(journal: Journal, theirs: peer_pb2.ProtectionView) -> bool:
    return journal.pairing is not None and theirs.pairing == journal.pairing


def _replica_there(journal: Journal, theirs: peer_pb2.ProtectionView | None) -> Replica:
    if theirs is None or not _is_common(journal, theirs):
        return Replica.NONE
    return _REPLICAS.get(theirs.replica, Replica.NONE)


def _says_protected(journal: Journal, theirs: peer_pb2.ProtectionView | None) -> bool:
    if theirs is None or not _is_common(journal, theirs):
        return False
    return theirs.state in (State.PROTECTED, State.SWITCHOVER)


def _gave_up(journal: Journal, theirs: peer_pb2.ProtectionView | None) -> bool:
    return theirs is not None and journal.pairing is not None and not _is_common(journal, theirs)


def _keeps_copy(journal: Journal, theirs: peer_pb2.ProtectionView | None) -> bool:
    """Whether the peer said so of the grant that this host knows, not of an earlier one."""
    return theirs is not None and theirs.keeps_copy and theirs.generation == journal.generation


def knows_less(journal: Journal, theirs: peer_pb2.ProtectionView) -> bool:
    """Return whether the peer lacks our newest record, by what it says in heartbeats.

    The record of an activation has the generation of the grant before it; who waits for one has
    not heard of it.
    """
    waits = journal.is_activated and theirs.state == State.LOST_RACE
    is_as_new = theirs.generation == journal.generation
    return theirs.generation < journal.generation or (waits and is_as_new)


def peer_view(journal: Journal, state: State, view: View | None) -> peer_pb2.ProtectionView:
    """Return what the peer is told of this protection in heartbeats."""
    seen = None if view is None else replace(view, journal=journal)
    replica = Replica.NONE if seen is None else replica_of(seen)
    return peer_pb2.ProtectionView(
        guest=journal.protection.guest,
        generation=journal.generation,
        pairing=journal.pairing or "",
        state=state,
        role=_ROLE_CODES[journal.role],
        replica=_REPLICA_CODES[replica],
        acked_epoch=view.acked_epoch if view else 0,
        keeps_copy=seen is not None and keeps_copy(seen),
        has_guest=seen is not None and has_guest(seen),
    )


def replica_code(view: View | None) -> types_pb2.ReplicaState.ValueType:
    """Return how the replica here stands, for status."""
    return _REPLICA_CODES[Replica.NONE if view is None else replica_of(view)]
