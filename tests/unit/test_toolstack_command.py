"""Commands are bounded in time and size, whatever they do."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.errors import ToolstackError
from colod.toolstack import command, process
from colod.toolstack.command import CommandRunner


@pytest.fixture
def runner() -> Iterator[CommandRunner]:
    runner = CommandRunner(workers=2)
    yield runner
    runner.close()


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tool"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


async def fails(runner: CommandRunner, *argv: str, timeout_s: float = 30) -> ToolstackError:
    with pytest.raises(ToolstackError) as caught:
        await runner.run(argv, timeout_s=timeout_s)
    return caught.value


async def is_gone(pid: int) -> bool:
    for _ in range(500):
        if process.start_ticks(pid) is None:
            return True
        await asyncio.sleep(0.01)
    return False


def read(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def pid_in(path: Path) -> int:
    for _ in range(3000):
        if (text := read(path)).endswith("\n"):
            return int(text)
        await asyncio.sleep(0.01)
    raise AssertionError(f"{path} was never written")


async def test_output_status_and_last_words_are_kept(runner: CommandRunner, tmp_path: Path) -> None:
    done = await runner.run((script(tmp_path, "echo out; echo err >&2; exit 3"),), timeout_s=30)
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(ToolstackError, match="exited with 3: err"):
        done.checked()


async def test_arguments_pass_no_shell_and_input_is_empty(
    runner: CommandRunner, tmp_path: Path
) -> None:
    tool = script(tmp_path, 'printf "%s|" "$@"; cat; echo "$LC_ALL"')
    done = await runner.run((tool, "a b", "$HOME", "; echo x"), timeout_s=30)
    assert done.stdout == "a b|$HOME|; echo x|C\n"


async def test_a_missing_program_is_an_error_of_the_toolstack(runner: CommandRunner) -> None:
    error = await fails(runner, "/nonexistent/xl", "list")
    assert error.status == command.CANNOT_START
    assert "could not be started" in error.stderr_tail


async def test_a_program_that_may_not_be_run_is_an_error_too(
    runner: CommandRunner, tmp_path: Path
) -> None:
    path = tmp_path / "tool"
    path.write_text("no program", encoding="utf-8")
    path.chmod(0o755)
    assert (await fails(runner, str(path))).status == command.CANNOT_START
    assert (await fails(runner, "xl", "a\0b")).status == command.CANNOT_START


async def test_death_by_a_signal_is_a_negative_status(
    runner: CommandRunner, tmp_path: Path
) -> None:
    done = await runner.run((script(tmp_path, "kill -SEGV $$"),), timeout_s=30)
    assert done.status == -11


async def test_bytes_that_are_no_text_are_shown_and_do_no_harm(
    runner: CommandRunner, tmp_path: Path
) -> None:
    tool = script(tmp_path, r"printf '\377\376ok'; printf '\200' >&2")
    done = await runner.run((tool,), timeout_s=30)
    assert (done.stdout, done.stderr) == ("\\xff\\xfeok", "\\x80")


async def test_a_command_that_hangs_is_killed_and_its_effect_unknown(
    runner: CommandRunner, tmp_path: Path
) -> None:
    tool = script(tmp_path, f"echo $$ > {tmp_path}/pid; echo words >&2; exec sleep 600")
    error = await fails(runner, tool, timeout_s=1)
    assert error.status is None
    assert "timed out" in str(error)
    assert "words" in error.stderr_tail
    assert await is_gone(await pid_in(tmp_path / "pid"))


async def test_a_command_that_ignores_sigterm_is_killed_with_what_it_started(
    runner: CommandRunner, tmp_path: Path
) -> None:
    tool = script(
        tmp_path,
        f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/pid; "
        "while :; do wait; done",
    )
    assert (await fails(runner, tool, timeout_s=1)).status is None
    assert await is_gone(await pid_in(tmp_path / "pid"))
    assert await is_gone(await pid_in(tmp_path / "child"))


async def test_a_daemon_that_holds_the_pipes_does_not_hold_the_caller(
    runner: CommandRunner, tmp_path: Path
) -> None:
    tool = script(tmp_path, f"setsid sleep 600 & echo $! > {tmp_path}/child; echo done")
    began = time.monotonic()
    done = await runner.run((tool,), timeout_s=300)
    assert done.stdout == "done\n"
    assert time.monotonic() - began < 200
    child = process.process_ref(await pid_in(tmp_path / "child"))
    assert child is not None
    assert process.kill(child)


async def test_endless_output_is_cut_off(runner: CommandRunner, tmp_path: Path) -> None:
    error = await fails(runner, script(tmp_path, "exec yes"))
    assert error.status == -9
    assert "wrote more than" in error.stderr_tail


async def test_of_endless_complaints_the_end_is_kept(runner: CommandRunner, tmp_path: Path) -> None:
    tool = script(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last >&2")
    done = await runner.run((tool,), timeout_s=60)
    assert done.stderr.endswith("last\n")
    assert len(done.stderr) == command.STDERR_TAIL_BYTES


async def test_a_cancelled_caller_leaves_no_command_behind(
    runner: CommandRunner, tmp_path: Path
) -> None:
    tool = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    task = asyncio.create_task(runner.run((tool,), timeout_s=600))
    pid = await pid_in(tmp_path / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process.start_ticks(pid) is None


async def test_waiting_for_a_free_thread_counts_as_time(tmp_path: Path) -> None:
    runner = CommandRunner(workers=1)
    tool = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    first = asyncio.create_task(runner.run((tool,), timeout_s=2))
    await pid_in(tmp_path / "pid")
    error = await fails(runner, "true", timeout_s=0.2)
    assert error.status is None
    assert "not started" in error.stderr_tail
    with pytest.raises(ToolstackError):
        await first
    runner.close()


async def test_many_commands_at_once_all_end(runner: CommandRunner) -> None:
    done = await asyncio.gather(*(runner.run(("echo", str(n)), timeout_s=60) for n in range(30)))
    assert [each.stdout.strip() for each in done] == [str(n) for n in range(30)]


async def test_no_descriptor_is_left_open(runner: CommandRunner) -> None:
    await runner.run(("true",), timeout_s=30)
    before = descriptors()
    for _ in range(5):
        await runner.run(("true",), timeout_s=30)
    assert descriptors() <= before
