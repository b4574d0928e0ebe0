"""The life of one protection on this host: look at the facts, decide, act, and look again."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from colod.daemon import colo
from colod.daemon.actions import Actions, LinkBrokeError
from colod.daemon.facts import Facts, knows_less, peer_view
from colod.daemon.history import Change
from colod.daemon.pairing import Listening, Pairing
from colod.daemon.parts import Parts
from colod.daemon.sessions import SessionHandle, last_words, remove_directory, session_name
from colod.daemon.standstill import GuestWatch
from colod.daemon.unbroken import unbroken
from colod.errors import (
    ColodError,
    IllegalTransition,
    InvariantBroken,
    JournalError,
    NotAllowedNow,
)
from colod.failover.effects import MAY_RUN_GUEST, Decision, Do, State
from colod.failover.learning import join
from colod.failover.rules import decide
from colod.failover.rules.causes import move_aside
from colod.failover.rules.facts import guest_is_here, has_lost, winner_is_activated
from colod.failover.rules.promotion import WAIT_FOR_FENCE
from colod.failover.rules.secondary import KEPT_FOR_WORD
from colod.failover.view import Answer, FenceWord, Journal, Link, Replica, View, Wanted, replica_of
from colod.model import Generation, GuestName, PairingId, Protection, Role
from colod.observe.checks import FRESH_S
from colod.observe.logs import Event
from colod.v1 import peer_pb2
from colod.witness.manual import ManualWitness

_log = structlog.get_logger()

_TICK_S: Final = 1.0
"""How often facts that nobody announces (a guest's domain) are looked at."""

_MARGIN_S: Final = 0.01
_RETRY_S: Final = 1.0
_ADOPTION_S: Final = 5.0
_CLEARED_S: Final = 25.0
_NOT_LOOKED: Final = "the daemon has just started and has not seen yet how it stands"


class ProtectionService:
    """One guest's protection on this host.

    Attributes:
        journal: What is on disk.
        decision: What was last decided.
        facts: What it was decided on.
        session: The session of the journal's pairing.
        since_unix_s: Wall-clock time of the last change of state.
        last_error: The last effect that failed, "" after one that did not.
        erased: Set when the protection has ended here.
        has_looked: Whether what is shown was decided on facts; before, nothing is known.
        decided_on: Monotonic time of the facts of the last decision, None before the first.
        watch: Knows for how long the guest has stood still.
    """

    def __init__(self, parts: Parts, journal: Journal) -> None:
        """Take over a protection that the journal knows; `run` gives it life."""
        self.journal = journal
        self.decision = Decision(rule="", state=State.STOPPED, cause=_NOT_LOOKED)
        self.facts = Facts(parts, journal)
        self.session: SessionHandle | None = None
        self.since_unix_s = time.time()
        self.last_error = ""
        self.erased = asyncio.Event()
        self.has_looked = False
        self.decided_on: float | None = None
        self._told_at = float("-inf")
        self._stood = ("", self.journal.generation)
        self._shown = parts.history.last_state(self.guest) or str(State.STOPPED)
        self._parts = parts
        self._lock = asyncio.Lock()
        self._poked = asyncio.Event()
        self._changed = asyncio.Event()
        self._actions = Actions(parts, self)
        self.watch = GuestWatch(self.guest, parts.limits, lambda: self.decision)
        self._adopt()

    @property
    def guest(self) -> GuestName:
        """The guest's name."""
        return self.journal.protection.guest

    # --- what others ask and tell -----------------------------------------------------------

    def poke(self) -> None:
        """Look again soon: something has changed. In the daemon's loop only."""
        self._poked.set()

    async def want(self, wanted: Wanted, *, instead_of: Wanted | None = None) -> None:
        """Write down what the operator wants.

        Args:
            wanted: That.
            instead_of: Nothing is changed where something else than this is wanted by then.

        Raises:
            JournalError: If it could not be written.
        """
        async with self._lock:
            if instead_of is not None and self.journal.wanted is not instead_of:
                return
            await self.note(replace(self.journal, wanted=wanted))
            self.facts.answer = Answer.STALE
        self.facts.resync_now()
        self.poke()

    async def fail_over(self, force_reason: str) -> None:
        """Have this host take the guest over, if the rules allow it.

        Raises:
            NotAllowedNow: If this host has the guest already, or nothing to promote.
            JournalError: If an operator's reason could not be written.
        """
        self.check_failover(force_reason)
        if force_reason:
            await self._take_force(force_reason)
        self.facts.ask_failover()
        self.poke()

    async def _take_force(self, reason: str) -> None:
        """Write down an operator's force, if it is still about what the operator has seen.

        What is decided meanwhile may end in another grant, which the word was not given for.
        """
        seen = self.journal.generation
        async with self._lock:
            self.check_failover(reason)
            if self.journal.generation != seen:
                raise NotAllowedNow(
                    self.state,
                    f"who owns {self.guest} was decided anew just now",
                    advice="look at colodctl status, and decide again",
                )
            await self.note(replace(self.journal, force_reason=reason))

    async def switch_over(self) -> None:
        """Have this host give the guest to the other one after a final epoch.

        Raises:
            NotAllowedNow: If that cannot begin now.
            JournalError: If it could not be written.
        """
        async with self._lock:
            self.check_switchover()
            await self.note(replace(self.journal, switchover=uuid.uuid4().hex))
            self.facts.ask_switchover()
        self.poke()

    def check_switchover(self) -> None:
        """Check that a switchover can begin.

        Raises:
            NotAllowedNow: If this host is not the primary, or output is not held, or one is under
                way.
        """
        peer = self.journal.peer
        if self.journal.role is Role.SECONDARY:
            raise NotAllowedNow(
                self.state, f"{peer} is the primary of {self.guest}", advice=f"run it on {peer}"
            )
        if colo.is_colo(self.journal.protection):
            raise NotAllowedNow(
                self.state,
                f"{self.guest} is replicated in COLO, which has no final checkpoint to stop it in",
                advice=f"colodctl unprotect {self.guest}, colodctl protect --mode remus, and "
                "switch over once it is PROTECTED",
            )
        if self.journal.switchover:
            raise NotAllowedNow(
                self.state,
                f"a switchover of {self.guest} is under way",
                advice="watch colodctl status",
            )
        if self.state is State.REPLICATING:
            raise NotAllowedNow(
                self.state,
                f"output of {self.guest} is not held, so no checkpoint is known to be its last",
                advice=f"colodctl failover on {peer} loses what came after its newest epoch",
            )
        if self.state is not State.PROTECTED:
            raise NotAllowedNow(
                self.state, f"{self.guest} is not PROTECTED", advice="colodctl status tells why"
            )

    @property
    def may_take_back(self) -> bool:
        """Whether the guest was lost to a host that was not seen running it, and is still here."""
        view = self.facts.view
        return (
            view is not None
            and has_lost(view)
            and not winner_is_activated(view)
            and guest_is_here(view)
        )

    def check_failover(self, force_reason: str) -> None:
        """Check that a failover to this host can be asked for.

        Raises:
            NotAllowedNow: If this host has the guest already, or nothing to promote.
        """
        view, state = self.facts.view, self.state
        if self.may_take_back:
            if not force_reason:
                raise NotAllowedNow(
                    state,
                    f"{self.journal.peer} owns {self.guest} and was not seen running it yet",
                    advice=f"wait for it, or, only if {self.journal.peer} never ran it and is off "
                    "for good: --force-reason",
                )
            return
        if self.journal.role is Role.PRIMARY or view is None:
            raise NotAllowedNow(
                state,
                f"{self.journal.host} is the primary of {self.guest}",
                advice=f"run it on {self.journal.peer}, the host that is to take over",
            )
        if view.is_name_taken:
            raise NotAllowedNow(
                state,
                f"another domain has the name {self.guest} here: the replica cannot take over",
                advice=move_aside(view),
            )
        if view.gives_replica_up:
            raise NotAllowedNow(
                state,
                f"{self.journal.host} was drained, and gives its replica of {self.guest} up",
                advice="systemctl restart colod ends that",
            )
        if (replica := replica_of(view)) not in (Replica.FOLLOWING, Replica.FROZEN):
            raise NotAllowedNow(
                state, f"nothing to promote: the replica of {self.guest} here is {replica}"
            )
        if self.journal.record is None:
            raise NotAllowedNow(
                state,
                f"{self.journal.host} has not seen the record of who owns {self.guest}",
                advice="bring the witness back that both hosts have; see colodctl doctor",
            )

    async def confirm_peer_off(self, reason: str, operator: str) -> Sequence[str]:
        """Pass on an operator's word that the other host is off; return to whom.

        Raises:
            NotAllowedNow: If nothing waits for such a word; it says what is waited for instead.
            JournalError: If it could not be written.
            WitnessError: If the witness cannot take it.
        """
        witness, given_to = self._parts.witness, []
        if self._waits_for_fence and await self._take_fence_word(reason, operator):
            given_to.append("fencing")
        if isinstance(witness, ManualWitness) and self.journal.pending is not None:
            await witness.confirm(self.guest, reason)
            given_to.append("witness")
        if not given_to:
            peer, trouble = self.journal.peer, self.trouble
            raise NotAllowedNow(
                self.state,
                f"nothing waits for {peer} to be off{f': {trouble}' if trouble else ''}",
                advice=self.decision.advice or "colodctl status tells how it stands",
            )
        self.poke()
        return given_to

    @property
    def _waits_for_fence(self) -> bool:
        """Whether the takeover by the grant that is known now was last seen to wait for a proof.

        A word that nothing waits for would lie about until something does.
        """
        rule, generation = self._stood
        return rule in WAIT_FOR_FENCE and generation == self.journal.generation

    async def _take_fence_word(self, reason: str, operator: str) -> bool:
        """Write down that the other host is off for this takeover; return whether it still waits.

        It counts from the moment it is on disk, also for the next daemon.
        """
        async with self._undisturbed():
            if not self._waits_for_fence:
                return False
            generation = self.journal.generation
            word = FenceWord(generation=generation, reason=reason, operator=operator)
            await self.note(replace(self.journal, fence_word=word))
            self.facts.proof.again()
            return True

    @contextlib.asynccontextmanager
    async def _undisturbed(self) -> AsyncIterator[None]:
        """Hold the lock, for which fencing under way gives way: agents may take minutes."""
        with self._actions.fencing_gives_way():
            async with self._lock:
                yield

    @contextlib.asynccontextmanager
    async def undecided(self) -> AsyncIterator[None]:
        """Have nothing decided, and nothing that was decided carried out, meanwhile."""
        async with self._lock:
            yield

    async def look_now(self) -> View:
        """Return the facts, with the witness asked just now.

        Raises:
            ToolstackError: If xl does not answer.
        """
        async with self._lock:
            view = await self.facts.look(self.journal, self.session, self.state)
            await self._actions.do(Do.READ_WITNESS)
            return self.facts.with_answer(view)

    def record_offered(self) -> None:
        """Read the record again: the peer may have replaced it."""
        self.facts.answer = Answer.STALE
        self.poke()

    def drain(self) -> None:
        """Give up the pairing, until the daemon starts anew."""
        self.facts.draining = True
        self.facts.answer = Answer.STALE
        self.poke()

    def is_drained(self) -> bool:
        """Whether no pairing is left here."""
        return self.journal.pairing is None and self.journal.pending is None

    async def until_drained(self, *, timeout_s: float) -> None:
        """Wait until no pairing is left here, or the replica is kept for an operator's word."""
        await self.until(
            lambda: self.is_drained() or self.decision.rule == KEPT_FOR_WORD, timeout_s=timeout_s
        )

    async def until_looked(self, *, timeout_s: float) -> bool:
        """Wait until what is shown was decided on facts; return whether it was."""
        return await self.until(lambda: self.has_looked, timeout_s=timeout_s)

    async def until(self, fits: Callable[[], bool], *, timeout_s: float | None) -> bool:
        """Wait until `fits` holds, looked at after every decision; return whether it does.

        Args:
            fits: What is waited for.
            timeout_s: Longest wait; None for as long as it takes.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not fits():
                    self._changed.clear()
                    await self._changed.wait()
        return fits()

    async def receive(
        self, terms: Protection, pairing: PairingId, generation: Generation, secret: bytes
    ) -> Listening:
        """Join a new pairing as its secondary; return where the receiver listens.

        The owner's asking shows that it has left any older pairing, so what is left of one is
        cleared away first.

        Raises:
            NotAllowedNow: If this host is the primary, or an older replica does not go away.
            ColodError: If the receiver does not come up.
        """
        self.facts.answer = Answer.STALE
        self.poke()
        if not await self.until(self._is_clear, timeout_s=_CLEARED_S):
            raise NotAllowedNow(
                self.state,
                f"{self.journal.host} still holds something of {self.guest}: "
                f"{self.decision.cause or self.last_error}",
            )
        async with self._lock:
            if not self._is_clear():
                raise NotAllowedNow(self.state, "another request came first")
            entry = join(self.journal, terms, pairing, generation)
            await self.note(entry)
            assert self.session is not None
            self.facts.acted()
            try:
                return await Pairing(self._parts).receive(entry, self.session, secret)
            finally:
                self.facts.acted()

    def _is_clear(self) -> bool:
        journal, view = self.journal, self.facts.view
        return (
            journal.role is Role.SECONDARY
            and journal.pairing is None
            and journal.pending is None
            and view is not None
            and not view.has_copy
            and not view.draining
        )

    @property
    def trouble(self) -> str:
        """What stands in the way of what is shown, for people; "" where nothing does."""
        parts = (self.decision.cause, self.last_error)
        return ": ".join(dict.fromkeys(part for part in parts if part))

    @property
    def is_witness_manual(self) -> bool:
        """Whether the two hosts, and in doubt a person, are the witness."""
        return isinstance(self._parts.witness, ManualWitness)

    @property
    def state(self) -> State:
        """What the operator is shown."""
        return self.decision.state or State.STOPPED

    @property
    def is_current(self) -> bool:
        """Whether the state was decided on fresh facts; they grow old while looking fails."""
        decided_on = self.decided_on
        is_known = self.has_looked and decided_on is not None
        return is_known and time.monotonic() - (decided_on or 0.0) <= FRESH_S

    def peer_view(self) -> peer_pb2.ProtectionView:
        """Return what the peer is told in heartbeats; safe in any thread.

        That output is held is said only while it is known: the peer shows it as its own.
        """
        told = peer_view(self.journal, self.state, self.facts.view)
        if self.state is State.PROTECTED and not self.is_current:
            told.state = ""
        return told

    # --- what effects change ----------------------------------------------------------------

    async def note(self, journal: Journal) -> None:
        """Replace the journal entry; on disk when this returns. The caller holds the lock.

        Raises:
            NotAllowedNow: If the protection has ended: nobody would look after what is begun now.
            JournalError: If it could not be written; nothing has changed then.
        """
        if self.erased.is_set():
            raise NotAllowedNow(self.state, f"the protection of {self.guest} has just ended")
        if journal != self.journal:
            await unbroken(self._replace(journal))

    async def _replace(self, journal: Journal) -> None:
        await self._parts.journal.write(journal)
        was, self.journal = self.journal, journal
        self.facts.journaled(was, journal)
        if journal.held:
            self._parts.holds.forget(self.guest)
        if journal.pairing != was.pairing:
            await self._leave_session()
            self._clear_away(was)
            self._adopt()
        if (was.role, journal.role) == (Role.SECONDARY, Role.PRIMARY):
            # Once more: the daemon that let it run may have died before the network was told.
            self._actions.announce_guest()
        self.poke()

    def finish(self) -> None:
        """The protection is gone from this host."""
        self.erased.set()

    def _directory(self, journal: Journal, pairing: PairingId) -> Path:
        return self._parts.sessions / session_name(self.guest, journal.role, pairing)

    def _adopt(self) -> None:
        if self.journal.pairing is not None:
            path = self._directory(self.journal, self.journal.pairing)
            self.session = SessionHandle(path, self.journal.role, self._session_spoke)
            self.session.watch()

    def _clear_away(self, was: Journal) -> None:
        """Remove the directory of a pairing that was left, once its session has ended."""
        if was.pairing is None:
            return
        left = SessionHandle(self._directory(was, was.pairing), was.role, self._session_spoke)
        if left.process is None and left.directory.exists():
            words = last_words(left.directory)
            _log.info(
                Event.SESSION_ENDED, protection=self.guest, pairing=was.pairing, last_words=words
            )
            remove_directory(left.directory)

    async def _leave_session(self) -> None:
        if self.session is not None:
            await self.session.close()
            self.session = None

    def _session_spoke(self) -> None:
        """Look again where what the session said can matter to a decision."""
        session, view = self.session, self.facts.view
        if session is None or view is None:
            return
        self.watch.spoke(session)
        may_pair = view.link is Link.FOLLOWING and self.state is State.SYNCING
        is_switching = self.state is State.SWITCHOVER
        if session.link is not view.link or may_pair or is_switching:
            self.poke()

    # --- the loop ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Decide and act until the protection ends here. A defect of ours ends the daemon."""
        session = self.session
        if session is not None:
            # Adoption: what it says must be known before anything is decided about it.
            await session.until(
                lambda: session.status is not None or session.process is None,
                timeout_s=_ADOPTION_S,
            )
        while not self.erased.is_set():
            pause_s = await self._turn()
            self._changed.set()
            if pause_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._poked.wait()
                self._poked.clear()

    async def until_announced(self, *, timeout_s: float) -> None:
        """Wait for announcements under way, but no longer than that."""
        await self._actions.until_announced(timeout_s=timeout_s)

    async def stop(self) -> None:
        """Let go of the session's socket; the session goes on."""
        await self._leave_session()

    async def _turn(self) -> float:
        """Decide once and carry it out; return how long to wait before the next look."""
        async with self._lock:
            try:
                before, began = self.facts.view, time.monotonic()
                view = await self.facts.look(self.journal, self.session, self.state)
                decision = decide(view)
                self.decided_on = began
                is_repeated = (
                    before is not None
                    and decision.rule == self.decision.rule
                    and replace(before, new_id=view.new_id) == view
                )
                self._show(decision)
                self.watch.looked(view, self.session, began)
                if decision.effect is not Do.HOLD_GUEST:  # that cannot wait
                    await self._tell_peer()
                return await self._carry_out(decision, is_repeated=is_repeated)
            except (IllegalTransition, InvariantBroken):
                raise
            except ColodError as error:
                self._failed(error)
                return _RETRY_S

    async def _tell_peer(self) -> None:
        """Where the two hosts are the witness, give a host that was away the newer record."""
        witness = self._parts.witness
        if not isinstance(witness, ManualWitness) or self.journal.peer != self._parts.peer:
            return
        theirs = self._parts.heartbeat.answer(self.guest, asked_after=self._told_at)
        if theirs is not None and knows_less(self.journal, theirs):
            self._told_at = time.monotonic()
            with contextlib.suppress(LinkBrokeError):
                await self._actions.unless_link_breaks(witness.tell(self.guest))

    async def _carry_out(self, decision: Decision, *, is_repeated: bool) -> float:
        if decision.journal is not None:
            try:
                await self.note(decision.journal)
            except JournalError:
                if decision.effect is Do.HOLD_GUEST:
                    await self._hold_unnoted()
                raise
        if decision.effect is None:
            self.last_error = ""
            return self._calm_s() if decision.journal is None else 0.0
        changed = self.facts.asked if decision.effect is Do.READ_WITNESS else self.facts.acted
        changed()
        if decision.effect in MAY_RUN_GUEST:
            self.facts.lets_run()
        _log.debug(Event.EFFECT_STARTED, protection=self.guest, rule=decision.rule)
        try:
            await self._actions.do(decision.effect)
        finally:
            changed()
        self.last_error = ""
        return _RETRY_S if is_repeated else 0.0

    async def _hold_unnoted(self) -> None:
        """Pause the guest though the journal cannot say so: that is safe whosever it is."""
        domid = self.facts.view.guest_domid if self.facts.view is not None else 0
        with contextlib.suppress(OSError):  # then only a person can tell who has paused it
            self._parts.holds.add(self.guest, domid)
        await self._actions.do(Do.HOLD_GUEST)
        self.facts.acted()

    def _calm_s(self) -> float:
        """Return how long nothing is to be done, unless somebody says something new."""
        change_s = self.facts.next_change_s()
        return _TICK_S if change_s is None else min(_TICK_S, change_s + _MARGIN_S)

    def _failed(self, error: ColodError) -> None:
        if str(error) != self.last_error:
            _log.warning(
                Event.EFFECT_FAILED,
                protection=self.guest,
                rule=self.decision.rule,
                code=error.code,
                error=str(error),
            )
        self.last_error = str(error)

    def _show(self, decision: Decision) -> None:
        was = self.decision
        if decision.state is None:
            # An errand on the way to the next decision: what is shown stays.
            self.decision = replace(decision, state=was.state, cause=was.cause, advice=was.advice)
            return
        self.decision, self.has_looked = decision, True
        self._stood = (decision.rule, self.journal.generation)
        if self._shown == decision.state:
            return
        self.since_unix_s = time.time()
        change = self._change_to(decision)
        self._shown = change.to_state
        if not self._parts.history.add(change):
            _log.warning(Event.HISTORY_UNWRITTEN, protection=self.guest, state_to=change.to_state)
        _log.info(
            Event.ROLE_CHANGED,
            protection=self.guest,
            role=self.journal.role,
            state_from=change.from_state,
            state_to=change.to_state,
            rule=decision.rule,
            cause=change.cause,
            generation=change.generation,
            epoch=change.epoch,
        )

    def _change_to(self, decision: Decision) -> Change:
        view = self.facts.view
        return Change(
            unix_s=self.since_unix_s,
            host=self.journal.host,
            guest=self.guest,
            from_state=self._shown,
            to_state=str(decision.state),
            cause=decision.cause,
            generation=self.journal.generation,
            epoch=view.acked_epoch if view else 0,
        )
