"""The toolstack verifies what its commands did, by what xl lists afterwards.

`FakeXl` answers with the statuses and the words of real xl 4.17.5: `pause` and `unpause` exit with
0 even when libxl failed, pauses are counted, an unknown name exits with 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from colod.errors import DomainNotFound, ToolstackError
from colod.model import GuestName
from colod.toolstack import process
from colod.toolstack.command import Completed
from colod.toolstack.port import DomainState, ProcessRef
from colod.toolstack.xl import Limits, XlToolstack

GUEST = GuestName("guest")
HEADER = "Name                                        ID   Mem VCPUs\tState\tTime(s)"
INFO = """host                   : alpha
machine                : x86_64
hw_caps                : 0783fbff:80802001:20100800:00000001:00000004:00000000:00000000:00000000
free_memory            : 1000
xen_extra              : .5
xen_version            : 4.17.5
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32
xen_commandline        : placeholder dom0_mem=1024M,max:1024M com1=115200,8n1
"""


@dataclass
class FakeDomain:
    """A domain with Xen's counted pauses."""

    domid: int
    pauses: int = 0
    suspended: bool = False
    letters: str = "-b----"
    cpu_time_s: float = 1.0
    dying: bool = False
    uuid: str = "11111111-2222-3333-4444-555555555555"

    @property
    def state(self) -> str:
        if self.dying:
            return "--ps-d"
        paused = "p" if self.pauses else "-"
        ending = "ss" if self.suspended else "--"
        return f"{'--' if self.pauses or self.suspended else self.letters[:2]}{paused}{ending}-"


@dataclass
class FakeXl:
    """Takes the place of `CommandRunner`, and of xl behind it."""

    domains: dict[str, FakeDomain] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    ran: list[tuple[str, ...]] = field(default_factory=list)
    special: dict[str, Callable[[str], tuple[int, str, str] | None]] = field(default_factory=dict)

    async def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        assert timeout_s > 0
        self.ran.append(tuple(argv))
        status, stdout, stderr = self.answer(*argv[1:])
        return Completed(tuple(argv), status, stdout, stderr)

    def answer(self, verb: str, *rest: str) -> tuple[int, str, str]:
        wanted = rest[0] if rest else ""
        if verb in self.special and (special := self.special[verb](wanted)):
            return special
        if verb == "list" and not rest:
            return 0, self.listing(), ""
        if verb == "list" and rest == ("-v",):
            return 0, self.listing(with_uuids=True), ""
        if verb == "info":
            return 0, INFO, ""
        found = self.find(wanted)
        if not found:
            return 1, "", f"{wanted} is an invalid domain identifier (rc=-6)"
        return self.change(verb, *found, new_name=rest[-1])

    def find(self, wanted: str) -> tuple[str, FakeDomain] | None:
        for name, domain in self.domains.items():
            if wanted == (str(domain.domid) if wanted.isdecimal() else name):
                return name, domain
        return None

    def change(
        self, verb: str, name: str, domain: FakeDomain, *, new_name: str
    ) -> tuple[int, str, str]:
        if verb == "pause":
            domain.pauses += 1
        elif verb == "unpause":
            if not domain.pauses:
                text = f"domain_unpause_done: Domain {domain.domid}:Unpausing domain"
                return 0, "", f"libxl: error: libxl_domain.c:688:{text}: Invalid argument"
            domain.pauses -= 1
        elif verb == "destroy":
            del self.domains[name]
        elif verb == "resume":
            domain.suspended = False
        elif verb == "rename":
            self.domains[new_name] = self.domains.pop(name)
        return 0, "", ""

    def listing(self, *, with_uuids: bool = False) -> str:
        rows = (
            f"{name:<40} {each.domid:5d} {88:5d} {1:5d}     {each.state}  {each.cpu_time_s:8.1f}"
            + (f" {each.uuid} {'-':>8} {'-':>16}" if with_uuids else "")
            for name, each in self.domains.items()
        )
        return "\n".join((HEADER, *rows)) + "\n"

    def verbs(self) -> list[str]:
        return [argv[1] for argv in self.ran if argv[1] != "list"]


