"""Copies of guests that another generation of ownership left on this host: shown, kept, discarded.

A discard is checked against the witness and against what the other host says after it was asked
for; what cannot be learned is a reason to keep the copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from colod.daemon.domains import DOWN
from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.daemon.quarantine_log import Entry
from colod.errors import JournalError, NotAllowedNow, NotFound
from colod.failover import quarantine
from colod.failover.effects import State
from colod.failover.quarantine import MAY_GO, Refusal
from colod.failover.rules.facts import has_lost
from colod.failover.view import View
from colod.model import Generation, GuestName, Role, parse_quarantine_name
from colod.observe.logs import Event
from colod.toolstack.port import Domain
from colod.v1 import admin_pb2

_log = structlog.get_logger()

_HEARD_S: Final = 5.0
"""How long the other host is given to say how it stands after a discard was asked for."""
_POLL_S: Final = 0.05
_RECENT_S: Final = 10.0
"""How old its word may be for a listing, which promises nothing."""

_NOT_OURS: Final = "it has such a name, and this colod did not put it aside"

LOST: Final = "lost"
ASIDE: Final = "aside"
STRANGER: Final = "stranger"
Kind = Literal["lost", "aside", "stranger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One copy.

    Attributes:
        domain: The domain, as xl lists it.
        guest: The guest that it is a copy of.
        kind: LOST: under the guest's own name, as it stopped. ASIDE: put aside under another name.
            STRANGER: of the guest's name, and not colod's.
        generation: Of the record by which this host lost the guest; 0 where that is not known.
        why: Why it is here.
        since_unix_s: Since when, 0 where that is not known.
        entry: What is on disk of it.
        service: The guest's protection on this host, None where there is none.
    """

    domain: Domain
    guest: str
    kind: Kind
    generation: Generation
    why: str
    since_unix_s: float
    entry: Entry | None
    service: ProtectionService | None


