"""A replica is thrown away only where all is well, and rebuilt however its drill ends."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon import drill_secondary as module
from colod.daemon.drill_log import SECONDARY, Drill, DrillLog, Mark
from colod.daemon.drill_secondary import SecondaryDrills, check_expendable
from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.errors import JournalError, NotAllowedNow
from colod.failover import record as records
from colod.failover.effects import State
from colod.failover.view import Answer, Contact, Replica, View, Wanted
from colod.model import Epoch, GuestName, PairingId, Role
from colod.v1 import admin_pb2, peer_pb2, types_pb2
from tests.unit.drill_subjects import GUEST, JOURNAL, VIEW
from tests.unit.test_failover_quarantine import ALPHA, PAIRED, PAIRING

NEW = PairingId("e" * 32)


class Service:
    """A protection that suspends and pairs anew at once, unless it is told to hang."""

    def __init__(self) -> None:
        self.guest: GuestName = GUEST
        self.journal = JOURNAL
        self.facts = SimpleNamespace(view=VIEW)
        self.watch = SimpleNamespace(cause="")
        self.state = State.PROTECTED
        self.trouble = "the peer refuses"
        self.erased = asyncio.Event()
        self.orders: list[Wanted] = []
        self.has = {each: asyncio.Event() for each in Wanted}
        self.hangs_in: State | None = None
        self.error: JournalError | None = None

    async def look_now(self) -> View:
        """Return what was set."""
        found: View = self.facts.view
        return found

    async def want(self, wanted: Wanted, *, instead_of: Wanted) -> None:
        """Take an order."""
        if self.journal.wanted is not instead_of:
            return
        if self.error:
            raise self.error
        self.orders.append(wanted)
        self.has[wanted].set()
        self.journal = replace(self.journal, wanted=wanted)
        if wanted is Wanted.SUSPENDED:
            self.state = State.SUSPENDED
            self.journal = replace(self.journal, pairing=None)
        elif self.hangs_in is not State.SYNCING:
            paired = records.pair(records.go_alone(PAIRED, attempt="x"), NEW, Epoch(2), attempt="y")
            self.journal = replace(self.journal, pairing=NEW, record=paired)
            self.state = State.PROTECTED

    async def until(self, fits: Callable[[], bool], *, timeout_s: float) -> bool:
        """Look once."""
        await asyncio.sleep(0.01)
        return fits()


class Bench:
    """One host, on doubles of a protection and of the other host."""

    def __init__(self, root: Path) -> None:
        self.service = Service()
        self.log = DrillLog(root)
        heartbeat = SimpleNamespace(answer=self.answer)
        parts = SimpleNamespace(
            host=ALPHA,
            heartbeat=heartbeat,
            automation=SimpleNamespace(is_paused=False),
            limits=SimpleNamespace(resync_automatic=True),
        )
        self.host = SimpleNamespace(
            parts=parts, services={GUEST: self.service}, find=lambda guest: self.service
        )
        self.drills = SecondaryDrills(cast("Host", self.host), self.log)

    def answer(self, guest: str, *, asked_after: float) -> peer_pb2.ProtectionView | None:
        """Say that nothing is left, unless the service is to hang over it."""
        if self.service.hangs_in is State.SUSPENDED:
            replica = types_pb2.REPLICA_STATE_LOST
            return peer_pb2.ProtectionView(guest=guest, pairing=PAIRING, replica=replica)
        return peer_pb2.ProtectionView(guest=guest, replica=types_pb2.REPLICA_STATE_NONE)

    async def run(self, **request: Any) -> list[admin_pb2.DrillReply]:
        """Carry a drill out."""
        fields = {"guest": GUEST, "operator": "ann", **request}
        asked = admin_pb2.DrillSecondaryRequest(**fields)
        return [reply async for reply in self.drills.run(asked)]


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_drill_without_a_record_is_over_all_the_same(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark would have the next daemon take back what an operator wants by then."""

    def full(log: DrillLog, drill: Drill) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DrillLog, "add", full)
    told = await bench.run()
    assert "No space left" in told[-1].record.detail
    assert bench.log.left(SECONDARY) == []
    assert DrillLog(tmp_path).left(SECONDARY) == []


async def test_a_drill_measures_how_long_the_guest_was_unprotected(bench: Bench) -> None:
    told = await bench.run()
    assert [each.step for each in told] == ["planned", "discarding", "pairing", "syncing", "done"]
    record = told[-1].record
    assert (record.kind, record.verdict, record.epoch) == (SECONDARY, "passed", 9)
    assert record.unprotected_s == pytest.approx(record.discard_s + record.protect_s, abs=0.01)
    assert record.generation > PAIRED.generation
    assert bench.service.orders == [Wanted.SUSPENDED, Wanted.PROTECTED]
    assert bench.log.has(record.id)
    assert not bench.log.left(SECONDARY)
    # It says nothing of whether a replica runs.
    assert bench.log.last_success(GUEST) is None