def toolstack(xl: FakeXl, *, xl_conf: Path = Path("/nonexistent")) -> XlToolstack:
    limits = Limits(query_s=1, change_s=1, destroy_s=0.1, running_s=0.1)
    resume = ("python3", "libxl_resume")
    return XlToolstack(runner=xl, limits=limits, resume_argv=resume, xl_conf=xl_conf)


def with_guest(name: str = "guest", **state: Any) -> FakeXl:
    return FakeXl({name: FakeDomain(7, **state)})


DRILL = "99999999-2222-3333-4444-555555555555"


def restored(xl: FakeXl, *, pauses: int) -> tuple[int, str, str]:
    xl.domains["guest--drill"] = FakeDomain(9, pauses=pauses, uuid=DRILL)
    return 0, "", ""


async def test_a_pause_is_counted_and_verified() -> None:
    xl = with_guest()
    await toolstack(xl).pause("guest")
    await toolstack(xl).pause("guest")
    assert xl.domains["guest"].pauses == 2


async def test_a_pause_that_xl_only_claims_is_an_error() -> None:
    xl = with_guest()
    xl.special["pause"] = lambda _: (0, "", "")
    with pytest.raises(ToolstackError, match="not paused"):
        await toolstack(xl).pause("guest")


async def test_a_pause_that_libxl_refused_is_an_error_even_if_the_domain_is_paused() -> None:
    xl = with_guest(pauses=1)
    words = "libxl: error: libxl_domain.c:587:libxl_domain_pause: Domain 7:Pausing domain: No such"
    xl.special["pause"] = lambda _: (0, "", words)
    with pytest.raises(ToolstackError, match="Pausing domain"):
        await toolstack(xl).pause("guest")


async def test_dropping_a_reference_that_nobody_holds_is_an_error() -> None:
    with pytest.raises(ToolstackError, match="Invalid argument"):
        await toolstack(with_guest()).unpause("guest")


@pytest.mark.parametrize("verb", ["pause", "unpause", "resume", "destroy", "domain_config"])
async def test_an_unknown_name_is_told_from_a_failure(verb: str) -> None:
    with pytest.raises(DomainNotFound):
        await getattr(toolstack(FakeXl()), verb)("guest")


async def test_a_name_of_digits_never_reaches_another_domain() -> None:
    xl = FakeXl({"7": FakeDomain(3), "guest": FakeDomain(7)})
    await toolstack(xl).pause("7")
    assert (xl.domains["7"].pauses, xl.domains["guest"].pauses) == (1, 0)
    with pytest.raises(ValueError, match="digits"):
        toolstack(xl).pause_argv("7")
    with pytest.raises(ValueError, match="digits"):
        toolstack(xl).remus_argv(GuestName("7"), interval_ms=200, command="exec x")


async def test_destruction_is_verified() -> None:
    xl = with_guest()
    await toolstack(xl).destroy("guest")
    assert not xl.domains


async def test_a_domain_that_stays_listed_without_a_name_is_not_gone() -> None:
    xl = with_guest()

    def keep(_: str) -> tuple[int, str, str]:
        xl.domains["(null)"] = xl.domains.pop("guest")
        return 0, "", ""

    xl.special["destroy"] = keep
    with pytest.raises(ToolstackError, match="domain 7 is still there as"):
        await toolstack(xl).destroy("guest")


@pytest.mark.parametrize("status", [0, 1])
async def test_a_dying_domain_is_destroyed_whoever_still_maps_its_memory(status: int) -> None:
    xl = with_guest()

    def die(_: str) -> tuple[int, str, str]:
        xl.domains["(null)"] = xl.domains.pop("guest")
        xl.domains["(null)"].dying = True
        return status, "", ""

    xl.special["destroy"] = die
    await toolstack(xl).destroy("guest")
    assert xl.domains["(null)"].dying


