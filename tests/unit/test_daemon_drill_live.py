"""A live drill passes only where it was seen to, and takes back what was not decided."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon import drill_health, drill_live
from colod.daemon.drill_live import LiveDrills
from colod.daemon.drill_log import ISOLATED, LIVE, Drill, DrillLog, Mark
from colod.daemon.host import Host
from colod.daemon.switching import give_back
from colod.errors import ColodError, NotAllowedNow, PeerRefused, VersionMismatch
from colod.failover import record as records
from colod.failover.effects import State
from colod.failover.record import OwnershipRecord
from colod.failover.view import Answer, Contact, View, Wanted
from colod.model import Disks, Epoch, GuestName, HostName, PairingId, Role
from colod.v1 import admin_pb2, peer_pb2
from tests.unit.drill_subjects import GUEST, JOURNAL, VIEW
from tests.unit.test_failover_quarantine import ALPHA, BETA, PAIRED, PAIRING, TERMS

GENERATION = PAIRED.generation
PROGRESS = SimpleNamespace(acked_epoch=9, last_ack_age_s=0.25)


class Service:
    """A protection whose orders are carried out at once, one change for each look."""

    def __init__(self, host: HostName) -> None:
        role = Role.PRIMARY if host == ALPHA else Role.SECONDARY
        self.calls: list[str] = []
        self.guest: GuestName = GUEST
        self.journal = replace(JOURNAL, host=host, role=role)
        self.facts = SimpleNamespace(
            view=replace(VIEW, journal=self.journal),
            why_given_up=lambda: "it was not done within 45 s",
            forget_failover=lambda: self.calls.append("forget"),
            switchover_failed=self.calls.append,
        )
        self.watch = SimpleNamespace(cause="")
        self.session = SimpleNamespace(
            status=SimpleNamespace(progress=PROGRESS), status_at=time.monotonic()
        )
        self.state = State.PROTECTED
        self.trouble = ""
        self.erased = asyncio.Event()
        self.has_begun = asyncio.Event()
        self.pairings = 0
        self.changes: list[Callable[[], None]] = []
        self.gives_up = False
        self.hands_back = False
        self.hangs = False

    async def look_now(self) -> View:
        """Return what was set."""
        found: View = replace(self.facts.view, journal=self.journal)
        return found

    def check_switchover(self) -> None:
        """Refuse where there is no primary."""
        if self.journal.role is Role.SECONDARY:
            raise NotAllowedNow(self.state, "alpha is the primary", advice="run it on alpha")

    def check_failover(self, force_reason: str) -> None:
        """Refuse where there is no replica."""
        if self.journal.role is Role.PRIMARY:
            raise NotAllowedNow(self.state, "alpha is the primary", advice="run it on beta")

    def poke(self) -> None:
        """Have nobody look again."""

    async def switch_over(self) -> None:
        """Begin to give the guest away."""
        self.calls.append("switchover")
        self.has_begun.set()
        self.journal = replace(self.journal, switchover="x")
        self.facts.view = replace(self.facts.view, final_epoch=9)
        if self.gives_up:
            self.changes = [lambda: self._note(switchover="")]
        elif not self.hangs:
            self._go(records.hand_over(self.record, attempt="x"))

    async def fail_over(self, force_reason: str) -> None:
        """Begin to take it over."""
        self.calls.append("failover")
        self.has_begun.set()
        if not self.hangs:
            self._go(records.take_over(self.record, PAIRING, attempt="x"))

    def come_back(self) -> None:
        """Have the other host give it back."""
        self._go(records.hand_over(self.record, attempt="y"))

    @property
    def record(self) -> OwnershipRecord:
        """What the journal knows."""
        assert self.journal.record is not None
        return self.journal.record

    def _note(self, **changes: Any) -> None:
        self.journal = replace(self.journal, **changes)

    def _go(self, given: OwnershipRecord) -> None:
        """Have the record change hands, the guest run there, and be paired anew."""
        self.changes = [lambda: self._note(record=given, switchover="")]
        if self.hands_back:
            back = records.hand_back(given, attempt="z")
            self.changes.append(lambda: self._note(record=back))
            return
        seen = records.activate(given, attempt="a")
        self.pairings += 1
        new = PairingId(f"{self.pairings:032d}")
        role = Role.PRIMARY if seen.owner == self.journal.host else Role.SECONDARY
        paired = records.pair(seen, new, Epoch(2), attempt="p")
        self.changes += [
            lambda: setattr(self, "state", State.STOPPED),
            lambda: self._note(record=seen, role=role),
            lambda: self._note(record=paired, pairing=new),
            lambda: setattr(self, "state", State.PROTECTED),
        ]

    async def until(self, fits: Callable[[], bool], *, timeout_s: float) -> bool:
        """Look; what goes on goes on meanwhile."""
        while not fits():
            if not self.changes:
                await asyncio.sleep(0.01)
                return fits()
            self.changes.pop(0)()
        return True


class Bench:
    """One host, on doubles of a protection and of the other host."""

    def __init__(self, root: Path, host: HostName) -> None:
        self.service = Service(host)
        self.log = DrillLog(root)
        self.asked: list[peer_pb2.GiveBackRequest] = []
        self.peer_error: ColodError | None = None
        self.parts = SimpleNamespace(
            host=host,
            peer=BETA if host == ALPHA else ALPHA,
            has_fencing=True,
            heartbeat=SimpleNamespace(peer_paused=None),
            automation=SimpleNamespace(is_paused=False),
            limits=SimpleNamespace(resync_automatic=True),
            peer_client=SimpleNamespace(give_back=self.give_back),
        )
        self.host = SimpleNamespace(
            parts=self.parts,
            services={GUEST: self.service},
            find=lambda guest: self.service,
            check_joins_pairings=lambda: None,
        )
        self.drills = LiveDrills(cast("Host", self.host), self.log)
        self.answers: list[tuple[int, float]] = []

    def give_back(self, request: peer_pb2.GiveBackRequest, *, timeout_s: float) -> None:
        """Give the guest back as the other host does, or refuse."""
        self.asked.append(request)
        if self.peer_error is not None:
            raise self.peer_error
        if not request.dry_run:
            self.service.come_back()

    async def run(self, **request: Any) -> list[admin_pb2.DrillReply]:
        """Carry a drill out; each question for the probe gets the next answer."""
        asked = admin_pb2.DrillLiveRequest(guest=GUEST, operator="ann", **request)
        told = []
        async for reply in self.drills.run(asked):
            told.append(reply)
            if reply.step == "probing":
                status, outage_s = self.answers.pop(0)
                assert self.drills.probed(
                    admin_pb2.DrillCheckedRequest(id=reply.id, status=status, outage_s=outage_s)
                )
        return told


@pytest.fixture
async def alpha(tmp_path: Path) -> Bench:
    """The primary's host."""
    return Bench(tmp_path, ALPHA)


