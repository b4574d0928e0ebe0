"""Run an operator's check of a drill: here, with the operator's own rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from colod.v1.admin_pb2 import DrillReply, DrillRequest

TIMED_OUT = 124
"""As timeout(1) has it."""


class Ended(NamedTuple):
    """How a check ended; `said` tells people why it did not pass."""

    status: int
    said: str


class Check:
    """An operator's check of a drill, under way."""

    def __init__(self, request: DrillRequest, reply: DrillReply, timeout_s: float) -> None:
        """Run the check of `request` against the copy that `reply` names.

        What it writes goes to standard error. It is killed, with all that it has started, when its
        time is over.
        """
        environment = {
            **os.environ,
            "COLOD_GUEST": request.guest,
            "COLOD_DRILL_DOMAIN": reply.domain,
            "COLOD_DRILL_DOMID": str(reply.domid),
            "COLOD_DRILL_EPOCH": str(reply.epoch),
            "COLOD_DRILL_BRIDGE": request.bridge,
        }
        self._timeout_s = timeout_s
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", request.check],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if _has_number() else subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> Ended:
        """Return how it ended."""
        try:
            status = self._process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            return Ended(TIMED_OUT, f"the check was not done in {self._timeout_s:g} s")
        finally:
            self.kill()
        if status < 0:
            return Ended(128 - status, f"the check was killed by signal {-status}")
        return Ended(status, f"the check ended with {status}" if status else "")

    def kill(self) -> None:
        """Kill it, and all that it has started and that is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def checking(check: Check, tell: Callable[[Ended], None]) -> Iterator[None]:
    """Tell how `check` ends while the block runs; a block that ends first kills it, untold.

    `tell` is called in a thread of its own.
    """
    is_over = threading.Event()

    def wait() -> None:
        ended = check.wait()
        if not is_over.is_set():
            tell(ended)

    thread = threading.Thread(target=wait, name="check")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        if thread.is_alive():
            check.kill()
        thread.join()


def _has_number() -> bool:
    """Whether standard error is a file of the kernel's, and not one of a test."""
    try:
        sys.stderr.fileno()
    except (OSError, ValueError):
        return False
    return True
