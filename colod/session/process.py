"""Processes that a session starts or watches; each wait is on a pidfd, never on SIGCHLD."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colod.pidfd import open_pidfd
from colod.transport.sockets import AsyncDescriptor

_SAID_BYTES: Final = 4096

_log = logging.getLogger(__name__)


class Watched:
    """A process that must not be mistaken for a later one of the same number."""

    def __init__(self, pid: int) -> None:
        """Watch `pid`, which may have ended already.

        Raises:
            ProcessLookupError: If there is no such process.
        """
        self.pid = pid
        self._pidfd = open_pidfd(pid)
        self._descriptor = AsyncDescriptor(self._pidfd)

    @property
    def has_ended(self) -> bool:
        """Whether it has exited or was killed."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def ended(self) -> None:
        """Return when it has exited or was killed."""
        while not self.has_ended:
            await self._descriptor.readable()

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Stop watching."""
        self._descriptor.let_go()
        os.close(self._pidfd)


def start_ticks(pid: int) -> int:
    """Return the start time of `pid` as the kernel counts it (field 22 of /proc/PID/stat)."""
    # The name, in parentheses, may have blanks and parentheses itself.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that was run.

    Attributes:
        status: Its exit status, negative for a signal; 127 if it could not be started; None if it
            did not end in time: it was killed then, and what it did is not known.
        said: What it wrote on standard output and standard error, cut to the first few kilobytes.
    """

    status: int | None
    said: str = ""


async def run_bounded(argv: Sequence[str], timeout_s: float, *, is_logged: bool = True) -> Ran:
    """Run a command for `timeout_s` seconds at most; what it says goes to the session's log too."""
    # Neither a pipe nor a file on disk: the one could block the command, the other be full.
    try:
        output = os.memfd_create("said")
    except OSError as error:
        return Ran(127, str(error))
    try:
        process = await asyncio.to_thread(_start, argv, output)
        status = await _ended(process, timeout_s)
        said = os.pread(output, _SAID_BYTES, 0).decode(errors="replace").strip()
    except OSError as error:
        return Ran(127, str(error))
    finally:
        os.close(output)
    if said and is_logged:
        _log.info("%s said: %s", argv[0], said)
    return Ran(status, said)


async def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    watched = Watched(process.pid)
    try:
        async with asyncio.timeout(timeout_s):
            await watched.ended()
        return process.wait()
    except TimeoutError:
        return None
    finally:
        watched.kill()
        process.poll()  # not wait: a process stuck in the kernel must not stop the session
        watched.close()


def _start(argv: Sequence[str], output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