@pytest.fixture
async def beta(tmp_path: Path) -> Bench:
    """The secondary's."""
    return Bench(tmp_path, BETA)


def steps_of(told: list[admin_pb2.DrillReply]) -> list[str]:
    return [each.step for each in told]


async def test_a_guest_that_was_given_away_and_answers_has_passed(alpha: Bench) -> None:
    alpha.answers = [(0, 0.0), (0, 1.5), (0, 0.1)]
    told = await alpha.run(probe="true")
    expected = ["planned", "probing", "giving away", "probing", "protecting", "probing", "done"]
    assert steps_of(told) == expected
    record = told[-1].record
    assert (record.kind, record.verdict, record.check) == (LIVE, "passed", "true")
    assert (record.rpo_s, record.epoch, record.outage_s) == (0.0, 9, 1.5)
    assert record.rto_s == pytest.approx(record.decide_s + record.start_s)
    assert record.unprotected_s >= record.protect_s >= 0
    assert (record.generation, record.end_owner) == (GENERATION, BETA)
    assert record.end_generation == GENERATION + 2
    assert record.failback_s == -1
    assert alpha.log.last_success(GUEST) == pytest.approx(record.unix_s + record.rto_s)
    assert not alpha.log.left(LIVE)


async def test_without_a_probe_nothing_was_checked(alpha: Bench) -> None:
    record = (await alpha.run())[-1].record
    assert (record.verdict, record.outage_s) == ("not checked", -1)
    assert alpha.log.last_success(GUEST) is None


