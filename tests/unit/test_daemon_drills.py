"""A drill runs only what is cut off, leaves nothing, and calls nothing a success unchecked."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon.checkpoints import Checkpoints
from colod.daemon.drill_log import Drill, DrillLog, Mark
from colod.daemon.drill_plan import Plan
from colod.daemon.drills import Drills, IsolatedRun
from colod.daemon.host import Host
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.errors import NotAllowedNow, NotFound, PreflightRefused, ToolstackError
from colod.toolstack.port import Discarded, Domain, DomainState, Vif
from colod.v1 import admin_pb2, session_pb2

UUID = "99999999-2222-3333-4444-555555555555"
CONFIG = {
    "c_info": {"type": "pv", "name": "web--drill", "uuid": UUID},
    "b_info": {"max_memkb": 1024},
}


class Xen:
    """Restores what it is told to, and notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.discarded: list[str] = []
        self.config: Mapping[str, Any] = CONFIG
        self.vifs_there: Sequence[Vif] = ()
        self.state = DomainState.RUNNING
        self.fails: dict[str, Exception] = {}

    def _do(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]
        self.done.append(what)

    def _domain(self, state: DomainState) -> Domain:
        return Domain(
            domid=9, name="web--drill", state=state, paused=False, memory_bytes=1, cpu_time_s=1
        )

    async def restore_paused(self, image: Path, name: str, *, timeout_s: float) -> Domain:
        self._do("restore")
        return self._domain(DomainState.PAUSED)

    async def domain_config(self, name: str) -> Mapping[str, Any]:
        return self.config

    async def vifs(self, domid: int) -> Sequence[Vif]:
        return self.vifs_there

    async def run_promoted(self, name: str) -> Domain:
        self._do("run")
        return self._domain(DomainState.RUNNING)

    async def find(self, name: str) -> Domain:
        return self._domain(self.state)

    async def discard_restored(self, image: Path, uuid: str) -> Discarded:
        self._do("discard")
        self.discarded.append(uuid)
        return Discarded()


class Images:
    """Writes an image at once."""

    async def write(self, service: object, path: Path, config: Path) -> AsyncIterator[Any]:
        path.write_text(config.read_text())  # noqa: ASYNC240 (a test's own small file)
        yield session_pb2.ImageExport(epoch=42, epoch_age_s=0.5, is_done=True)


