"""Run one command to its end or to its time limit, away from the event loop.

asyncio's own subprocesses are not used: their child watcher can lose an exit and can hold the loop
for seconds while it spawns. Each command has a thread of a small pool instead.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Protocol

from colod.errors import ToolstackError

STDOUT_LIMIT_BYTES = 8 << 20
STDERR_TAIL_BYTES = 16 << 10
CANNOT_START = 127
"""Status of a command that never ran, as a shell has it."""

_TERM_GRACE_S = 2.0
_KILL_GRACE_S = 5.0
_ABORT_POLL_S = 0.05
_CHUNK_BYTES = 1 << 16
FINISH_S = 20.0
"""How much longer a command may take whose caller is gone: its process cannot end before."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended by itself.

    Attributes:
        argv: The command.
        status: Its exit status, or a negative signal number.
        stdout: All that it wrote, bytes that are not UTF-8 as backslash escapes.
        stderr: The end of what it wrote on standard error.
    """

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def error(self) -> ToolstackError:
        """Return this end as an error to be raised."""
        return ToolstackError(self.argv, self.status, self.stderr)

    def checked(self) -> Completed:
        """Return self.

        Raises:
            ToolstackError: If the status is not 0.
        """
        if self.status != 0:
            raise self.error()
        return self


class Commands(Protocol):
    """What runs commands: `CommandRunner`, or a test's double of it."""

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that commands get."""
        ...

    async def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run `argv`, see `CommandRunner.run`."""
        ...


class CommandRunner:
    """Runs commands, a bounded number of them at a time."""

    def __init__(self, *, workers: int = 8, env: Mapping[str, str] | None = None) -> None:
        """Prepare the pool; no thread is started before the first command.

        Args:
            workers: How many commands may run at once; the others wait, within their time limit.
            env: The commands' whole environment; this process's own by default. LC_ALL=C is added.
        """
        self._env = {**(os.environ if env is None else env), "LC_ALL": "C"}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="colod-command")

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that commands get."""
        return self._env

    async def run(
        self, argv: Sequence[str], *, timeout_s: float, finishes: bool = False
    ) -> Completed:
        """Run `argv` (never through a shell) and return how it ended, whatever its status.

        A caller that is cancelled gets its CancelledError only once the command has ended or was
        killed, so that no command goes on behind the back of what comes next.

        Args:
            argv: The program, found in PATH, and its arguments.
            timeout_s: Most seconds from now, waiting for a free thread included.
            finishes: Whether the command goes on all the same where the caller is cancelled: half
                done, it would do harm. This process then ends only after it, within FINISH_S.

        Raises:
            ToolstackError: With status None if it did not end in time (then it was killed, and
                nothing is known of its effect); with status 127 if it could not be started; with
                the signal's number if it was killed for writing too much.
        """
        command = _Command(tuple(argv), self._env, time.monotonic() + timeout_s)
        future = self._pool.submit(command.run)
        waiter = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if finishes:
                command.hurry(FINISH_S)
                future.cancel()  # if it has not begun
                raise
            command.abort.set()
            if not future.cancel():
                await asyncio.wait({waiter})
                # Fetched, so that asyncio does not report it as forgotten.
                waiter.exception()
            raise

    def close(self) -> None:
        """Let no further command start; those that run end within their own limits."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Command:
    """One command in its thread."""

    def __init__(self, argv: tuple[str, ...], env: Mapping[str, str], deadline: float) -> None:
        self.argv = argv
        self.abort = threading.Event()
        self._env = env
        self._deadline = deadline
        self._stdout = bytearray()
        self._stderr = bytearray()

    def hurry(self, limit_s: float) -> None:
        """Have it end in `limit_s` seconds at the latest, or be killed."""
        self._deadline = min(self._deadline, time.monotonic() + limit_s)

    def run(self) -> Completed:
        if time.monotonic() >= self._deadline:
            raise ToolstackError(self.argv, None, "no thread became free; it was not started")
        process = self._start()
        pidfd = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                self._watch(selector, process, pidfd)
                ended = self._collect(selector, pidfd)
                if not ended:
                    _put_down(process, pidfd)
                self._drain(process)
        finally:
            os.close(pidfd)
            _close(process)
        return self._outcome(process, ended=ended)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._env,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            text = f"could not be started: {error}"
            raise ToolstackError(self.argv, CANNOT_START, text) from error

    @staticmethod
    def _watch(
        selector: selectors.BaseSelector, process: subprocess.Popen[bytes], pidfd: int
    ) -> None:
        for pipe in _pipes(process):
            os.set_blocking(pipe.fileno(), False)
        assert process.stdout
        assert process.stderr
        selector.register(process.stdout, selectors.EVENT_READ, "stdout")
        selector.register(process.stderr, selectors.EVENT_READ, "stderr")
        selector.register(pidfd, selectors.EVENT_READ, "exit")

    def _collect(self, selector: selectors.BaseSelector, pidfd: int) -> bool:
        """Read until the process has ended (True), or must not go on (False).

        The end of the process counts, not the end of its pipes: a daemon that xl leaves behind
        may hold them open for days.
        """
        while not self.abort.is_set() and not self._is_too_long():
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                return False
            for key, _ in selector.select(min(left_s, _ABORT_POLL_S)):
                if key.fileobj == pidfd:
                    return True
                if not self._read(key.fd, key.data):
                    selector.unregister(key.fileobj)
        return False

    def _read(self, fd: int, which: str) -> bool:
        """Take what is there; False at the end of the pipe."""
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        if which == "stdout":
            self._stdout += chunk
        else:
            self._stderr += chunk
            del self._stderr[:-STDERR_TAIL_BYTES]
        return bool(chunk)

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        for pipe, which in zip(_pipes(process), ("stdout", "stderr"), strict=True):
            size = -1
            while size != self._size() and not self._is_too_long():
                size = self._size()
                self._read(pipe.fileno(), which)

    def _size(self) -> int:
        return len(self._stdout) + len(self._stderr)

    def _is_too_long(self) -> bool:
        return len(self._stdout) > STDOUT_LIMIT_BYTES

    def _outcome(self, process: subprocess.Popen[bytes], *, ended: bool) -> Completed:
        stderr = self._stderr.decode("utf-8", "backslashreplace")
        if self._is_too_long():
            text = f"wrote more than {STDOUT_LIMIT_BYTES} bytes: {stderr}"
            raise ToolstackError(self.argv, -signal.SIGKILL, text)
        if not ended:
            raise ToolstackError(self.argv, None, stderr)
        stdout = self._stdout.decode("utf-8", "backslashreplace")
        return Completed(self.argv, process.wait(), stdout, stderr)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdout
    assert process.stderr
    return process.stdout, process.stderr


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in _pipes(process):
        pipe.close()


def _put_down(process: subprocess.Popen[bytes], pidfd: int) -> None:
    """SIGTERM, then SIGKILL to it and to what it started; return in bounded time."""
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        selector.select(_TERM_GRACE_S)
    # Nobody has reaped it yet, so its number still names its own process group.
    os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_KILL_GRACE_S)
    except subprocess.TimeoutExpired:
        # Stuck in the kernel; it is reaped by the next Popen after it has left.
        return