async def test_a_dry_run_orders_nothing(alpha: Bench, beta: Bench) -> None:
    for bench, words in ((alpha, "nothing of it is lost"), (beta, "is rolled back")):
        request = {"as_if_host_died": bench is beta, "failback": True}
        (told,) = await bench.run(dry_run=True, **request)
        assert words in " ".join(told.plan)
        assert bench.service.calls == []
        assert bench.log.of("", 0) == []
    assert [each.dry_run for each in alpha.asked] == [True]


async def test_a_takeover_loses_what_came_after_the_newest_epoch(beta: Bench) -> None:
    record = (await beta.run(as_if_host_died=True))[-1].record
    assert beta.service.calls == ["failover"]
    assert (record.epoch, record.as_if_host_died, record.end_owner) == (9, True, BETA)
    assert 0.25 <= record.rpo_s < 30


async def test_a_guest_that_is_given_away_comes_back_at_the_other_hosts_hands(
    alpha: Bench,
) -> None:
    alpha.answers = [(0, float(number)) for number in range(5)]
    told = await alpha.run(probe="true", failback=True)
    record = told[-1].record
    assert record.verdict == "passed", record.detail
    assert (record.end_owner, record.outage_s, record.failback_outage_s) == (ALPHA, 1.0, 3.0)
    assert record.failback_s >= 0 <= record.failback_protect_s
    (request,) = (each for each in alpha.asked if not each.dry_run)
    assert (request.generation, request.operator) == (GENERATION + 2, "ann")


async def test_one_that_was_taken_over_is_given_back_from_here(beta: Bench) -> None:
    record = (await beta.run(as_if_host_died=True, failback=True))[-1].record
    assert beta.service.calls == ["failover", "switchover"]
    assert (record.verdict, record.end_owner) == ("not checked", ALPHA)
    assert record.failback_s >= 0
    assert record.epoch == 9
    assert not beta.asked


@pytest.mark.parametrize(
    ("answers", "calls"), [([(7, 0.0)], []), ([(0, 0.0), (7, 0.0)], ["switchover"])]
)
async def test_a_guest_that_does_not_answer_ends_the_drill_where_it_is(
    alpha: Bench, answers: list[tuple[int, float]], calls: list[str]
) -> None:
    alpha.answers = answers
    record = (await alpha.run(probe="true", failback=True))[-1].record
    assert record.verdict == "failed"
    assert "ended with 7" in record.detail
    assert alpha.service.calls == calls
    assert record.end_owner == (BETA if calls else ALPHA)


async def test_a_switchover_that_is_given_up_has_failed(alpha: Bench) -> None:
    alpha.service.gives_up = True
    record = (await alpha.run())[-1].record
    assert (record.verdict, record.end_owner, record.rto_s) == ("failed", ALPHA, -1)
    assert "stays on alpha: it was not done within 45 s" in record.detail


async def test_a_host_that_cannot_run_it_and_gives_it_back_has_failed(alpha: Bench) -> None:
    alpha.service.hands_back = True
    record = (await alpha.run())[-1].record
    assert (record.verdict, record.end_owner) == ("failed", ALPHA)
    assert "beta could not run" in record.detail


