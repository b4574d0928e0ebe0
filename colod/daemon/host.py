"""All protections of this host: taken from the journal, begun and ended by people and the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from colod.daemon import colo, guest_files
from colod.daemon.adoption import clear_sessions
from colod.daemon.pairing import Listening, Pairing
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.daemon.selffence import SelfFence
from colod.daemon.unbroken import unbroken
from colod.errors import (
    JournalError,
    NotAllowedNow,
    NotFound,
    OutcomeUnknown,
    PeerRefused,
    PreflightRefused,
    WitnessUnreachable,
)
from colod.failover.learning import may_begin_with
from colod.failover.rules.causes import SEE_FOREIGN_RECORD, foreign_record
from colod.failover.rules.secondary import KEPT_FOR_WORD
from colod.failover.view import Journal, Wanted
from colod.model import (
    DRILL_SUFFIX,
    Disks,
    Generation,
    GuestName,
    HostName,
    Mode,
    PairingId,
    Protection,
    Role,
    parse_quarantine_name,
)
from colod.observe.logs import Event
from colod.v1 import peer_pb2

_log = structlog.get_logger()

DRAIN_S = 60.0
_DEFAULT_INTERVALS_MS = {Mode.REMUS: 200, Mode.COLO: colo.DEFAULT_INTERVAL_MS}


class Host:
    """The protections of this host by guest.

    Attributes:
        defect: Completed with the exception of a service that ended unasked; the daemon exits.
        self_fence: This host's watchdog; None where the daemon runs without its process.
    """

    def __init__(
        self, parts: Parts, self_fence: SelfFence | None = None, *, joins_pairings: bool = True
    ) -> None:
        """Know none yet.

        Args:
            parts: This host's ports.
            self_fence: Its watchdog.
            joins_pairings: Whether it takes part in a pairing that the peer begins.
        """
        self.parts = parts
        self.self_fence = self_fence
        self._joins_pairings = joins_pairings
        self._looking_at_files = asyncio.Lock()
        self.unheard: dict[str, str] = {}
        """What this daemon does not listen on although its configuration says so, and why."""
        self.exposed: Callable[[], Sequence[str]] = tuple
        """Says which files of the configuration others should not be able to read; it blocks."""
        self.defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._establishing = asyncio.Lock()
        self._services: dict[GuestName, ProtectionService] = {}
        self._tasks: dict[GuestName, asyncio.Task[None]] = {}

    @property
    def services(self) -> Mapping[GuestName, ProtectionService]:
        """The protections by guest."""
        return dict(self._services)

    def all_services(self) -> Sequence[ProtectionService]:
        """Return the protections that there are at this moment."""
        return tuple(self._services.values())

    def adopt_all(self) -> None:
        """Take over what the journal knows.

        Raises:
            JournalError: If any of it cannot be read, or this host has another name now.
        """
        journals = self.parts.journal.read_all()
        if renamed := [text for each in journals if (text := self._renamed(each))]:
            raise JournalError("; ".join(renamed), advice="set host.name as it was")
        clear_sessions(self.parts.sessions, journals)
        for journal in journals:
            self._begin(journal)

    def adopt_readable(self) -> Sequence[str]:
        """Take over what of the journal can be read; return what cannot, in words."""
        journals, unreadable = self.parts.journal.read_readable()
        left = list(unreadable)
        for journal in journals:
            if renamed := self._renamed(journal):
                left.append(renamed)
            else:
                self._begin(journal)
        return left

    def _renamed(self, journal: Journal) -> str:
        """Say that this host has another name now: records would be written in a stranger's."""
        if journal.host == self.parts.host:
            return ""
        guest = journal.protection.guest
        return f"host.name is {self.parts.host}, but {guest} is protected here as {journal.host}"

    async def look_around(self, *, timeout_s: float) -> None:
        """Wait until each protection has been looked at, so that what is shown of it is true."""
        await asyncio.gather(
            *(each.until_looked(timeout_s=timeout_s) for each in self._services.values())
        )

    async def until_announced(self, *, timeout_s: float) -> None:
        """Wait until the network was told of all guests that were taken over, but no longer."""
        await asyncio.gather(
            *(each.until_announced(timeout_s=timeout_s) for each in self._services.values())
        )

    async def stop(self) -> None:
        """Stop deciding; sessions and guests go on as they are.

        One that is just being founded is awaited: it would else begin when the others have ended.
        """
        async with self._establishing:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            for service in tuple(self._services.values()):
                await service.stop()

    def find(self, guest: str) -> ProtectionService:
        """Return the protection of `guest`.

        Raises:
            NotFound: If there is none here.
        """
        try:
            return self._services[GuestName(guest)]
        except KeyError:
            known = ", ".join(sorted(self._services)) or "none"
            raise NotFound(
                f"no protection of {guest} on {self.parts.host} (there: {known})",
                advice="run: colodctl status",
            ) from None

    def poke_all(self) -> None:
        """Have every protection look again."""
        for service in self._services.values():
            service.poke()

    def peer_views(self) -> Sequence[peer_pb2.ProtectionView]:
        """Return what the peer is told in heartbeats; safe in any thread."""
        return [service.peer_view() for service in tuple(self._services.values())]

    # --- what operators ask -----------------------------------------------------------------

    async def protect(
        self,
        guest: GuestName,
        to: HostName,
        disks: Disks,
        interval_ms: int,
        *,
        mode: Mode | None = None,
        dry_run: bool,
    ) -> Sequence[str]:
        """Begin to protect `guest`, or go on after it was suspended; return warnings.

        Args:
            guest: The guest, which runs here.
            to: The other host.
            disks: What holds of its disks.
            interval_ms: From one commit to the next checkpoint; 0 for the default, or for what it
                is already.
            mode: How it is replicated; None for Remus, or for what it is already.
            dry_run: Check only.

        Raises:
            PreflightRefused: With every reason of both hosts; nothing was begun.
            NotAllowedNow: If the other host is its primary, or it is protected on other terms.
            PeerError: If the peer cannot be asked.
        """
        if guest.endswith(DRILL_SUFFIX):
            raise PreflightRefused([f"{guest}: colod's drills use the suffix {DRILL_SUFFIX}"])
        if parse_quarantine_name(guest) is not None:
            raise PreflightRefused([f"{guest}: colod names copies so that it has put aside"])
        if to != self.parts.peer:
            raise PreflightRefused([f"{to} is not this host's peer, which is {self.parts.peer}"])
        service = self._services.get(guest)
        if service is not None:
            return await self._protect_again(service, disks, interval_ms, mode, dry_run=dry_run)
        terms = Protection(
            guest=guest,
            primary=self.parts.host,
            secondary=to,
            disks=disks,
            mode=mode or Mode.REMUS,
            interval_ms=interval_ms or _DEFAULT_INTERVALS_MS[mode or Mode.REMUS],
        )
        if colo.is_colo(terms) and (problems := colo.interval_refusals(terms.interval_ms)):
            raise PreflightRefused(problems)
        await self._check_record(self._journal(terms, Role.PRIMARY))
        warnings = await self._checked(guest, disks, terms.mode)
        if dry_run:
            return warnings
        service = await self._established(terms, Role.PRIMARY)
        if service.journal.protection != terms:
            raise NotAllowedNow(service.state, f"another request for {guest} came first")
        service.facts.resync_now()
        return warnings

    async def _check_record(self, journal: Journal) -> None:
        """Check that the witness holds nothing that a new protection may not begin with."""
        with suppress(WitnessUnreachable):  # asked again before anything is written
            record = (await self.parts.witness.read(journal.protection.guest)).record
            if record is not None and not may_begin_with(record, journal):
                raise PreflightRefused([f"{foreign_record(record, journal)}; {SEE_FOREIGN_RECORD}"])

    async def _protect_again(
        self,
        service: ProtectionService,
        disks: Disks,
        interval_ms: int,
        mode: Mode | None,
        *,
        dry_run: bool,
    ) -> Sequence[str]:
        journal = service.journal
        if journal.role is Role.SECONDARY:
            raise NotAllowedNow(
                service.state,
                f"{journal.peer} is the primary of {service.guest}",
                advice=f"run it on {journal.peer}",
            )
        _check_same(service, disks, interval_ms, mode)
        terms = journal.protection
        warnings = await self._checked(service.guest, terms.disks, terms.mode)
        if not dry_run:
            await service.want(Wanted.PROTECTED)
        return warnings

    async def _checked(self, guest: GuestName, disks: Disks, mode: Mode) -> Sequence[str]:
        """Check that this guest can be replicated to the peer, as `Pairing.check`; warn of more."""
        found = await Pairing(self.parts).check(guest, disks, mode)
        return [*found, *await self.file_warnings(guest)]

    async def file_warnings(self, guest: GuestName) -> Sequence[str]:
        """Return what the operator should know of the guest's files on this host."""
        async with self._looking_at_files:  # each is read by a command: those are few at a time
            return await guest_files.warnings(self.parts, guest)

    async def unprotect(self, guest: str) -> None:
        """End the protection of `guest`; it runs on where it is.

        Raises:
            NotAllowedNow: If the other host owns it.
        """
        await self._primary(guest).want(Wanted.UNPROTECTED)

    async def suspend(self, guest: str) -> None:
        """Replicate `guest` no more until it is resumed; it runs on, unprotected.

        Raises:
            NotAllowedNow: If the other host owns it, or its protection is ending.
        """
        await self._lasting(guest).want(Wanted.SUSPENDED)

    async def resume(self, guest: str) -> None:
        """Replicate `guest` again, without waiting for the next attempt's time.

        Raises:
            NotAllowedNow: If the other host owns it, its protection is ending, or this host is
                drained.
        """
        service = self._lasting(guest)
        if service.facts.draining:
            raise NotAllowedNow(
                service.state,
                f"{self.parts.host} was drained, so it begins no pairing",
                advice="systemctl restart colod",
            )
        await service.want(Wanted.PROTECTED)

    def _lasting(self, guest: str) -> ProtectionService:
        """Return a protection that an operator may suspend or resume here."""
        service = self._primary(guest)
        if service.journal.wanted is Wanted.UNPROTECTED:
            raise NotAllowedNow(
                service.state,
                f"the protection of {guest} is ending",
                advice="protect it anew once colodctl status shows it no more",
            )
        return service

    def _primary(self, guest: str) -> ProtectionService:
        """Return a protection of which this host is the primary."""
        service = self.find(guest)
        if service.journal.role is Role.SECONDARY:
            raise NotAllowedNow(
                service.state,
                f"{service.journal.peer} owns {guest}",
                advice=f"run it on {service.journal.peer}",
            )
        return service

    async def set_automation(self, *, paused: bool, operator: str, reason: str) -> None:
        """Pause what this host does by itself, or let it act again.

        Raises:
            JournalError: If it could not be written.
        """
        automation = self.parts.automation
        if paused:
            await automation.begin_pause(operator, reason)
        else:
            await automation.end_pause()
        _log.info(Event.AUTOMATION_CHANGED, paused=paused, operator=operator, reason=reason)
        self.poke_all()

    async def drain(self) -> Sequence[str]:
        """Give up all pairings of this host; what it owns goes on alone.

        Returns:
            The guests whose pairing ended.

        Raises:
            NotAllowedNow: If one is kept for a person's word; the others ended.
            OutcomeUnknown: If one did not end in time, and still may.
        """
        paired = [s for s in self._services.values() if s.journal.pairing is not None]
        for service in self._services.values():
            service.drain()
        await asyncio.gather(*(s.until_drained(timeout_s=DRAIN_S) for s in paired))
        if left := [s for s in paired if not s.is_drained()]:
            names = ", ".join(f"{s.guest} ({s.state}: {s.trouble})" for s in left)
            advice = left[0].decision.advice or "watch colodctl status"
            if all(s.decision.rule == KEPT_FOR_WORD for s in left):
                raise NotAllowedNow(left[0].state, f"not drained: {names}", advice=advice)
            raise OutcomeUnknown(
                f"not drained yet: {names}",
                advice=f"{advice}; no pairing begins here until colod is restarted",
            )
        return [s.guest for s in paired]

    # --- what the peer asks -----------------------------------------------------------------

    async def receive(self, request: peer_pb2.PrepareReceiveRequest) -> Listening:
        """Start a receiver for the peer; return where it listens.

        Raises:
            NotAllowedNow: If this host is that guest's primary or still holds an older replica.
            PeerRefused: If this host joins no pairing, or does not see the owner's record.
        """
        guest = GuestName(request.guest)
        self.check_joins_pairings()
        await self._check_shared_witness(guest, Generation(request.generation))
        service = self._services.get(guest)
        terms = self._terms(request)
        if service is None:
            service = await self._established(terms, Role.SECONDARY)
        if service.journal.role is Role.PRIMARY:
            raise NotAllowedNow(service.state, f"{self.parts.host} is itself primary of {guest}")
        return await service.receive(
            terms, PairingId(request.pairing), Generation(request.generation), request.secret
        )

    def check_joins_pairings(self) -> None:
        """Check that this host replicates what the peer owns, or is to own.

        Raises:
            PeerRefused: If it does not.
        """
        if not self._joins_pairings:
            raise PeerRefused(
                f"{self.parts.host} has no daemon now, only a rescue, which joins no pairing",
                advice=f"on {self.parts.host}: systemctl start colod",
            )

    async def _check_shared_witness(self, guest: GuestName, generation: Generation) -> None:
        """Check that the record by which the owner pairs is seen here: else none could take over.

        Raises:
            PeerRefused: If it is not.
            WitnessError: If the witness does not answer, or holds what cannot be understood.
        """
        record = (await self.parts.witness.read(guest)).record
        if record is None or record.generation < generation:
            raise PeerRefused(
                f"the witness of {self.parts.host} does not show the record of {guest} by which "
                f"{self.parts.peer} pairs",
                advice="give both hosts the same [witness], and see colodctl doctor",
            )

    def _terms(self, request: peer_pb2.PrepareReceiveRequest) -> Protection:
        return Protection(
            guest=GuestName(request.guest),
            primary=self.parts.peer,
            secondary=self.parts.host,
            disks=Disks(request.disks),
            mode=Mode(request.mode),
            interval_ms=request.interval_ms,
        )

    def record_offered(self, guest: GuestName) -> None:
        """Have the guest's protection read the record again, which the peer may have replaced."""
        service = self._services.get(guest)
        if service is not None:
            service.record_offered()

    async def forget(self, guest: GuestName) -> None:
        """Drop what this host has of a protection that its owner ended, if the witness agrees."""
        service = self._services.get(guest)
        if service is not None and service.journal.role is Role.SECONDARY:
            await service.want(Wanted.UNPROTECTED)

    # --- supervision ------------------------------------------------------------------------

    async def _established(self, terms: Protection, role: Role) -> ProtectionService:
        """Return the guest's protection, begun with `terms` unless another request came first.

        Two that decide about one guest would each start what the other does not know of.
        """
        async with self._establishing:
            known = self._services.get(terms.guest)
            if known is not None:
                return known
            return await unbroken(self._found(terms, role))

    async def _found(self, terms: Protection, role: Role) -> ProtectionService:
        journal = self._journal(terms, role)
        await self.parts.journal.write(journal)
        return self._begin(journal)

    def _journal(self, terms: Protection, role: Role) -> Journal:
        return Journal(protection=terms, host=self.parts.host, role=role, boot=self.parts.boot)

    def _begin(self, journal: Journal) -> ProtectionService:
        guest = journal.protection.guest
        service = ProtectionService(self.parts, journal)
        self._services[guest] = service
        task = asyncio.create_task(service.run(), name=f"protection {guest}")
        self._tasks[guest] = task
        task.add_done_callback(lambda done: self._ended(guest, done))
        return service

    def _ended(self, guest: GuestName, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.critical(Event.DEFECT_DETECTED, protection=guest, exc_info=error)
            if not self.defect.done():
                self.defect.set_exception(error)
            return
        service = self._services.pop(guest, None)
        self._tasks.pop(guest, None)
        if service is not None:
            self._closing = asyncio.create_task(service.stop())
        _log.info(Event.PROTECTION_ENDED, protection=guest)


def _check_same(
    service: ProtectionService, disks: Disks, interval_ms: int, mode: Mode | None
) -> None:
    """Check that a protection that is there has the terms that are asked for.

    Raises:
        NotAllowedNow: If not: to pass over what was asked for would claim what is not so.
    """
    if service.facts.draining:
        raise NotAllowedNow(
            service.state,
            f"{service.journal.host} was drained and begins no pairing",
            advice="systemctl restart colod ends that",
        )
    terms = service.journal.protection
    is_same = disks is terms.disks and mode in (None, terms.mode)
    if not is_same or interval_ms not in (0, terms.interval_ms):
        raise NotAllowedNow(
            service.state,
            f"{service.guest} is protected with --mode {terms.mode} --disks {terms.disks} "
            f"--interval-ms {terms.interval_ms}",
            advice="other terms need colodctl unprotect first",
        )