async def test_a_dry_run_orders_nothing(bench: Bench) -> None:
    (told,) = await bench.run(dry_run=True)
    assert "unprotected" in told.plan[0]
    assert bench.service.orders == []
    assert bench.log.of("", 0) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": State.REPLICATING}, "not PROTECTED"),
        ({"state": State.DEGRADED}, "not PROTECTED"),
        ({"journal": replace(JOURNAL, role=Role.SECONDARY)}, "is the primary"),
        ({"journal": replace(JOURNAL, switchover="x")}, "a switchover is under way"),
        ({"journal": replace(JOURNAL, wanted=Wanted.UNPROTECTED)}, "about to be"),
        ({"facts": SimpleNamespace(view=None)}, "not PROTECTED"),
        ({"facts": SimpleNamespace(view=replace(VIEW, contact=Contact.SILENT))}, "not heard"),
        ({"facts": SimpleNamespace(view=replace(VIEW, peer_replica=Replica.LOST))}, "follows"),
        ({"facts": SimpleNamespace(view=replace(VIEW, answer=Answer.UNREACHABLE))}, "witness"),
        ({"watch": SimpleNamespace(cause="backpressure")}, "stands still"),
    ],
)
async def test_it_is_refused_unless_all_is_well(
    bench: Bench, changes: dict[str, Any], why: str
) -> None:
    for name, value in changes.items():
        setattr(bench.service, name, value)
    with pytest.raises(NotAllowedNow, match=why) as refused:
        await bench.run()
    assert refused.value.advice
    assert bench.service.orders == []
    assert bench.log.of("", 0) == []


async def test_it_is_refused_where_a_failed_attempt_would_not_be_repeated(bench: Bench) -> None:
    bench.host.parts.automation.is_paused = True
    bench.host.parts.limits.resync_automatic = False
    with pytest.raises(NotAllowedNow, match=r"automation is paused.*resync is manual"):
        await check_expendable(cast("Host", bench.host), cast("ProtectionService", bench.service))


async def test_a_caller_that_goes_away_leaves_the_guest_replicated(bench: Bench) -> None:
    bench.service.hangs_in = State.SUSPENDED
    request = admin_pb2.DrillSecondaryRequest(guest=GUEST, operator="ann")
    replies = bench.drills.run(request)
    while (await anext(replies)).step != "discarding":
        pass
    await bench.service.has[Wanted.SUSPENDED].wait()
    assert len(bench.log.left(SECONDARY)) == 1  # marked before anything was ordered
    with pytest.raises(NotAllowedNow, match="is under way"):
        bench.drills.check_idle(cast("ProtectionService", bench.service))
    await replies.aclose()
    await bench.drills.stop()
    assert bench.service.orders[-1] is Wanted.PROTECTED
    (drill,) = bench.log.of("", 0)
    assert (drill.verdict, drill.unprotected_s) == ("aborted", -1)
    assert not bench.log.left(SECONDARY)


async def test_a_replica_that_does_not_go_does_not_keep_the_guest_unprotected(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DISCARD_S", 0.1)
    bench.service.hangs_in = State.SUSPENDED
    record = (await bench.run())[-1].record
    assert record.verdict == "failed"
    assert "beta has not said within" in record.detail
    assert bench.service.orders == [Wanted.SUSPENDED, Wanted.PROTECTED]


async def test_a_drill_whose_time_is_over_says_what_stands_in_the_way(bench: Bench) -> None:
    bench.service.hangs_in = State.SYNCING
    record = (await bench.run(timeout_s=0.3))[-1].record
    assert record.verdict == "aborted"
    assert "the peer refuses" in record.detail
    assert record.unprotected_s == -1


async def test_an_order_that_comes_in_between_is_not_taken_back(bench: Bench) -> None:
    bench.service.hangs_in = State.SYNCING
    task = asyncio.create_task(bench.run())
    await bench.service.has[Wanted.PROTECTED].wait()
    bench.service.journal = replace(bench.service.journal, wanted=Wanted.UNPROTECTED)
    record = (await task)[-1].record
    assert record.verdict == "failed"
    assert bench.service.journal.wanted is Wanted.UNPROTECTED


async def test_the_next_daemon_takes_back_what_a_dead_one_ordered(bench: Bench) -> None:
    bench.service.journal = replace(JOURNAL, wanted=Wanted.SUSPENDED, pairing=None)
    drill = Drill(id="d", unix_s=time.time(), host=ALPHA, guest=GUEST, kind=SECONDARY)
    bench.log.begin(Mark(drill=drill, domain="", image=""))
    assert bench.log.left() == []  # none of the other kind, which would destroy something
    bench.service.error = JournalError("no space left on device")
    bench.drills.begin()
    await bench.drills.cleared()
    assert len(bench.log.left(SECONDARY)) == 1
    bench.service.error = None
    bench.drills.begin()
    await bench.drills.cleared()
    assert bench.service.orders == [Wanted.PROTECTED]
    assert not bench.log.left(SECONDARY)
    (recorded,) = bench.log.of("", 0)
    assert recorded.verdict == "aborted"
