"""The ends of a guest's runs: what is done about them, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from colod.daemon import ended
from colod.daemon.ended import GuestEnds
from colod.daemon.parts import Parts
from colod.errors import ToolstackError
from colod.failover.view import Ended, Journal
from colod.model import GuestName, Role
from colod.toolstack.port import Domain, DomainState
from tests.unit.failover_transcripts.situation import ALPHA, TERMS
from tests.unit.fake_parts import limits_with, parts_with

WEB = GuestName("web")
JOURNAL = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY)
RESTARTING = replace(JOURNAL, restarting_since=1.0)
UUID = "11223344-5566-7788-99aa-bbccddeeff00"
DOWN = Domain(
    domid=7,
    name="web",
    state=DomainState.SHUTDOWN,
    paused=False,
    memory_bytes=1 << 20,
    cpu_time_s=1.0,
    shutdown_reason="reboot",
)
RUNNING = replace(DOWN, domid=8, state=DomainState.RUNNING, shutdown_reason="")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Xen:
    """A toolstack and a launcher that do what the test says, and note what they were asked."""

    def __init__(self) -> None:
        self.domain: Domain | None = DOWN
        self.config: dict[str, Any] = {"on_reboot": "restart", "c_info": {"uuid": UUID}}
        self.names = {Path("/etc/xen/web.cfg"): "web"}
        self.refuses = ""
        self.units: list[str] = []
        self.asked: list[str] = []

    async def domain_config(self, name: str) -> Mapping[str, Any]:
        self.asked.append("config")
        if self.refuses:
            raise ToolstackError(("xl", "list", "-l"), 1, self.refuses)
        return self.config

    async def clear_ended(self, name: str, domid: int) -> None:
        self.asked.append(f"clear {name} {domid}")
        self.domain = None

    async def file_config(self, file: Path) -> Mapping[str, Any]:
        if file not in self.names:
            raise ToolstackError(("xl", "create", str(file)), 3, f"no {file}")
        return {"c_info": {"name": self.names[file]}}

    def create_argv(self, file: Path, uuid: str = "") -> Sequence[str]:
        return ("xl", "create", str(file), uuid)

    async def run(
        self, argv: Sequence[str], *, unit: str, env: Mapping[str, str], timeout_s: float
    ) -> None:
        self.asked.append(" ".join(argv))
        self.units.append(unit)
        await asyncio.sleep(0)
        if self.refuses:
            raise ToolstackError(tuple(argv), 1, self.refuses)
        self.domain = RUNNING


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(ended, "time", found)
    return found


@pytest.fixture
def xen() -> Xen:
    return Xen()


@pytest.fixture
def parts(xen: Xen, clock: Clock) -> Parts:
    limits = limits_with(guest_configs=Path("/etc/xen"), guest_end_wait_s=10.0)
    return parts_with(toolstack=xen, launcher=xen, limits=limits, session_env={})


@pytest.fixture
def ends(parts: Parts) -> GuestEnds:
    return GuestEnds(parts)


async def look_later(ends: GuestEnds, clock: Clock, domain: Domain) -> ended.End:
    """Look at a domain when its end was first seen, and again when xl has had its time."""
    assert (await ends.look(JOURNAL, domain)).ended is Ended.SOON
    clock.now += 10.0
    return await ends.look(JOURNAL, domain)


async def test_xl_is_given_time_before_anything_is_done(
    ends: GuestEnds, xen: Xen, clock: Clock
) -> None:
    for _ in range(10):
        found = await ends.look(JOURNAL, DOWN)
        assert (found.ended, found.trouble) == (Ended.SOON, "it rebooted")
        clock.now += 0.99
    assert xen.asked == []
    clock.now += 0.2
    assert (await ends.look(JOURNAL, DOWN)).ended is Ended.RESTART


async def test_the_time_begins_anew_with_each_domain(ends: GuestEnds, clock: Clock) -> None:
    await look_later(ends, clock, DOWN)
    assert (await ends.look(JOURNAL, replace(DOWN, domid=9))).ended is Ended.SOON


async def test_and_with_one_that_was_seen_to_run_in_between(ends: GuestEnds, clock: Clock) -> None:
    await look_later(ends, clock, DOWN)
    assert (await ends.look(JOURNAL, replace(RUNNING, domid=7))) == ended.End()
    assert (await ends.look(JOURNAL, DOWN)).ended is Ended.SOON


@pytest.mark.parametrize(
    ("reason", "config", "wanted"),
    [
        ("reboot", {}, Ended.CLEAR),
        ("reboot", {"on_reboot": "restart"}, Ended.RESTART),
        ("reboot", {"on_reboot": "restart_rename"}, Ended.NOTHING),
        ("poweroff", {"on_reboot": "restart"}, Ended.CLEAR),
        ("poweroff", {"on_poweroff": "restart"}, Ended.RESTART),
        ("crash", {}, Ended.CLEAR),
        ("crash", {"on_crash": "restart"}, Ended.RESTART),
        ("crash", {"on_crash": "preserve"}, Ended.NOTHING),
        ("crash", {"on_crash": "coredump_restart"}, Ended.NOTHING),
        ("watchdog", {"on_crash": "preserve"}, Ended.CLEAR),
        ("watchdog", {"on_watchdog": "restart"}, Ended.RESTART),
        ("soft_reset", {"on_soft_reset": "soft_reset"}, Ended.NOTHING),
        ("soft_reset", {}, Ended.CLEAR),
    ],
)
async def test_what_its_configuration_says_is_done(
    ends: GuestEnds, xen: Xen, clock: Clock, reason: str, config: dict[str, Any], wanted: Ended
) -> None:
    xen.config = config
    """What libxl leaves out of its JSON is `destroy`: xl puts its other defaults in."""
    state = DomainState.CRASHED if reason in ("crash", "watchdog") else DomainState.SHUTDOWN
    found = await look_later(ends, clock, replace(DOWN, state=state, shutdown_reason=reason))
    assert found.ended is wanted
    if wanted is Ended.NOTHING:
        assert f"= {next(iter(config.values()))}" in found.trouble


@pytest.mark.parametrize(
    ("names", "words"),
    [({}, "no /etc/xen/web.cfg"), ({Path("/etc/xen/web.cfg"): "other"}, "it is of 'other'")],
)
async def test_a_guest_is_not_cleared_away_that_could_not_be_started(
    ends: GuestEnds, xen: Xen, clock: Clock, names: dict[Path, str], words: str
) -> None:
    xen.names = names
    found = await look_later(ends, clock, DOWN)
    assert found.ended is Ended.NOTHING
    assert "not started again" in found.trouble
    assert words in found.trouble
    xen.names = {Path("/etc/xen/web.cfg"): "web"}
    clock.now += 5.0
    assert (await ends.look(JOURNAL, DOWN)).ended is Ended.RESTART


async def test_xl_that_does_not_answer_is_asked_again_but_not_with_each_look(
    ends: GuestEnds, xen: Xen, clock: Clock
) -> None:
    xen.refuses = "busy"
    found = await look_later(ends, clock, DOWN)
    assert found.ended is Ended.NOTHING
    assert "busy" in found.trouble
    for _ in range(20):
        await ends.look(JOURNAL, DOWN)
    assert xen.asked == ["config"]


async def test_an_end_of_an_unknown_kind_is_left_to_a_person(
    ends: GuestEnds, xen: Xen, clock: Clock
) -> None:
    found = await look_later(ends, clock, replace(DOWN, shutdown_reason=""))
    assert found.ended is Ended.NOTHING
    assert "does not name" in found.trouble
    assert xen.asked == []


async def test_the_very_domain_that_was_seen_to_have_ended_is_cleared_away(
    ends: GuestEnds, xen: Xen, clock: Clock
) -> None:
    await look_later(ends, clock, DOWN)
    await ends.clear(WEB)
    assert xen.asked == ["config", "clear web 7"]


async def start(ends: GuestEnds, keeps_uuid: str = "") -> None:
    """Begin a start, and wait until it is over."""
    ends.start(WEB, keeps_uuid)
    assert (await ends.look(RESTARTING, None)).start_due is False
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_guest_is_started_from_its_file_and_keeps_its_uuid(
    ends: GuestEnds, xen: Xen, clock: Clock
) -> None:
    kept = (await look_later(ends, clock, DOWN)).uuid
    await ends.clear(WEB)
    assert (await ends.look(RESTARTING, None)).start_due is False
    clock.now += 2.0
    assert (await ends.look(RESTARTING, None)).start_due is True
    await start(ends, kept)
    assert xen.asked[-1] == f"xl create /etc/xen/web.cfg {UUID}"


@pytest.mark.parametrize("said", [{}, {"c_info": "what"}, {"c_info": {"uuid": "rm -rf"}}])
async def test_a_uuid_that_is_none_is_not_given(
    ends: GuestEnds, xen: Xen, clock: Clock, said: dict[str, Any]
) -> None:
    xen.config = {"on_reboot": "restart", **said}
    assert (await look_later(ends, clock, DOWN)).uuid == ""
    await start(ends)
    assert xen.asked[-1] == "xl create /etc/xen/web.cfg "


async def test_a_start_that_failed_is_tried_again_after_a_while_and_says_why(
    ends: GuestEnds, xen: Xen, clock: Clock
) -> None:
    xen.domain, xen.refuses = None, "no memory"
    await start(ends)
    found = await ends.look(RESTARTING, None)
    assert found.start_due is False
    assert "no memory" in found.trouble
    assert (await ends.look(JOURNAL, None)).trouble == ""
    clock.now += 30.0
    assert (await ends.look(RESTARTING, None)).start_due is True
    xen.refuses = ""
    await start(ends)
    assert (await ends.look(RESTARTING, None)).trouble == ""
    assert len(set(xen.units)) == 2


async def test_nothing_is_started_while_operators_have_paused_colod(
    ends: GuestEnds, parts: Parts
) -> None:
    assert (await ends.look(RESTARTING, None)).start_due is True
    cast("Any", parts.automation).is_paused = True
    assert (await ends.look(RESTARTING, None)).start_due is False


async def test_a_file_that_became_another_guests_is_not_started(ends: GuestEnds, xen: Xen) -> None:
    xen.domain, xen.names = None, {Path("/etc/xen/web.cfg"): "other"}
    await start(ends)
    assert "it is of 'other'" in (await ends.look(RESTARTING, None)).trouble
    assert xen.asked == []


async def test_a_guest_that_reboots_while_colod_is_paused_is_left_as_it_is(
    ends: GuestEnds, parts: Parts, clock: Clock
) -> None:
    automation = cast("Any", parts.automation)
    automation.is_paused = True
    found = await look_later(ends, clock, DOWN)
    assert found.ended is Ended.NOTHING
    assert "colodctl unpause" in found.trouble
    automation.is_paused = False
    clock.now += 5.0
    assert (await ends.look(JOURNAL, DOWN)).ended is Ended.RESTART


async def test_one_that_was_cleared_away_by_then_is_said_to_wait_for_the_end_of_the_pause(
    ends: GuestEnds, parts: Parts
) -> None:
    cast("Any", parts.automation).is_paused = True
    assert "colodctl unpause" in (await ends.look(RESTARTING, None)).trouble
    assert (await ends.look(JOURNAL, None)).trouble == ""


@pytest.mark.parametrize(
    ("reason", "is_so"), [("reboot", True), ("poweroff", True), ("crash", False), ("", False)]
)
async def test_only_an_end_that_the_guest_asked_for_shows_that_it_ran(
    ends: GuestEnds, clock: Clock, reason: str, *, is_so: bool
) -> None:
    domain = replace(DOWN, shutdown_reason=reason)
    assert (await ends.look(JOURNAL, domain)).by_itself is is_so
    assert (await look_later(ends, clock, domain)).by_itself is is_so


async def test_a_defect_of_a_start_is_told_of(ends: GuestEnds, xen: Xen) -> None:
    async def run(*_: object, **__: object) -> None:
        raise OSError("no file is left")

    cast("Any", xen).run = run
    await start(ends)
    assert "no file is left" in (await ends.look(RESTARTING, None)).trouble