async def test_a_failed_destruction_is_reported() -> None:
    xl = with_guest()
    xl.special["destroy"] = lambda _: (1, "", "destroy failed (rc=-3)")
    with pytest.raises(ToolstackError, match="destroy failed"):
        await toolstack(xl).destroy("guest")


async def test_a_renaming_is_verified() -> None:
    xl = with_guest(pauses=1)
    await toolstack(xl).rename("guest", "guest-old")
    assert xl.domains["guest-old"].pauses == 1
    xl.special["rename"] = lambda _: (0, "", "")
    with pytest.raises(ToolstackError, match="is not named guest"):
        await toolstack(xl).rename("guest-old", "guest")


async def test_discarding_never_destroys_the_guest_under_its_own_name() -> None:
    xl = FakeXl({"guest": FakeDomain(3), "guest--incoming": FakeDomain(4, pauses=2)})
    done = await toolstack(xl).discard_replica(GUEST, None)
    assert done.destroyed == ("guest--incoming",)
    assert list(xl.domains) == ["guest"]


async def test_a_copy_that_xl_renames_meanwhile_is_left_alone_and_not_claimed() -> None:
    xl = with_guest("guest--incoming", pauses=2)

    def rename(_: str) -> tuple[int, str, str]:
        xl.domains["guest"] = xl.domains.pop("guest--incoming")
        return 1, "", "guest--incoming is an invalid domain identifier (rc=-6)"

    xl.special["destroy"] = rename
    with pytest.raises(ToolstackError):
        await toolstack(xl).discard_replica(GUEST, None)
    assert xl.domains["guest"].pauses == 2


async def test_a_restored_copy_is_left_paused_and_found_by_its_name(tmp_path: Path) -> None:
    xl = with_guest()
    xl.special["restore"] = lambda _: restored(xl, pauses=1)
    domain = await toolstack(xl).restore_paused(tmp_path / "image", "guest--drill", timeout_s=1)
    assert domain.domid == 9
    assert xl.ran[0] == ("xl", "restore", "-p", "-e", str(tmp_path / "image"))


async def test_a_restored_copy_that_runs_already_is_an_error(tmp_path: Path) -> None:
    xl = with_guest()
    xl.special["restore"] = lambda _: restored(xl, pauses=0)
    with pytest.raises(ToolstackError, match="is not paused"):
        await toolstack(xl).restore_paused(tmp_path / "image", "guest--drill", timeout_s=1)


async def test_a_restore_that_makes_no_domain_of_that_name_is_an_error(tmp_path: Path) -> None:
    xl = with_guest()
    xl.special["restore"] = lambda _: (0, "", "")
    with pytest.raises(DomainNotFound):
        await toolstack(xl).restore_paused(tmp_path / "image", "guest--drill", timeout_s=1)


async def test_discarding_a_restored_copy_touches_nothing_else(tmp_path: Path) -> None:
    xl = with_guest()
    restored(xl, pauses=0)
    done = await toolstack(xl).discard_restored(tmp_path / "image", DRILL)
    assert done.destroyed == ("guest--drill",)
    assert list(xl.domains) == ["guest"]
    done = await toolstack(xl).discard_restored(tmp_path / "image", DRILL)
    assert done.destroyed == ()


async def test_a_domain_that_only_has_the_name_of_a_restored_copy_is_not_destroyed(
    tmp_path: Path,
) -> None:
    xl = with_guest()
    restored(xl, pauses=0)
    xl.domains["guest--drill"].uuid = "88888888-2222-3333-4444-555555555555"
    for uuid in (DRILL, ""):
        done = await toolstack(xl).discard_restored(tmp_path / "image", uuid)
        assert done.destroyed == ()
    assert list(xl.domains) == ["guest", "guest--drill"]


async def test_a_restored_copy_is_destroyed_by_whatever_name_and_once(tmp_path: Path) -> None:
    xl = with_guest()
    restored(xl, pauses=0)
    xl.domains["(null)"] = xl.domains.pop("guest--drill")
    done = await toolstack(xl).discard_restored(tmp_path / "image", DRILL)
    assert done.destroyed == ("(null)",)
    xl.domains["(null)"] = FakeDomain(10, dying=True, uuid=DRILL)
    done = await toolstack(xl).discard_restored(tmp_path / "image", DRILL)
    assert done.destroyed == ()