async def test_a_peer_that_does_not_give_it_back_has_failed(
    alpha: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: peer_pb2.GiveBackRequest, *, timeout_s: float) -> None:
        if not request.dry_run:
            raise PeerRefused("beta: it stands still")

    alpha.parts.peer_client.give_back = refuse
    record = (await alpha.run(failback=True))[-1].record
    assert (record.verdict, record.end_owner) == ("failed", BETA)
    assert "stays on beta: beta: it stands still" in record.detail
    assert record.rto_s >= 0


async def test_a_guest_that_another_order_moves_on_has_not_passed(alpha: Bench) -> None:
    request = admin_pb2.DrillLiveRequest(guest=GUEST, operator="ann", probe="true")
    asked = 0
    async for told in alpha.drills.run(request):
        if told.step == "probing":
            asked += 1
            if asked == 3:
                back = records.hand_over(alpha.service.record, attempt="o")
                alpha.service.journal = replace(alpha.service.journal, record=back)
            alpha.drills.probed(admin_pb2.DrillCheckedRequest(id=told.id))
    assert (told.record.verdict, told.record.end_owner) == ("failed", ALPHA)
    assert "by another order" in told.record.detail


async def test_a_caller_that_goes_away_takes_back_what_is_not_decided(beta: Bench) -> None:
    beta.service.hangs = True
    asked = admin_pb2.DrillLiveRequest(guest=GUEST, operator="ann", as_if_host_died=True)
    replies = beta.drills.run(asked)
    while (await anext(replies)).step != "taking over":
        pass
    assert len(beta.log.left(LIVE)) == 1  # marked before anything was ordered
    await beta.service.has_begun.wait()
    with pytest.raises(NotAllowedNow, match="is under way here"):
        await beta.run(as_if_host_died=True)
    await replies.aclose()
    await beta.drills.stop()
    assert beta.service.calls == ["failover", "forget"]
    (drill,) = beta.log.of("", 0)
    assert (drill.verdict, drill.rto_s) == ("aborted", -1)
    assert "colodctl went away" in drill.detail
    assert not beta.log.running


async def test_a_drill_whose_time_is_over_gives_the_switchover_up(alpha: Bench) -> None:
    alpha.service.hangs = True
    record = (await alpha.run(timeout_s=0.2))[-1].record
    assert record.verdict == "aborted"
    assert "while giving away" in record.detail
    assert alpha.service.calls == ["switchover", "forget", "the drill was given up"]


async def test_a_takeover_that_does_not_come_is_not_waited_for(
    beta: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_live, "FAILOVER_ASKED_S", 0.05)
    beta.service.hangs = True
    beta.service.trouble = "the witness is away"
    record = (await beta.run(as_if_host_died=True))[-1].record
    assert record.verdict == "failed"
    assert "stays on alpha: the witness is away" in record.detail


async def test_a_protection_that_ends_meanwhile_has_failed(alpha: Bench) -> None:
    alpha.service.hangs = True
    task = asyncio.create_task(alpha.run())
    await alpha.service.has_begun.wait()
    alpha.service.journal = replace(alpha.service.journal, wanted=Wanted.UNPROTECTED)
    assert "was ended meanwhile" in (await task)[-1].record.detail


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"contact": Contact.SILENT}, "is not heard"),
        ({"answer": Answer.UNREACHABLE}, "the witness does not answer"),
    ],
)
async def test_it_is_refused_unless_all_is_well(
    alpha: Bench, beta: Bench, changes: dict[str, Any], why: str
) -> None:
    for bench in (alpha, beta):
        bench.service.facts.view = replace(bench.service.facts.view, **changes)
        with pytest.raises(NotAllowedNow, match=why):
            await bench.run(as_if_host_died=bench is beta)
        assert bench.service.calls == []
        assert bench.log.of("", 0) == []


