"""colodctl on a terminal: progress, a screen that is redrawn, a question before a failover."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from colod.v1 import admin_pb2
from tests.integration.admin_double import FakeDaemon, replicating, report, serving, syncing

PROTECT = ("protect", "web", "--to", "host-b", "--disks", "none")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    double = FakeDaemon()
    with serving(double, tmp_path / "admin.sock"):
        yield double


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill the process if the test ends before it: Popen would wait for ever."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def on_terminal(
    directory: Path, *arguments: str, typed: bytes = b"", interrupt_at: bytes = b"\0"
) -> tuple[int, str]:
    """Run colodctl on a terminal; return its exit status and what it drew.

    Args:
        directory: Where the double's socket is.
        arguments: The command.
        typed: What is typed in advance.
        interrupt_at: Text at whose sight the command is interrupted.
    """
    ours, theirs = pty.openpty()
    code = "import sys; from colod.cli.main import main; main()"
    words = ("--socket", str(directory / "admin.sock"), *arguments)
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    drawn = bytearray()
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        os.write(ours, typed)
        with ended(process), suppress(OSError):  # EIO: the last process has closed the terminal
            while piece := os.read(ours, 65536):
                drawn += piece
                if interrupt_at in drawn:
                    process.send_signal(signal.SIGINT)
                    interrupt_at = b"\0"
        os.close(ours)
    return process.returncode, drawn.decode()


def test_protect_draws_its_progress(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.reports = [report(syncing(300)), report(replicating())]
    status, drawn = on_terminal(tmp_path, *PROTECT)
    assert status == 0
    assert "━" in drawn
    assert drawn.endswith("web: REPLICATING (output not held), replica on host-b\r\n")


def test_watching_redraws_the_screen(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.reports = [report(syncing(300)), report(replicating())]
    status, drawn = on_terminal(tmp_path, "status", "--watch")
    assert status == 0
    assert "SYNCING 30 %" in drawn
    assert "REPLICATING (output not held)" in drawn
    assert "\x1b[" in drawn


@pytest.mark.parametrize(("typed", "asked", "status"), [(b"n\n", 1, 1), (b"y\n", 2, 0)])
def test_failover_is_done_only_after_a_yes(
    daemon: FakeDaemon, tmp_path: Path, typed: bytes, asked: int, status: int
) -> None:
    daemon.plan = ["take web over"]
    ended, drawn = on_terminal(tmp_path, "failover", "web", typed=typed)
    assert ended == status
    assert drawn.count("take web over") == 1
    assert ("nothing was changed" in drawn) == (status == 1)
    assert [request.dry_run for request in daemon.requests] == [True, False][:asked]


@pytest.mark.parametrize(("typed", "asked", "status"), [(b"n\n", 1, 1), (b"y\n", 2, 0)])
def test_failback_says_to_whom_and_is_done_only_after_a_yes(
    daemon: FakeDaemon, tmp_path: Path, typed: bytes, asked: int, status: int
) -> None:
    daemon.reports = [report(replicating())]
    daemon.entries = [admin_pb2.HistoryEntry(unix_s=1e9, guest="web", to_state="PROMOTING")]
    ended, drawn = on_terminal(tmp_path, "failback", "web", typed=typed)
    assert ended == status
    assert "Give web to host-b again? [y/N]" in drawn
    switchovers = [each for each in daemon.requests if hasattr(each, "dry_run")]
    assert [request.dry_run for request in switchovers] == [True, False][:asked]


def test_an_interrupt_says_that_the_daemon_goes_on(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.reports = [report(syncing(300))]
    daemon.hang_after_reports = True
    status, drawn = on_terminal(tmp_path, "status", "--watch", interrupt_at=b"SYNCING")
    assert status == 130
    assert "what the daemon was asked goes on" in drawn


def test_top_redraws_until_it_is_interrupted(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.reports = [report(replicating())]
    words = ("top", "--interval", "0.2")
    status, drawn = on_terminal(tmp_path, *words, interrupt_at=bytes("███", "utf-8"))
    assert status == 130
    assert "LAGS" in drawn
    assert "\x1b[?25h" in drawn, "the cursor was left hidden"
    assert "Traceback" not in drawn