async def test_discarding_what_is_not_there_does_nothing() -> None:
    done = await toolstack(with_guest()).discard_replica(GUEST, ProcessRef(pid=1, start_ticks=-1))
    assert (done.killed, done.destroyed) == ((), ())


async def test_a_takeover_is_awaited_until_the_copy_has_its_name() -> None:
    xl = with_guest("guest--incoming", pauses=2)
    listings = iter(range(100))

    def rename(_: str) -> None:
        if next(listings) == 2:
            xl.domains["guest"] = xl.domains.pop("guest--incoming")

    xl.special["list"] = rename
    domain = await toolstack(xl).await_takeover(GUEST, timeout_s=30)
    assert (domain.name, domain.paused) == ("guest", True)


async def test_a_takeover_waits_for_xl_to_end_where_it_is_known() -> None:
    me = process.process_ref(os.getpid())
    with pytest.raises(ToolstackError, match="not let"):
        await toolstack(with_guest(pauses=2)).await_takeover(GUEST, timeout_s=0.05, receiver=me)


async def test_a_takeover_that_destroyed_the_copy_is_an_error() -> None:
    with pytest.raises(ToolstackError, match="destroyed the copy"):
        await toolstack(FakeXl()).await_takeover(GUEST, timeout_s=30)


async def test_a_takeover_that_does_not_end_is_unknown() -> None:
    with pytest.raises(ToolstackError) as caught:
        await toolstack(with_guest("guest--incoming")).await_takeover(GUEST, timeout_s=0.05)
    assert caught.value.status is None


async def test_a_takeover_that_left_the_copy_running_is_an_error() -> None:
    with pytest.raises(ToolstackError, match="not paused"):
        await toolstack(with_guest()).await_takeover(GUEST, timeout_s=30)


async def test_promotion_drops_exactly_the_references_that_are_held() -> None:
    xl = with_guest(pauses=3)
    domain = await toolstack(xl).run_promoted(GUEST)
    assert domain.state is DomainState.RUNNING
    assert xl.verbs() == ["unpause"] * 3


async def test_promotion_stands_xl_dropping_its_own_reference_meanwhile() -> None:
    xl = with_guest(pauses=2)

    def drop_both(_: str) -> tuple[int, str, str]:
        xl.domains["guest"].pauses = 0
        return 0, "", "libxl: error: libxl_domain.c:688:domain_unpause_done: Invalid argument"

    xl.special["unpause"] = drop_both
    assert not (await toolstack(xl).run_promoted(GUEST)).paused


async def test_promotion_of_a_running_domain_changes_nothing() -> None:
    xl = with_guest()
    await toolstack(xl).run_promoted(GUEST)
    assert xl.verbs() == []


@pytest.mark.parametrize(
    "state",
    [
        {"pauses": 9},
        {"suspended": True},
        {"letters": "------"},
        {"pauses": 1, "suspended": True},
    ],
)
async def test_a_copy_that_was_not_seen_to_run_is_no_success(state: dict[str, Any]) -> None:
    with pytest.raises(ToolstackError, match="does not run"):
        await toolstack(with_guest(**state)).run_promoted(GUEST)


async def test_processor_time_shows_that_a_waiting_domain_ran() -> None:
    xl = with_guest(letters="------", cpu_time_s=1.0)

    def work(_: str) -> None:
        xl.domains["guest"].cpu_time_s += 0.1

    xl.special["list"] = work
    assert (await toolstack(xl).run_promoted(GUEST)).cpu_time_s > 1.1


async def test_processor_time_of_a_copy_that_is_suspended_again_is_no_success() -> None:
    xl = with_guest(letters="------", cpu_time_s=1.0)

    def end(_: str) -> None:
        xl.domains["guest"].cpu_time_s += 0.1
        xl.domains["guest"].suspended = True

    xl.special["list"] = end
    with pytest.raises(ToolstackError, match="does not run"):
        await toolstack(xl).run_promoted(GUEST)