async def test_the_wrong_host_is_told_which_is_the_right_one(alpha: Bench, beta: Bench) -> None:
    for bench, advice in ((alpha, "run it on beta"), (beta, "run it on alpha")):
        with pytest.raises(NotAllowedNow) as refused:
            await bench.run(as_if_host_died=bench is alpha)
        assert refused.value.advice == advice


async def test_output_that_is_not_held_is_not_taken_back(beta: Bench) -> None:
    beta.service.state = State.REPLICATING
    with pytest.raises(NotAllowedNow, match="is not held"):
        await beta.run(as_if_host_died=True)


async def test_a_peer_whose_automation_is_paused_would_not_pair_again(alpha: Bench) -> None:
    alpha.parts.heartbeat.peer_paused = True
    with pytest.raises(NotAllowedNow, match="automation is paused on beta"):
        await alpha.run()


async def test_a_peer_that_cannot_give_back_is_found_out_before(alpha: Bench) -> None:
    alpha.peer_error = VersionMismatch("beta: method not found")
    with pytest.raises(VersionMismatch):
        await alpha.run(failback=True)
    assert alpha.service.calls == []
    await alpha.run()


async def test_nobody_is_fenced_who_was_not_agreed_to(beta: Bench) -> None:
    beta.service.journal = replace(
        beta.service.journal, protection=replace(TERMS, disks=Disks.SHARED)
    )
    request = {"as_if_host_died": True, "dry_run": True}
    with pytest.raises(NotAllowedNow, match="would be fenced") as refused:
        await beta.run(**request)
    assert "--fence" in refused.value.advice
    (told,) = await beta.run(fence=True, **request)
    assert "before the replica runs, fence alpha" in " ".join(told.plan)
    beta.parts.has_fencing = False
    with pytest.raises(NotAllowedNow, match="wait for a person"):
        await beta.run(fence=True, **request)


async def test_what_another_drill_has_left_is_not_hidden(alpha: Bench) -> None:
    drill = Drill(id="d", unix_s=1.0, host=ALPHA, guest=GUEST, kind=ISOLATED)
    alpha.log.begin(Mark(drill=drill, domain="g1--drill", image=""))
    with pytest.raises(NotAllowedNow, match="not cleared away"):
        await alpha.run()


async def test_the_next_daemon_records_what_a_dead_one_left(alpha: Bench) -> None:
    drill = Drill(id="d", unix_s=time.time(), host=ALPHA, guest=GUEST, kind=LIVE)
    alpha.log.begin(Mark(drill=drill, domain="", image=""))
    alpha.drills.begin()
    await alpha.drills.cleared()
    assert not alpha.log.left(LIVE)
    (recorded,) = alpha.log.of("", 0)
    assert recorded.verdict == "aborted"
    assert alpha.service.calls == []


def request_of(generation: int, *, dry_run: bool = False) -> peer_pb2.GiveBackRequest:
    return peer_pb2.GiveBackRequest(guest=GUEST, generation=generation, dry_run=dry_run)


async def test_a_guest_is_given_back_by_the_record_that_was_named_only(
    alpha: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, service = cast("Host", alpha.host), alpha.service
    await give_back(host, request_of(0, dry_run=True))
    with pytest.raises(NotAllowedNow, match="by generation"):
        await give_back(host, request_of(GENERATION - 1))
    monkeypatch.setattr(drill_health, "_SETTLES_S", 0.0)
    monkeypatch.setattr(drill_health, "_POLL_S", 0.01)
    service.watch.cause = "backpressure"
    with pytest.raises(NotAllowedNow, match="stands still"):
        await give_back(host, request_of(GENERATION))
    assert service.calls == []
    service.watch.cause = ""
    await give_back(host, request_of(GENERATION))
    assert service.calls == ["switchover"]


async def test_one_that_stays_is_not_said_to_have_gone(alpha: Bench) -> None:
    alpha.service.gives_up = True
    with pytest.raises(NotAllowedNow, match="stays here"):
        await give_back(cast("Host", alpha.host), request_of(GENERATION))