class Quarantine:
    """The copies of one host."""

    def __init__(self, host: Host) -> None:
        """Look after the copies of `host`."""
        self._host = host

    async def listing(self, guest: str = "") -> list[admin_pb2.QuarantinedCopy]:
        """Return all copies, or those of one guest.

        Raises:
            ToolstackError: If xl does not answer.
        """
        found = await self._found()
        return [self._told(each) for each in found if guest in ("", each.guest)]

    async def discard(
        self, request: admin_pb2.DiscardQuarantinedRequest
    ) -> admin_pb2.DiscardQuarantinedReply:
        """Destroy a copy, and verify that it is gone; or say in a dry run what would be done.

        Raises:
            NotFound: If there is no such copy.
            NotAllowedNow: If it may be the last one of its guest, is no copy that colod put aside,
                or is to be kept.
            ToolstackError: If it could not be destroyed.
        """
        asked = time.monotonic()
        copy = await self._find(request.domain)
        await self._check(copy, asked, request.force_reason)
        told = self._told(copy)
        reply = admin_pb2.DiscardQuarantinedReply(plan=_plan(copy), copy=told)
        if request.dry_run:
            return reply
        await self._host.parts.toolstack.destroy(copy.domain.name)
        _log.info(
            Event.COPY_DISCARDED,
            protection=copy.guest,
            domain=copy.domain.name,
            generation=copy.generation,
            operator=request.operator,
            force_reason=request.force_reason,
        )
        try:
            await self._host.parts.quarantine.forget(copy.domain.name)
        except JournalError as error:
            # Of no harm: it is known to be of a domain that is gone.
            _log.warning(Event.JOURNAL_UNWRITTEN, protection=copy.guest, error=str(error))
        return reply

    async def keep(
        self, request: admin_pb2.KeepQuarantinedRequest
    ) -> admin_pb2.KeepQuarantinedReply:
        """Have a copy kept, or give that order up; on disk when this returns.

        Raises:
            NotFound: If there is no such copy.
            NotAllowedNow: If it is nothing that colod would ever discard.
            JournalError: If it could not be written.
        """
        copy = await self._find(request.domain, may_be_owned=True)
        log = self._host.parts.quarantine
        if copy.kind == ASIDE or copy.service is None:
            await self._order(copy, request)
        else:
            # Not while the table is about to destroy it: afterwards it is looked at anew.
            async with copy.service.undecided():
                again = await self._host.parts.toolstack.find(copy.domain.name)
                if again is None or again.domid != copy.domain.domid:
                    raise NotFound(f"{copy.domain.name} is gone: it was discarded just now")
                await self._order(copy, request)
        entry = log.entry(copy.domain.name, copy.domain.domid)
        return admin_pb2.KeepQuarantinedReply(copy=self._told(replace(copy, entry=entry)))

    async def _order(self, copy: Found, request: admin_pb2.KeepQuarantinedRequest) -> None:
        if copy.kind == STRANGER:
            raise NotAllowedNow(
                State.QUARANTINED, f"{copy.domain.name} is not colod's, which never discards it"
            )
        log, domain = self._host.parts.quarantine, copy.domain
        if request.withdraw:
            await log.withdraw(domain.name, domain.domid)
        else:
            await log.keep(
                domain.name, domain.domid, operator=request.operator, reason=request.reason
            )
        _log.info(
            Event.COPY_RELEASED if request.withdraw else Event.COPY_RETAINED,
            protection=copy.guest,
            domain=domain.name,
            operator=request.operator,
            reason=request.reason,
        )

    # --- what is here -----------------------------------------------------------------------

    async def _find(self, name: str, *, may_be_owned: bool = False) -> Found:
        """Return one copy; also the guest of a primary that may still own it, if that is asked."""
        found = {each.domain.name: each for each in await self._found()}
        if name in found:
            return found[name]
        service = self._host.services.get(GuestName(name))
        if may_be_owned and service is not None and service.journal.role is Role.PRIMARY:
            domain = await self._host.parts.toolstack.find(name)
            if domain is not None:
                return self._lost(domain, service)
        known = ", ".join(sorted(found)) or "none"
        raise NotFound(
            f"no copy {name} is quarantined on {self._host.parts.host} (there: {known})",
            advice="run: colodctl quarantine list",
        )

    async def _found(self) -> list[Found]:
        domains = await self._host.parts.domains.by_name(since=time.monotonic())
        return [*self._asides(domains), *self._under_own_name(domains)]

    def _asides(self, domains: Mapping[str, Domain]) -> Iterator[Found]:
        for name, domain in sorted(domains.items()):
            named = parse_quarantine_name(name)
            if named is None:
                continue
            guest, generation = named
            entry = self._host.parts.quarantine.entry(name, domain.domid)
            aside = entry.aside if entry else None
            yield Found(
                domain=domain,
                guest=guest,
                kind=ASIDE if aside else STRANGER,
                generation=generation if aside else Generation(0),
                why=aside.why
                if aside
                else "it has such a name, and this colod did not put it aside",
                since_unix_s=aside.unix_s if aside else 0.0,
                entry=entry,
                service=self._host.services.get(guest),
            )

    def _under_own_name(self, domains: Mapping[str, Domain]) -> Iterator[Found]:
        for guest, service in sorted(self._host.services.items()):
            domain, view = domains.get(guest), service.facts.view
            if domain is None or view is None:
                continue
            if has_lost(view):
                yield self._lost(domain, service)
            elif service.state is State.QUARANTINED:
                yield Found(
                    domain=domain,
                    guest=guest,
                    kind=STRANGER,
                    generation=Generation(0),
                    why=service.decision.cause,
                    since_unix_s=service.since_unix_s,
                    entry=None,
                    service=service,
                )

    def _lost(self, domain: Domain, service: ProtectionService) -> Found:
        return Found(
            domain=domain,
            guest=service.guest,
            kind=LOST,
            generation=service.journal.generation,
            why=service.decision.cause,
            since_unix_s=service.since_unix_s,
            entry=self._host.parts.quarantine.entry(domain.name, domain.domid),
            service=service,
        )

    def _told(self, copy: Found) -> admin_pb2.QuarantinedCopy:
        view = copy.service.facts.view if copy.service else None
        known = self._standing(copy, view, asked_after=time.monotonic() - _RECENT_S)
        told = admin_pb2.QuarantinedCopy(
            domain=copy.domain.name,
            guest=copy.guest,
            kind=copy.kind,
            generation=copy.generation,
            why=copy.why,
            since_unix_s=copy.since_unix_s,
            memory_bytes=copy.domain.memory_bytes,
            domain_state=copy.domain.state,
            refusal=known.why,
            advice=known.advice,
        )
        if (keep := copy.entry.keep if copy.entry else None) is not None:
            told.keep.operator, told.keep.reason = keep.operator, keep.reason
            told.keep.unix_s = keep.unix_s
        return told

    # --- whether one may go -----------------------------------------------------------------

    async def _check(self, copy: Found, asked: float, force_reason: str) -> None:
        """Check that a copy may be discarded, with the witness and the other host asked anew."""
        view = None
        if copy.service is not None:
            await self._hear_peer(copy.guest, asked)
            view = await copy.service.look_now()
        found = self._standing(copy, view, asked_after=asked)
        if found is not MAY_GO:
            raise NotAllowedNow(
                State.QUARANTINED,
                f"{copy.domain.name} stays: {found.why}",
                advice=found.advice or "colodctl quarantine list",
            )
        keep = copy.entry.keep if copy.entry else None
        if keep is not None and not force_reason:
            raise NotAllowedNow(
                State.QUARANTINED,
                f"{copy.domain.name} is to be kept, says {keep.operator or 'nobody known'}: "
                f"{keep.reason}",
                advice=f"colodctl quarantine keep {copy.domain.name} --withdraw, or --force-reason",
            )

    async def _hear_peer(self, guest: str, asked: float) -> None:
        """Wait for a word of the other host that was asked for after `asked`."""
        heartbeat = self._host.parts.heartbeat
        while time.monotonic() - asked < _HEARD_S:
            if heartbeat.answer(guest, asked_after=asked) is not None:
                return
            await asyncio.sleep(_POLL_S)

    def _standing(self, copy: Found, view: View | None, *, asked_after: float) -> Refusal:
        """Return why a copy must stay, by what is known."""
        name = copy.domain.name
        if copy.kind == STRANGER:
            return Refusal(
                "it is nothing that this colod has put aside",
                f"look at it; if you need it no more: xl destroy {name}",
            )
        if copy.kind == LOST:
            return Refusal(
                "it has the guest's own name: colod discards it or puts it aside by itself, once "
                "it is sure who runs the guest",
                "wait; colodctl status tells what for",
            )
        if not copy.domain.paused and copy.domain.state not in DOWN:
            return Refusal(
                f"it is {copy.domain.state} and not paused: somebody has let it go",
                f"it is theirs; if nobody needs it: xl destroy {name}",
            )
        if copy.service is None or view is None:
            return Refusal(
                f"{copy.guest} is not protected here, so nobody knows who has it: this may be the "
                "last copy",
                f"look for it on the other host; if it is there: xl destroy {name}",
            )
        theirs = self._host.parts.heartbeat.answer(copy.guest, asked_after=asked_after)
        journal = copy.service.journal
        peer_has_guest = (
            theirs is not None
            and journal.peer == self._host.parts.peer
            and theirs.has_guest
            and theirs.generation == journal.generation
        )
        return quarantine.refusal(view, copy.generation, peer_has_guest=peer_has_guest)


def _plan(copy: Found) -> list[str]:
    mib = copy.domain.memory_bytes >> 20
    keep = copy.entry.keep if copy.entry else None
    kept = [f"in spite of {keep.operator}, who has it kept: {keep.reason}"] if keep else []
    return [
        f"destroy {copy.domain.name}, the copy of {copy.guest} that this host lost under "
        f"generation {copy.generation}: {mib} MiB become free; nothing brings it back",
        *kept,
    ]
