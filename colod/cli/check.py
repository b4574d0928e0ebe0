"""Run an operator's check of a drill: here, with the operator's own rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from colod.v1.admin_pb2 import DrillReply, DrillRequest

TIMED_OUT = 124
"""As timeout(1) has it."""


class Ended(NamedTuple):
    """How a check ended; `said` tells people why it did not pass."""

    status: int
    said: str


def run_check(request: DrillRequest, reply: DrillReply, timeout_s: float) -> Ended:
    """Run the check of `request` against the copy that `reply` names, and return how it ended.

    What it writes goes to standard error. It is killed, with all that it has started, when its time
    is over or this process is interrupted.
    """
    environment = {
        **os.environ,
        "COLOD_GUEST": request.guest,
        "COLOD_DRILL_DOMAIN": reply.domain,
        "COLOD_DRILL_DOMID": str(reply.domid),
        "COLOD_DRILL_EPOCH": str(reply.epoch),
        "COLOD_DRILL_BRIDGE": request.bridge,
    }
    process = subprocess.Popen(
        ["/bin/sh", "-c", request.check],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if _has_number() else subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return Ended(TIMED_OUT, f"the check was not done in {timeout_s:g} s")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if status < 0:
        return Ended(128 - status, f"the check was killed by signal {-status}")
    return Ended(status, f"the check ended with {status}" if status else "")


def _has_number() -> bool:
    """Whether standard error is a file of the kernel's, and not one of a test."""
    try:
        sys.stderr.fileno()
    except (OSError, ValueError):
        return False
    return True