async def test_resume_uses_xl_where_it_can() -> None:
    xl = with_guest(suspended=True)
    await toolstack(xl).resume("guest")
    assert ("xl", "resume", "7") in xl.ran
    assert not xl.domains["guest"].suspended


async def test_resume_goes_through_libxl_where_xl_cannot() -> None:
    xl = with_guest(suspended=True, pauses=1)
    xl.special["resume"] = lambda _: (1, "", "command not implemented")

    def libxl(_: str) -> tuple[int, str, str]:
        xl.domains["guest"].suspended = False
        return 0, "", ""

    xl.special["libxl_resume"] = libxl
    await toolstack(xl).resume("guest")
    assert ("python3", "libxl_resume", "7") in xl.ran
    assert xl.domains["guest"].pauses == 1


async def test_a_resume_that_changes_nothing_is_an_error() -> None:
    xl = with_guest(suspended=True)
    xl.special["resume"] = lambda _: (0, "", "")
    with pytest.raises(ToolstackError, match="stays suspended"):
        await toolstack(xl).resume("guest")


async def test_a_domain_that_is_not_suspended_is_not_resumed() -> None:
    xl = with_guest(pauses=1)
    await toolstack(xl).resume("guest")
    assert xl.verbs() == []


async def test_the_hosts_facts_are_read(tmp_path: Path) -> None:
    facts = await toolstack(FakeXl()).host_facts()
    assert (facts.xen_version, facts.machine, facts.simulated) == ("4.17.5", "x86_64", False)
    assert facts.free_memory_bytes == 1000 << 20
    assert facts.cpu_features[0] == "0783fbff"
    assert not facts.autoballoon
    conf = tmp_path / "xl.conf"
    conf.write_text('autoballoon="on"\n', encoding="utf-8")
    assert (await toolstack(FakeXl(), xl_conf=conf).host_facts()).autoballoon


@pytest.mark.parametrize("text", ["", "machine : x86_64\n", "garbage", "free_memory : much\n"])
async def test_facts_that_cannot_be_read_are_an_error(text: str) -> None:
    xl = FakeXl()
    xl.special["info"] = lambda _: (0, text, "")
    with pytest.raises(ToolstackError, match="unreadable"):
        await toolstack(xl).host_facts()


async def test_a_listing_that_cannot_be_read_is_not_an_empty_one() -> None:
    xl = FakeXl()
    xl.special["list"] = lambda _: (0, "", "")
    with pytest.raises(ToolstackError, match="heading"):
        await toolstack(xl).find("guest")
    xl.special["list"] = lambda _: (1, "", "libxl_list_domain failed.")
    with pytest.raises(ToolstackError, match="libxl_list_domain failed"):
        await toolstack(xl).find("guest")


async def test_a_guest_without_interfaces_is_told_from_a_failing_xenstore() -> None:
    xl = FakeXl()
    absent = "xenstore-ls: xs_directory (/libxl/7/device/vif): No such file or directory"
    xl.special["ls"] = lambda _: (1, "", absent)
    assert await toolstack(xl).vifs(7) == ()
    xl.special["ls"] = lambda _: (1, "", "xenstore-ls: xs_open: Permission denied")
    with pytest.raises(ToolstackError, match="Permission denied"):
        await toolstack(xl).vifs(7)


def test_the_sessions_commands_are_xls_own() -> None:
    port = XlToolstack(("sim", "xl"), runner=FakeXl())
    options = ("-F", "-n", "-d", "-i", "50", "-s", "")
    remus = port.remus_argv(GUEST, interval_ms=50, command="exec x")
    assert remus == ("sim", "xl", "remus", *options, "guest", "exec x")
    assert port.receive_argv() == ("sim", "xl", "migrate-receive", "-r")
    assert port.pause_argv("guest--incoming") == ("sim", "xl", "pause", "guest--incoming")
    assert port.exists_argv("guest") == ("sim", "xl", "domid", "guest")
