"""Carry out what was decided: each effect is done when its result was verified, or it raises."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import structlog

from colod.daemon import colo
from colod.daemon.facts import Facts
from colod.daemon.gates import announce_guest, discard_gate, gate_for, journaled, open_gate
from colod.daemon.pairing import Pairing
from colod.daemon.parts import Parts
from colod.daemon.sessions import SessionHandle, remove_directory
from colod.errors import (
    ColodError,
    DomainNotFound,
    FenceUnconfirmed,
    SessionError,
    ToolstackError,
    WitnessError,
    WitnessUnreachable,
)
from colod.failover.effects import Do, Effect, Swap
from colod.failover.learning import learn, unlearn
from colod.failover.view import Answer, Journal, Link, Pending
from colod.fencing.base import Fenced, Unconfirmed, Verdict
from colod.model import Generation, GuestName, HostName, Role
from colod.observe.logs import Event
from colod.toolstack import process
from colod.toolstack.port import DomainState, ProcessRef
from colod.v1 import session_pb2
from colod.witness.base import Lost, Stored, Unknown, Won
from colod.witness.settle import settle

_log = structlog.get_logger()

COMMAND_S = 5.0
SESSION_EXIT_S = 5.0
XL_EXIT_S = 15.0
TAKEOVER_S = 90.0
KILL_S = 5.0
CHECKPOINT_S = 25.0
_LINK_LOOK_S = 0.1
"""How soon it is noticed that the link broke while something else is waited for."""

T = TypeVar("T")


class LinkBrokeError(Exception):
    """The session broke while something else was waited for."""


class Subject(Protocol):
    """The protection that effects are carried out for."""

    journal: Journal
    session: SessionHandle | None
    facts: Facts

    @property
    def guest(self) -> GuestName:
        """The guest's name."""

    async def note(self, journal: Journal) -> None:
        """Write the journal."""

    def finish(self) -> None:
        """The protection is gone from this host."""


