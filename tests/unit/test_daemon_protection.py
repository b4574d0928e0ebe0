"""What may not wait for the witness, and an operator's word that came too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon.protection import ProtectionService
from colod.daemon.sessions import SessionHandle
from colod.errors import NotAllowedNow
from colod.failover.record import OwnershipRecord
from colod.failover.view import Answer, Journal, Link
from colod.model import Generation, GuestName, HostName, Role
from colod.toolstack.port import Domain, DomainState, ProcessRef
from colod.witness.base import Lost, Outcome, Stored
from tests.unit.failover_transcripts.situation import ALPHA, BETA, LATER, PAIRED, PAIRING, TERMS
from tests.unit.fake_parts import limits_with, parts_with

LIMIT_S = 30.0


class Xen:
    """One domain, which is noted when it is paused."""

    def __init__(self, name: str, *, paused: bool) -> None:
        self.name = name
        self.paused = paused
        self.on_listing: Callable[[], None] = lambda: None

    async def by_name(self, *, since: float) -> dict[str, Domain]:
        self.on_listing()
        return {
            self.name: Domain(
                domid=5,
                name=self.name,
                state=DomainState.PAUSED if self.paused else DomainState.RUNNING,
                paused=self.paused,
                memory_bytes=1 << 20,
                cpu_time_s=0.0,
                shutdown_reason="",
            )
        }

    async def pause(self, name: str) -> Domain:
        self.paused = True
        (domain,) = (await self.by_name(since=0.0)).values()
        return domain


class Witness:
    """Answers at once what is stored, or never, as the test says."""

    def __init__(self, record: OwnershipRecord, revision: int) -> None:
        self.stored = Stored(record, revision)
        self.hangs = False
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def read(self, guest: GuestName) -> Stored:
        if self.hangs:
            self.is_asked.set()
            await asyncio.Event().wait()
        return self.stored

    async def compare_and_swap(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        self.is_asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        await self.may_answer.wait()
        return Lost(self.stored)


class Session:
    """A session whose link the test breaks."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.status = None
        self.toolstack = ProcessRef(pid=1, start_ticks=1)
        self.process = ProcessRef(pid=2, start_ticks=1)
        self.peer_heard_at = None
        self.peer_address = ""
        self._said = asyncio.Event()

    def breaks(self) -> None:
        self.link = Link.BROKEN
        self._said.set()

    async def until(self, fits: Any, *, timeout_s: float) -> bool:
        while not fits():
            await self._said.wait()
            self._said.clear()
        return True

    async def close(self) -> None:
        """Hold nothing."""


class Written:
    async def write(self, journal: Journal) -> None:
        """Write nothing down."""


async def service_of(
    directory: Path, host: HostName, xen: Xen, witness: Witness, link: Link
) -> ProtectionService:
    """Return a paired guest's protection on one of its hosts, whose peer is not heard."""
    peer = BETA if host == ALPHA else ALPHA
    heartbeat = SimpleNamespace(
        networks=(SimpleNamespace(name=peer, heard_at=None),),
        peer_paused=None,
        answer=lambda guest, *, asked_after: None,
    )
    parts = parts_with(
        host=host,
        peer=peer,
        boot="boot",
        domains=xen,
        toolstack=xen,
        witness=witness,
        journal=Written(),
        heartbeat=heartbeat,
        history=SimpleNamespace(last_state=lambda guest: "", add=lambda change: True),
        sessions=directory,
        limits=limits_with(guest_end_wait_s=15.0),
    )
    is_primary = host == ALPHA
    service = ProtectionService(
        parts,
        Journal(
            protection=TERMS,
            host=host,
            role=Role.PRIMARY if is_primary else Role.SECONDARY,
            record=PAIRED,
            revision=7,
            pairing=PAIRING,
            pairing_generation=Generation(1),
            replica_domid=0 if is_primary else 5,
            boot="boot",
        ),
    )
    assert service.session is not None
    await service.session.close()
    service.session = cast("SessionHandle", cast("Any", Session(link)))
    return service


async def test_a_guest_whose_link_breaks_is_held_though_the_witness_hangs(tmp_path: Path) -> None:
    """One accident takes both: the other host may ask long before a time-out has passed."""
    xen, witness = Xen(TERMS.guest, paused=False), Witness(PAIRED, 7)
    witness.hangs = True
    service = await service_of(tmp_path, ALPHA, xen, witness, Link.FOLLOWING)
    asking = asyncio.create_task(service._turn())
    async with asyncio.timeout(LIMIT_S):
        await witness.is_asked.wait()
        assert not xen.paused
        cast("Session", cast("Any", service.session)).breaks()
        await asking
        await service._turn()
    assert xen.paused


async def test_nobody_is_asked_where_the_link_broke_since_the_look(tmp_path: Path) -> None:
    xen, witness = Xen(TERMS.guest, paused=False), Witness(PAIRED, 7)
    witness.hangs = True
    service = await service_of(tmp_path, ALPHA, xen, witness, Link.FOLLOWING)
    xen.on_listing = cast("Session", cast("Any", service.session)).breaks
    async with asyncio.timeout(LIMIT_S):
        while not xen.paused:
            await service._turn()
    assert not witness.is_asked.is_set()


async def test_what_was_not_answered_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    xen, witness = Xen(TERMS.guest, paused=False), Witness(PAIRED, 7)
    service = await service_of(tmp_path, ALPHA, xen, witness, Link.FOLLOWING)
    await service._turn()
    assert service.facts.answer is Answer.READ
    witness.hangs = True
    looking = asyncio.create_task(service.look_now())
    async with asyncio.timeout(LIMIT_S):
        await witness.is_asked.wait()
        cast("Session", cast("Any", service.session)).breaks()
        view = await looking
    assert view.answer is Answer.STALE


async def test_a_force_is_not_taken_for_another_grant_than_the_operator_saw(tmp_path: Path) -> None:
    """While this host asks for the guest, the other one may have gone alone with it."""
    xen, witness = Xen(f"{TERMS.guest}--incoming", paused=True), Witness(PAIRED, 7)
    service = await service_of(tmp_path, BETA, xen, witness, Link.BROKEN)
    service.facts.ask_failover()
    for _ in range(4):
        await service._turn()
        if service.decision.rule == "ask":
            break
    witness.stored = Stored(LATER, 8)
    deciding = asyncio.create_task(service._turn())
    async with asyncio.timeout(LIMIT_S):
        await witness.is_asked.wait()
        asking = asyncio.create_task(service.fail_over("alpha burnt down"))
        await asyncio.sleep(0)
        witness.may_answer.set()
        await deciding
        with pytest.raises(NotAllowedNow, match="decided anew"):
            await asking
    assert service.journal.record == LATER
    assert service.journal.force_reason == ""


async def test_a_force_that_nothing_came_between_is_taken(tmp_path: Path) -> None:
    xen, witness = Xen(f"{TERMS.guest}--incoming", paused=True), Witness(PAIRED, 7)
    service = await service_of(tmp_path, BETA, xen, witness, Link.BROKEN)
    await service._turn()
    await service.fail_over("alpha burnt down")
    assert service.journal.force_reason == "alpha burnt down"
