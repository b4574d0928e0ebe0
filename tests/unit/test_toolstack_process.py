"""Processes are told apart by number and start time, and found by what they do."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colod.errors import ToolstackError
from colod.toolstack import discard, process
from colod.toolstack.port import ProcessRef

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, **env: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **env}
        started.append(subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()
        if each.stdout:
            each.stdout.close()


def ref_of(child: subprocess.Popen[bytes]) -> ProcessRef:
    ref = process.process_ref(child.pid)
    assert ref is not None
    return ref


def looks_like(*words: str, child: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return a command whose command line ends in `words`; it starts `child` and waits."""
    code = (
        "import subprocess, sys, time\n"
        f"child = {child!r}\n"
        "pid = subprocess.Popen(child).pid if child else 0\n"
        "print(pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    return (sys.executable, "-c", code, *words)


def line_of(child: subprocess.Popen[bytes]) -> int:
    assert child.stdout
    return int(child.stdout.readline())


async def test_a_killed_process_is_seen_to_be_gone(start: Start) -> None:
    ref = ref_of(start("sleep", "600"))
    assert process.kill(ref)
    assert await process.wait_gone(ref, 30)
    assert process.process_ref(ref.pid) is None
    assert not process.kill(ref)


async def test_another_process_of_the_same_number_is_not_touched(start: Start) -> None:
    child = start("sleep", "600")
    stale = ProcessRef(pid=child.pid, start_ticks=ref_of(child).start_ticks - 1)
    assert not process.kill(stale)
    assert await process.wait_gone(stale, 30)
    assert child.poll() is None


async def test_waiting_for_a_living_process_ends_in_time(start: Start) -> None:
    assert not await process.wait_gone(ref_of(start("sleep", "600")), 0.05)


def test_a_number_that_no_process_has_is_gone() -> None:
    assert process.process_ref(2**22 + 1) is None
    assert not process.kill(ProcessRef(pid=2**22 + 1, start_ticks=1))
    assert not process.kill(ProcessRef(pid=2**70, start_ticks=1))


def test_a_name_with_brackets_and_blanks_does_not_confuse(start: Start, tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    child = start(str(odd), "600")
    (found,) = [each for each in process.processes() if each.ref.pid == child.pid]
    assert found.parent_pid == os.getpid()
    assert found.argv == (str(odd), "600")


def test_save_helpers_are_known_by_mode_and_domain() -> None:
    real = ("/usr/lib/xen-4.17/bin/libxl-save-helper", "--restore-domain", "11", "20", "7", "1")

    def found(*argv: str) -> list[tuple[int, bool]]:
        ref = ProcessRef(pid=5, start_ticks=9)
        helpers = process.save_helpers([process.Process(ref, 1, argv)])
        return [(each.domid, each.restores) for each in helpers]

    assert found(*real) == [(7, True)]
    assert found(real[0], "--save-domain", "15", "16", "3") == [(3, False)]
    assert found("python3", "-c", "x", "libxl-save-helper", *real[1:]) == [(7, True)]
    assert found(*real[:3]) == []
    assert found(real[0], "--restore-domain", "11", "20", "x") == []
    assert found(real[0]) == []
    assert found("sleep", "600") == []


async def test_xl_is_killed_before_its_helper_and_both_are_gone(start: Start) -> None:
    helper = looks_like("libxl-save-helper", "--restore-domain", "11", "20", "70001")
    parent = start(*looks_like("xl", "migrate-receive", "-r", child=helper))
    helper_pid = line_of(parent)
    helper_ref = process.process_ref(helper_pid)
    xl = ref_of(parent)
    killed = await discard.end_restore(xl, 70001, None)
    assert killed == (xl, helper_ref)
    assert process.process_ref(helper_pid) is None


async def test_an_unknown_xl_is_found_as_its_helpers_parent(start: Start) -> None:
    helper = looks_like("libxl-save-helper", "--restore-domain", "11", "20", "70002")
    parent = start(*looks_like("xl", "migrate-receive", "-r", child=helper))
    line_of(parent)
    killed = await discard.end_restore(None, 70002, None)
    assert killed[0].pid == parent.pid
    assert len(killed) == 2


async def test_a_helper_that_outlived_its_xl_is_killed_and_other_domains_are_not(
    start: Start,
) -> None:
    stray = start(*looks_like("libxl-save-helper", "--restore-domain", "11", "20", "70003"))
    other = start(*looks_like("libxl-save-helper", "--restore-domain", "11", "20", "70004"))
    line_of(stray), line_of(other)
    assert await discard.end_restore(None, 70003, None) == (ref_or_none(stray),)
    assert other.poll() is None


def ref_or_none(child: subprocess.Popen[bytes]) -> ProcessRef:
    """Return the reference of a process that may have ended, but is not reaped yet."""
    text = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii")
    return ProcessRef(pid=child.pid, start_ticks=int(text.rpartition(")")[2].split()[19]))


async def test_processes_of_another_simulated_host_are_left_alone(start: Start) -> None:
    argv = looks_like("libxl-save-helper", "--restore-domain", "11", "20", "70005")
    theirs = start(*argv, COLOD_SIMXEN_DIR="/somewhere/else")
    line_of(theirs)
    assert await discard.end_restore(None, 70005, None) == ()
    assert await discard.end_restore(None, 70005, "/here") == ()
    assert len(await discard.end_restore(None, 70005, "/somewhere/else")) == 1


async def test_a_stray_saver_is_ended_but_not_one_whose_xl_lives(start: Start) -> None:
    saver = looks_like("libxl-save-helper", "--save-domain", "15", "16", "70006")
    parent = start(*looks_like("xl", "remus", "guest", child=saver))
    helper_pid = line_of(parent)
    with pytest.raises(ToolstackError, match="still saves 70006"):
        await discard.end_stray_savers(70006, None)
    parent.send_signal(signal.SIGKILL)
    await asyncio.to_thread(parent.wait)
    (killed,) = await discard.end_stray_savers(70006, None)
    assert killed.pid == helper_pid


def test_only_processes_of_ones_own_and_of_root_can_be_an_xl(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can give a process the command line of an xl."""
    child = start(*looks_like("remus"))
    mine = os.geteuid()
    assert child.pid in {each.ref.pid for each in process.processes()}
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    seen = child.pid in {each.ref.pid for each in process.processes()}
    assert seen is (mine == 0)


@pytest.mark.parametrize("name", ["a\\x0bUid:\\t0", "\\x0cUid:", "\\x1dUid:\\tx", "\\nUid:\\t0"])
def test_a_name_that_looks_like_a_line_of_its_status_deceives_nobody(
    start: Start, name: str
) -> None:
    """PR_SET_NAME (15) takes any bytes, from anybody; the kernel escapes the newline only."""
    code = (
        "import ctypes, time; "
        f"ctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0); print(0, flush=True); time.sleep(600)"
    )
    child = start(sys.executable, "-c", code, "xl", "migrate-receive")
    assert line_of(child) == 0
    assert child.pid in {each.ref.pid for each in process.processes()}


@pytest.mark.skipif(os.geteuid() != 0, reason="a set-uid program is posed by root")
def test_a_set_uid_program_of_somebody_else_cannot_pose_as_an_xl(start: Start) -> None:
    code = "import os, time; os.setresuid(65534, 0, 0); print(0, flush=True); time.sleep(600)"
    child = start(sys.executable, "-c", code, "xl", "migrate-receive")
    assert line_of(child) == 0
    assert Path(f"/proc/{child.pid}").stat().st_uid == 0
    assert child.pid not in {each.ref.pid for each in process.processes()}
