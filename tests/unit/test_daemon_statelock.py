"""One process decides on a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colod.daemon.statelock import StateLock
from colod.errors import JournalError, StateHeld


def test_a_second_one_is_refused_and_told_who_decides(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(StateHeld, match=rf"process {os.getpid()} .*{tmp_path}") as refused:
        StateLock(tmp_path)
    assert refused.value.advice
    lock.release()
    StateLock(tmp_path).release()


def test_the_lock_ends_with_its_process_though_a_child_goes_on(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib\n"
        "from colod.daemon.statelock import StateLock\n"
        "lock = StateLock(pathlib.Path(sys.argv[1]))\n"
        "child = subprocess.Popen(['cat'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print('started', flush=True)\n"
        "import os; os._exit(0)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"started\n"
        holder.wait(10)
        StateLock(tmp_path).release()  # `cat` lives until our end of its input is closed


def test_two_hosts_of_one_machine_do_not_exclude_each_other(tmp_path: Path) -> None:
    locks = [StateLock(tmp_path / name) for name in ("alpha", "beta")]
    for lock in locks:
        lock.release()


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(JournalError, match="state"):
        StateLock(tmp_path / "state")
