"""What is launched lives on without its launcher."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from colod.errors import ToolstackError
from colod.toolstack import process
from colod.toolstack.launch import ForkLauncher, SystemdLauncher, launcher
from colod.toolstack.port import ProcessRef
from tests.integration.simxen_hosts import until

PATH = os.environ["PATH"]
UNIT = "colod-session-guest-send-0123abcd"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


async def line_in(path: Path) -> str:
    for _ in range(3000):
        if (text := read(path)).endswith("\n"):
            return text.strip()
        await asyncio.sleep(0.01)
    raise AssertionError(f"{path} has no line")


async def ref_in(path: Path) -> ProcessRef:
    ref = process.process_ref(int(await line_in(path)))
    assert ref is not None
    return ref


def parent_of(ref: ProcessRef) -> int:
    (found,) = [each for each in process.processes() if each.ref == ref]
    return found.parent_pid


async def test_a_forked_command_is_nobodys_child_here_and_leads_its_own_session(
    tmp_path: Path,
) -> None:
    pid = tmp_path / "pid"
    argv = ("sh", "-c", f"echo $$ > {pid}; exec sleep 600")
    await ForkLauncher().launch(argv, unit=UNIT, log=tmp_path / "log", env={"PATH": PATH})
    ref = await ref_in(pid)
    try:
        assert parent_of(ref) != os.getpid()
        assert os.getsid(ref.pid) == ref.pid
    finally:
        assert process.kill(ref)
    # Whoever inherited it reaps it; here it could only stay as a zombie.
    assert await process.wait_gone(ref, 30)


async def test_a_forked_command_gets_its_environment_log_and_no_input(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before ", encoding="utf-8")
    argv = ("sh", "-c", 'cat; echo "$COLOD_X,$HOME,$1" >&2', "sh", "$HOME; a b")
    env = {"PATH": PATH, "COLOD_X": "1"}
    await ForkLauncher().launch(argv, unit=UNIT, log=log, env=env)
    assert await line_in(log) == "before 1,,$HOME; a b"


async def test_a_command_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ToolstackError, match="FileNotFoundError"):
        await ForkLauncher().launch(
            ("/nonexistent/x",), unit=UNIT, log=tmp_path / "log", env={"PATH": PATH}
        )


async def test_a_forked_command_survives_the_sigkill_of_its_launcher(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import asyncio, os, pathlib, time\n"
        "from colod.toolstack.launch import ForkLauncher\n"
        f"argv = ('sh', '-c', 'echo $$ > {pid}; exec sleep 600')\n"
        "asyncio.run(ForkLauncher().launch(\n"
        f"    argv, unit={UNIT!r}, log=pathlib.Path({str(tmp_path / 'log')!r}),\n"
        "    env={'PATH': os.environ['PATH']}))\n"
        "time.sleep(600)\n"
    )
    argv = (sys.executable, "-c", code)
    daemon = await asyncio.to_thread(subprocess.Popen, argv, start_new_session=True)
    ref = await ref_in(pid)
    os.killpg(daemon.pid, signal.SIGKILL)
    await asyncio.to_thread(daemon.wait)
    assert process.start_ticks(ref.pid) == ref.start_ticks
    assert process.kill(ref)


def test_a_systemd_unit_is_asked_for_that_no_other_unit_takes_along(tmp_path: Path) -> None:
    argv = SystemdLauncher().argv(
        ("xl", "remus", "a b", "exec $X"),
        unit=UNIT,
        log=tmp_path / "log",
        env={"PATH": "/bin", "COLOD_SIMXEN_DIR": "/a b"},
    )
    own = argv[: argv.index("--")]
    assert own[0] == "systemd-run"
    assert f"--unit={UNIT}" in own
    assert "--collect" in own
    assert {"--property=KillMode=process", "--property=OOMPolicy=continue"} <= set(own)
    assert f"--property=StandardError=append:{tmp_path / 'log'}" in own
    assert {"--setenv=PATH=/bin", "--setenv=COLOD_SIMXEN_DIR=/a b"} <= set(own)
    # The unit belongs to no other one: nothing that stops colod.service stops it.
    assert not any("PartOf" in each or "BindsTo" in each or each == "--scope" for each in own)
    assert tuple(argv[len(own) + 1 :]) == ("xl", "remus", "a b", "exec $$X")


async def test_a_command_is_run_to_its_end_and_what_it_leaves_goes_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    argv = ("sh", "-c", f"setsid sleep 600 >{os.devnull} 2>&1 & echo $! > {pid}")
    await ForkLauncher().run(argv, unit=UNIT, env={"PATH": PATH}, timeout_s=60)
    ref = await ref_in(pid)
    assert process.kill(ref)


async def test_a_command_goes_on_though_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    """A daemon that is stopped leaves no domain behind that is half made."""
    began, go, done = tmp_path / "began", tmp_path / "go", tmp_path / "done"
    script = f"touch {began}; until [ -e {go} ]; do sleep 0.05; done; touch {done}"
    running = ForkLauncher().run(("sh", "-c", script), unit=UNIT, env={"PATH": PATH}, timeout_s=60)
    task = asyncio.create_task(running)
    await asyncio.to_thread(until, began.exists, "it begins")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.touch()
    await asyncio.to_thread(until, done.exists, "it ends")


async def test_a_command_that_fails_is_an_error_with_its_words() -> None:
    argv = ("sh", "-c", "echo no memory >&2; exit 3")
    with pytest.raises(ToolstackError, match="no memory") as caught:
        await ForkLauncher().run(argv, unit=UNIT, env={"PATH": PATH}, timeout_s=60)
    assert caught.value.status == 3


async def test_systemd_is_asked_to_wait_outside_the_daemons_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `systemd-run --wait` is given, shown by a program of its name."""
    said = tmp_path / "said"
    fake = tmp_path / "systemd-run"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\necho "no memory" >&2\nexit 4\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{PATH}")
    argv = ("xl", "create", "/etc/xen/a.cfg")
    with pytest.raises(ToolstackError, match="no memory"):
        await SystemdLauncher().run(argv, unit=UNIT, env={"PATH": "/bin"}, timeout_s=60)
    words = said.read_text().splitlines()
    own = words[: words.index("--")]
    assert {"--wait", "--pipe", "--collect", f"--unit={UNIT}", "--setenv=PATH=/bin"} <= set(own)
    assert {"--property=KillMode=process", "--property=RuntimeMaxSec=60"} <= set(own)
    assert tuple(words[len(own) + 1 :]) == argv


@pytest.mark.parametrize("unit", ["", "a b", "a/b", "x" * 241, "a\n"])
async def test_a_unit_name_that_systemd_refuses_is_refused(unit: str, tmp_path: Path) -> None:
    for kind in ("fork", "systemd"):
        with pytest.raises(ValueError, match="unit name"):
            await launcher(kind).launch(("true",), unit=unit, log=tmp_path / "log", env={})
        with pytest.raises(ValueError, match="unit name"):
            await launcher(kind).run(("true",), unit=unit, env={}, timeout_s=60)


def test_kinds_of_launcher() -> None:
    assert isinstance(launcher("fork"), ForkLauncher)
    assert isinstance(launcher("systemd"), SystemdLauncher)
    assert isinstance(launcher("auto"), ForkLauncher | SystemdLauncher)
    with pytest.raises(ValueError, match="want systemd, fork or auto"):
        launcher("docker")