class Actions:
    """The effects, on real ports."""

    def __init__(self, parts: Parts, subject: Subject) -> None:
        """Act for `subject` by means of `parts`."""
        self._parts = parts
        self._subject = subject
        self._beside: set[asyncio.Task[None]] = set()
        self._fencing: set[asyncio.Task[Verdict]] = set()
        self._word_comes = asyncio.Event()
        self._pairing = Pairing(parts)
        self._do = {
            Do.READ_WITNESS: self._read_witness,
            Do.SETTLE_WRITE: self._write,
            Do.HOLD_GUEST: self._hold_guest,
            Do.RUN_GUEST: self._run_guest,
            Do.QUIESCE_GUEST: self._quiesce_guest,
            Do.RESUME_GUEST: self._resume_guest,
            Do.CLEAR_ENDED: self._clear_ended,
            Do.START_GUEST: self._start_guest,
            Do.DESTROY_GUEST: self._destroy_guest,
            Do.QUARANTINE_GUEST: self._quarantine_guest,
            Do.START_PAIRING: self._start_pairing,
            Do.RELEASE_SESSION: self._release_session,
            Do.HAND_OVER: self._hand_over,
            Do.AWAIT_TAKEOVER: self._await_takeover,
            Do.DISCARD_REPLICA: self._discard_replica,
            Do.FENCE_PEER: self._fence_peer,
            Do.OPEN_GATE: self._open_gate,
            Do.DISCARD_GATE: self._discard_gate,
            Do.ERASE: self._erase,
        }

    def announce_guest(self) -> None:
        """Tell the network where the guest is now; beside the next decisions: it takes seconds."""
        task = asyncio.create_task(announce_guest(self._parts, self._subject.guest))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def until_announced(self, *, timeout_s: float) -> None:
        """Wait for announcements under way, but no longer than that."""
        if self._beside:
            await asyncio.wait(tuple(self._beside), timeout=timeout_s)

    @contextlib.contextmanager
    def fencing_gives_way(self) -> Iterator[None]:
        """Have fencing wait for no agent: an operator's word is to be written down."""
        self._word_comes.set()
        try:
            yield
        finally:
            self._word_comes.clear()

    async def do(self, effect: Effect) -> None:
        """Carry out `effect`.

        Raises:
            ColodError: If it could not be done or verified; it may be tried again.
        """
        await (self._write() if isinstance(effect, Swap) else self._do[effect]())

    # --- the witness ------------------------------------------------------------------------

    async def _read_witness(self) -> None:
        subject = self._subject
        try:
            stored = await self.unless_link_breaks(self._parts.witness.read(subject.guest))
        except LinkBrokeError:
            subject.facts.answer = Answer.STALE  # so it is asked again
            return
        except WitnessError as error:
            subject.facts.answered(Answer.UNREACHABLE)
            _log.warning(Event.WITNESS_UNREACHED, protection=subject.guest, error=str(error))
            return
        subject.facts.answered(Answer.READ, stored)

    async def _write(self) -> None:
        """Write what the journal says is pending, the first time or again."""
        subject = self._subject
        pending = subject.journal.pending
        assert pending is not None
        settling = settle(self._parts.witness, subject.guest, _expected(pending), pending.new)
        try:
            outcome = await self.unless_link_breaks(settling)
        except LinkBrokeError:
            return  # its outcome is unknown, and it is settled by the next write
        if isinstance(outcome, Unknown):
            subject.facts.answered(Answer.UNREACHABLE)
            raise WitnessUnreachable(f"outcome of a write is unknown: {outcome.reason}")
        await self._settled(pending, outcome)

    async def unless_link_breaks(self, asking: Coroutine[Any, Any, T]) -> T:
        """Return what the witness answers, unless the session breaks before, or has since the look.

        A primary whose link breaks has to hold its guest at once, and the accident that broke it
        may well have taken the witness away, too: its time-out must not be waited for.

        Raises:
            LinkBrokeError: If it does; the witness may have done what it was asked for.
        """
        session, view = self._subject.session, self._subject.facts.view
        if session is None or view is None or view.link is not Link.FOLLOWING:
            return await asking
        if session.link is not Link.FOLLOWING:
            asking.close()
            raise LinkBrokeError
        answer = asyncio.create_task(asking)
        try:
            while not answer.done():
                if session.link is not Link.FOLLOWING:
                    raise LinkBrokeError
                await asyncio.wait({answer}, timeout=_LINK_LOOK_S)
            return answer.result()
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    async def _settled(self, pending: Pending, outcome: Won | Lost) -> None:
        subject = self._subject
        subject.facts.answered(Answer.READ, outcome.stored)
        subject.facts.forget_failover()
        await subject.note(_learned(subject.journal, outcome.stored))
        won = isinstance(outcome, Won)
        _log.info(
            Event.OWNERSHIP_WON if won else Event.OWNERSHIP_LOST,
            protection=subject.guest,
            generation=subject.journal.generation,
            owner=subject.journal.record.owner if subject.journal.record else "",
            wanted=pending.new.state if pending.new else "deleted",
        )

    # --- the guest --------------------------------------------------------------------------

    async def _hold_guest(self) -> None:
        await self._parts.toolstack.pause(self._subject.guest)

    async def _run_guest(self) -> None:
        subject = self._subject
        session = subject.session
        if subject.journal.role is Role.PRIMARY and session and session.toolstack is not None:
            # Its xl waits for a suspension that a paused guest cannot do: once it may run, it
            # is suspended at once, until the session is released. So only the pauses are dropped.
            await self._drop_pauses()
            return
        if subject.journal.role is Role.SECONDARY and colo.is_colo(subject.journal.protection):
            await colo.unlock(self._parts, subject.guest)
        await self._parts.toolstack.run_promoted(subject.guest)
        if subject.journal.role is Role.SECONDARY:
            self.announce_guest()

    async def _quiesce_guest(self) -> None:
        """Pause the guest while its session keeps a checkpoint's window open; if not, give up."""
        try:
            await self._pause_in_window()
        except ColodError as error:
            self._subject.facts.switchover_failed(str(error))
            raise

    async def _pause_in_window(self) -> None:
        session, attempt = self._subject.session, self._subject.journal.switchover
        if session is None:
            raise SessionError("there is no session any more")
        order = session_pb2.SessionCommand(generation=self._subject.journal.generation)
        order.quiesce.attempt = attempt
        await session.command(order, timeout_s=COMMAND_S)
        if not await session.until(lambda: _keeps_window(session, attempt), timeout_s=CHECKPOINT_S):
            raise SessionError(f"no checkpoint came within {CHECKPOINT_S:g} s to stop the guest in")
        domain = await self._parts.toolstack.pause(self._subject.guest)
        if domain.state is not DomainState.SUSPENDED:
            # What it did since is in no epoch. The size of the pipe forbids it; Xen says it was so.
            raise SessionError(
                f"the guest ran on after its last checkpoint, before it was paused ({domain.state})"
            )
        done = session_pb2.SessionCommand(generation=self._subject.journal.generation)
        done.quiesced.attempt = attempt
        if await session.command(done, timeout_s=COMMAND_S) is None:
            raise SessionError("the session ended")

    async def _drop_pauses(self) -> None:
        for _ in range(4):
            domain = await self._parts.toolstack.find(self._subject.guest)
            if domain is None or not domain.paused:
                return
            await self._parts.toolstack.unpause(self._subject.guest)

    async def _resume_guest(self) -> None:
        await self._parts.toolstack.resume(self._subject.guest)

    async def _clear_ended(self) -> None:
        await self._subject.facts.ends.clear(self._subject.guest)

    async def _start_guest(self) -> None:
        self._subject.facts.ends.start(self._subject.guest, self._subject.journal.restart_uuid)

    async def _destroy_guest(self) -> None:
        await self._discard_gate()
        await self._parts.toolstack.destroy(self._subject.guest)

    async def _quarantine_guest(self) -> None:
        guest, journal = self._subject.guest, self._subject.journal
        domain = await self._parts.toolstack.find(guest)
        if domain is None:
            raise DomainNotFound(("xl", "list", guest), 1, f"no domain {guest}")
        # On disk first: afterwards only the domain's name would tell what it is.
        aside = await self._parts.quarantine.put_aside(
            guest,
            domain.domid,
            journal.generation,
            why=f"{journal.peer} owns the guest since generation {journal.generation}",
        )
        await self._parts.toolstack.rename(guest, aside)

    async def _discard_gate(self) -> None:
        await self._leave_gate(discard_gate)

    async def _open_gate(self) -> None:
        await self._leave_gate(open_gate)

    async def _leave_gate(self, end: Callable[[str, GuestName], Awaitable[None]]) -> None:
        subject = self._subject
        if subject.journal.gate:
            await end(subject.journal.gate, subject.guest)
            await subject.note(replace(subject.journal, gate=""))

    # --- sessions ---------------------------------------------------------------------------

    async def _start_pairing(self) -> None:
        await self._prepare_gate()
        await self._pairing.start(self._subject.journal, self._subject.session)
        self._subject.facts.peer_joined()

    async def _prepare_gate(self) -> None:
        """Write down which gate the session will have, before anything of it is made."""
        subject = self._subject
        domain = await self._parts.toolstack.find(subject.guest)
        if domain is None:
            raise DomainNotFound(("xl", "list", subject.guest), 1, f"no domain {subject.guest}")
        gate = journaled(
            colo.gate(self._parts, await self._parts.toolstack.vifs(domain.domid))
            if colo.is_colo(subject.journal.protection)
            else await gate_for(self._parts, domain.domid)
        )
        await subject.note(replace(subject.journal, gate=gate))

    async def _release_session(self) -> None:
        """End the session, then its xl, in that order: xl resumes the guest when it is let go."""
        session = self._subject.session
        if session is None:
            return
        xl = session.toolstack
        await self._end_session(session)
        if self._subject.journal.role is Role.PRIMARY and xl is not None:
            await self._end_xl(xl)
        remove_directory(session.directory)

    async def _end_session(self, session: SessionHandle) -> None:
        ref = session.process
        if ref is None:
            return
        release = session_pb2.SessionCommand(generation=self._subject.journal.generation)
        release.release.reason = self._subject.journal.reason or "released"
        try:
            await session.command(release, timeout_s=COMMAND_S)
        except SessionError as error:
            _log.warning(Event.SESSION_UNREACHED, protection=self._subject.guest, error=str(error))
        if await process.wait_gone(ref, SESSION_EXIT_S):
            return
        process.kill(ref)
        if not await process.wait_gone(ref, KILL_S):
            raise SessionError(f"session process {ref.pid} cannot be killed")

    async def _end_xl(self, xl: ProcessRef) -> None:
        if await process.wait_gone(xl, XL_EXIT_S):
            return
        helpers = [
            each.process.ref
            for each in process.save_helpers(process.processes())
            if each.process.parent_pid == xl.pid
        ]
        for ref in (xl, *helpers):
            process.kill(ref)
        for ref in (xl, *helpers):
            if not await process.wait_gone(ref, KILL_S):
                raise ToolstackError(("xl", "remus"), None, f"process {ref.pid} does not end")

    async def _hand_over(self) -> None:
        session = self._subject.session
        assert session is not None
        order = session_pb2.SessionCommand(generation=self._subject.journal.generation)
        order.hand_over.SetInParent()
        await session.command(order, timeout_s=COMMAND_S)
        done = await session.until(
            lambda: _has_let_go(self._subject.journal, session), timeout_s=TAKEOVER_S
        )
        if not done:
            xl = session.toolstack
            raise SessionError(
                f"xl{f' (process {xl.pid})' if xl else ''} has not let the copy go in "
                f"{TAKEOVER_S:g} s (docs/failure-modes.md, 'Hosts')"
            )

    async def _await_takeover(self) -> None:
        session = self._subject.session
        await self._parts.toolstack.await_takeover(
            self._subject.guest,
            timeout_s=TAKEOVER_S,
            receiver=session.toolstack if session else None,
        )

    async def _discard_replica(self) -> None:
        """Kill xl before the session: the session's end would make xl let the copy go."""
        subject, session = self._subject, self._subject.session
        receiver = session.toolstack if session else None
        gone = await self._parts.toolstack.discard_replica(subject.guest, receiver)
        _log.info(
            Event.REPLICA_DISCARDED,
            protection=subject.guest,
            killed=[ref.pid for ref in gone.killed],
            destroyed=list(gone.destroyed),
        )
        if session is not None:
            await self._end_session(session)
            remove_directory(session.directory)

    # --- the rest ---------------------------------------------------------------------------

    async def _fence_peer(self) -> None:
        journal, facts = self._subject.journal, self._subject.facts
        generation, peer = journal.generation, journal.peer
        verdict = await self._proof(journal)
        if isinstance(verdict, Fenced):
            facts.proof.won(generation)
            _log.info(Event.FENCE_CONFIRMED, host=peer, evidence=verdict.evidence)
            return
        may_change = not isinstance(verdict, Unconfirmed) or verdict.may_change
        facts.proof.missed(generation, verdict.reason, time.monotonic(), may_change=may_change)
        raise FenceUnconfirmed(f"{peer}: {verdict.reason}")

    async def _proof(self, journal: Journal) -> Verdict:
        """Ask the journal for a word that was given for this takeover, and then the fencer.

        The fencer knows the devices of the configured peer only: for another host nothing but a
        person's word counts.
        """
        if (word := journal.valid_fence_word) is not None:
            return Fenced(f"confirmed by {word.operator}: {word.reason}")
        if journal.peer != self._parts.peer:
            return Unconfirmed(
                f"only {self._parts.peer}, the configured peer, can be fenced", may_change=False
            )
        return await self._ask_fencer(journal.peer)

    async def _ask_fencer(self, peer: HostName) -> Verdict:
        """Fence, unless an operator's word comes: it need not wait for agents that hang.

        They go on beside it, since nobody can tell what of their orders has arrived.
        """
        fencing = asyncio.create_task(self._parts.fencer.fence(peer))
        word = asyncio.create_task(self._word_comes.wait())
        try:
            await asyncio.wait((fencing, word), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            fencing.cancel()
            raise
        finally:
            word.cancel()
        if fencing.done():
            return fencing.result()
        self._fencing.add(fencing)
        fencing.add_done_callback(self._fencing.discard)
        raise FenceUnconfirmed(f"{peer}: fencing gave way to an operator's word")

    async def _erase(self) -> None:
        await self._parts.journal.erase(self._subject.guest)
        await self._pairing.forget(self._subject.guest, self._subject.journal)
        self._subject.finish()


def _expected(pending: Pending) -> Stored:
    """Return what the pending write replaces, as it was read then."""
    if pending.record is None and pending.new is not None:
        after = Generation(pending.new.generation - 1)
        return Stored(None, pending.revision, after)
    return Stored(pending.record, pending.revision)


def _keeps_window(session: SessionHandle, attempt: str) -> bool:
    status = session.status
    return status is not None and status.quiesce_attempt == attempt and status.kept_epoch > 0


def _has_let_go(journal: Journal, session: SessionHandle) -> bool:
    """Whether nothing more comes of the handover; how it ended, the next look tells."""
    is_done = session.status is not None and session.status.handed_over
    return is_done or session.process is None or not colo.has_toolstack(journal, session)


def _learned(journal: Journal, stored: Stored) -> Journal:
    if stored.record is None:
        return unlearn(journal, stored.revision)
    return learn(journal, stored.record, stored.revision)
