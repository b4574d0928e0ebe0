"""An interrupt ends colodctl, whatever it is stuck in."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from colod.cli.interrupt import INTERRUPTED

STUCK = """
import threading
from colod.cli.interrupt import end_after_interrupt

end_after_interrupt(0.1)
lock = threading.Lock()
lock.acquire()
begin = ["ready"]
while True:
    try:
        while begin:
            print(begin.pop(), flush=True)
        lock.acquire()
    except KeyboardInterrupt:
        pass
"""
QUICK = """
import sys
import threading
from colod.cli.interrupt import end_after_interrupt

end_after_interrupt(60)
try:
    print("ready", flush=True)
    threading.Event().wait()
except KeyboardInterrupt:
    sys.exit(7)
"""
BACKGROUND = """
import os
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_IGN)

from colod.cli.interrupt import end_after_interrupt

end_after_interrupt(0)
print("ready", flush=True)
sys.stdin.readline()
sys.exit(8)
"""
FAILING = """
import click
import time
from colod.cli import main

@click.command()
def wait():
    print("ready", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("a library's own words")

main.cli = wait
main.main()
"""


def heed_all() -> None:
    """Undo what a shell's background does to SIGINT and nohup to SIGHUP: a child inherits it."""
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("program", "number", "status", "said"),
    [
        (STUCK, signal.SIGINT, 130, True),
        (STUCK, signal.SIGTERM, 130, True),
        (STUCK, signal.SIGHUP, 130, True),
        (QUICK, signal.SIGINT, 7, False),
        (QUICK, signal.SIGTERM, 7, False),
        (QUICK, signal.SIGHUP, 7, False),
        (BACKGROUND, signal.SIGINT, 8, False),
        (BACKGROUND.replace("SIGINT", "SIGHUP"), signal.SIGHUP, 8, False),
        (FAILING, signal.SIGINT, 130, True),
        (FAILING, signal.SIGTERM, 130, True),
    ],
)
def test_an_interrupt_ends_the_process_and_leaves_it_time_to_end_by_itself(
    program: str, number: signal.Signals, status: int, said: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_all,  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        try:
            _, words = process.communicate("\n", timeout=30)
        finally:
            process.kill()
    assert process.returncode == status
    assert (INTERRUPTED in words) is said
    assert "Traceback" not in words