class Bench:
    """One drill, on doubles of Xen and of the session."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.xen = Xen()
        self.log = DrillLog(root)
        self.parts = cast("Parts", SimpleNamespace(host="beta", toolstack=self.xen))

    def run(self, **request: Any) -> IsolatedRun:
        guest = SimpleNamespace(guest="web", journal=SimpleNamespace(generation=3))
        plan = Plan(
            domain="web--drill",
            uuid=UUID,
            config=CONFIG,
            image=self.root / ".drill",
            config_file=self.root / ".config",
            epoch=41,
            lines=(),
        )
        return IsolatedRun(
            self.parts,
            cast("Checkpoints", Images()),
            self.log,
            cast("ProtectionService", guest),
            admin_pb2.DrillRequest(guest="web", operator="ann", timeout_s=20, **request),
            plan,
        )

    def nothing_is_left(self) -> bool:
        left = {path.name for path in self.root.iterdir()} - {"drills.jsonl", "drills"}
        return not left and not self.log.left()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def finished(run: IsolatedRun) -> admin_pb2.DrillRecord:
    """Carry a drill out; return its record."""
    run.start(lambda: None)
    await run.task
    told = []
    while (reply := run.told.get_nowait()) is not None:
        told.append(reply)
    assert told[-1].step == "done"
    return told[-1].record


async def test_a_copy_that_came_up_and_was_not_checked_is_no_success(bench: Bench) -> None:
    record = await finished(bench.run())
    assert (record.verdict, record.epoch, record.rpo_s) == ("not checked", 42, 0.5)
    assert record.rto_s >= 0
    assert record.check_s == -1
    assert bench.xen.done == ["restore", "run", "discard"]
    assert bench.xen.discarded == [UUID]
    assert bench.nothing_is_left()
    assert bench.log.last_success("web") is None


@pytest.mark.parametrize(("status", "verdict"), [(0, "passed"), (1, "failed")])
async def test_the_check_decides(bench: Bench, status: int, verdict: str) -> None:
    run = bench.run(check="true")
    run.verdict.set_result((status, ""))
    record = await finished(run)
    assert record.verdict == verdict
    assert record.check_s >= 0
    assert (bench.log.last_success("web") is not None) is (status == 0)


@pytest.mark.parametrize("state", [DomainState.CRASHED, DomainState.SHUTDOWN, DomainState.PAUSED])
async def test_a_copy_that_did_not_stay_up_has_failed_whatever_the_check_said(
    bench: Bench, state: DomainState
) -> None:
    bench.xen.state = state
    run = bench.run(check="true")
    run.verdict.set_result((0, ""))
    assert (await finished(run)).verdict == "failed"


async def test_a_copy_that_is_not_cut_off_never_runs(bench: Bench) -> None:
    bench.xen.vifs_there = [
        Vif(devid=0, mac="00:16:3e:00:00:01", bridge="br0", name="vif9.0", backend_domid=0)
    ]
    record = await finished(bench.run(keep=True))
    assert record.verdict == "failed"
    assert "br0" in record.detail
    assert bench.xen.done == ["restore", "discard"]


async def test_a_copy_that_xl_could_not_restore_has_failed(bench: Bench) -> None:
    bench.xen.fails["restore"] = ToolstackError(("xl", "restore"), 1, "no memory")
    record = await finished(bench.run())
    assert record.verdict == "failed"
    assert "no memory" in record.detail
    assert bench.xen.done == ["discard"]
    assert bench.nothing_is_left()


async def test_a_defect_of_ours_leaves_nothing_behind_either(bench: Bench) -> None:
    bench.xen.fails["run"] = KeyError("x")
    record = await finished(bench.run())
    assert "defect" in record.detail
    assert bench.nothing_is_left()


async def test_a_drill_that_is_given_up_is_cleared_away(bench: Bench) -> None:
    run = bench.run(check="sleep")
    run.start(lambda: None)
    while (reply := await run.told.get()) is not None and reply.step != "checking":
        assert len(bench.log.left()) == 1  # marked before anything is made
    run.give_up("colodctl went away")
    await run.task
    assert (run.drill.verdict, run.drill.detail) == ("aborted", "colodctl went away")
    assert bench.xen.done[-1] == "discard"
    assert bench.nothing_is_left()


async def test_a_copy_is_kept_only_where_that_was_asked_for(bench: Bench) -> None:
    record = await finished(bench.run(keep=True))
    assert record.is_kept
    assert "discard" not in bench.xen.done
    assert bench.nothing_is_left()


async def test_what_could_not_be_destroyed_is_cleared_away_by_the_next_daemon(
    bench: Bench,
) -> None:
    bench.xen.fails["discard"] = ToolstackError(("xl", "destroy"), 1, "busy")
    record = await finished(bench.run())
    assert "not cleared away" in record.detail
    del bench.xen.fails["discard"]
    host = cast("Host", SimpleNamespace(parts=bench.parts))
    drills = Drills(host, DrillLog(bench.root))
    drills.begin()
    async with asyncio.timeout(20):
        await drills.cleared()
    assert not drills.log.left()
    assert bench.xen.done[-1] == "discard"
    assert [each.verdict for each in drills.log.of("web", 0)] == ["not checked"]
    await drills.stop()


@pytest.mark.parametrize("has_config", [True, False])
async def test_what_an_older_daemon_left_is_cleared_away_by_the_uuid_of_its_configuration(
    bench: Bench, *, has_config: bool
) -> None:
    config = bench.root / ".config"
    if has_config:
        config.write_text(json.dumps(CONFIG))
    drill = Drill(id="1", unix_s=1.0, host="beta", guest="web")
    bench.log.begin(Mark(drill=drill, domain="web--drill", image="/i", files=(str(config),)))
    drills = Drills(cast("Host", SimpleNamespace(parts=bench.parts)), bench.log)
    drills.begin()
    async with asyncio.timeout(20):
        await drills.cleared()
    assert bench.xen.discarded == [UUID if has_config else ""]
    assert bench.nothing_is_left()


async def test_a_second_drill_is_told_of_the_one_under_way_and_not_of_its_copy(
    bench: Bench,
) -> None:
    service = SimpleNamespace(guest="web", state="PROTECTED")
    host = SimpleNamespace(parts=bench.parts, find=lambda _: service)
    drills = Drills(cast("Host", host), bench.log)
    run = bench.run(check="true")
    run.start(lambda: None)
    with pytest.raises(NotAllowedNow, match=r"a drill \(isolated\) of web is under way.*ann"):
        await anext(drills.run(admin_pb2.DrillRequest(guest="web", dry_run=True)))
    run.give_up("enough")
    await run.task
    assert not bench.log.running


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
async def test_a_time_limit_that_never_comes_is_refused(bench: Bench, seconds: float) -> None:
    service = SimpleNamespace(guest="web", state="PROTECTED")
    host = SimpleNamespace(parts=bench.parts, find=lambda _: service)
    request = admin_pb2.DrillRequest(guest="web", timeout_s=seconds)
    with pytest.raises(PreflightRefused, match="timeout_s"):
        await anext(Drills(cast("Host", host), bench.log).run(request))
    assert bench.xen.done == []


async def test_a_verdict_that_nobody_waits_for_is_refused(bench: Bench) -> None:
    drills = Drills(cast("Host", SimpleNamespace(parts=bench.parts)), bench.log)
    with pytest.raises(NotFound):
        drills.checked("x", 0, "")
