"""Run an operator's probe of a guest again and again, and measure how long it has no answer.

What is measured is never too short: from the begin of the last run that the guest answered to the
end of the first that it answered again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

INTERVAL_S: Final = 0.1
LIMIT_S: Final = 1.0
SILENCE_S: Final = 60.0
_JOIN_S: Final = 5.0
_NOT_RUN: Final = 126
"""As a shell has it for a command that it cannot run."""


class Probed(NamedTuple):
    """What a probe came to when it was asked.

    Attributes:
        status: Exit status of the run that counts; 0 is an answer.
        said: Why there was none, for people.
        outage_s: The longest time without an answer since the last question, in seconds.
    """

    status: int
    said: str
    outage_s: float


class Probe:
    """Runs a command until the block ends; exit status 0 is an answer of the guest."""

    def __init__(
        self,
        command: str,
        guest: str,
        *,
        silence_s: float = SILENCE_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Prepare; nothing is run yet.

        Args:
            command: For the shell; it finds the guest's name in COLOD_GUEST.
            guest: Its name.
            silence_s: How long a question waits for an answer.
            limit_s: Longest run that may be an answer.
        """
        self._command = command
        self._environment = {**os.environ, "COLOD_GUEST": guest}
        self._silence_s = silence_s
        self._limit_s = limit_s
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._question: tuple[float, Callable[[Probed], None]] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._answered_from: float | None = None
        self._longest_s = 0.0
        self._thread = threading.Thread(target=self._run, name="probe")

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End; a run under way is killed, and a question without an answer gets none."""
        self._is_over.set()
        with self._lock:
            if self._process is not None:
                _kill(self._process)
        self._thread.join(self._limit_s + _JOIN_S)

    def ask(self, tell: Callable[[Probed], None]) -> None:
        """Have `tell` called once with what the next run says that the guest answers.

        It is called in the probe's own thread, at the latest when the silence was too long.
        """
        with self._lock:
            self._question = (time.monotonic(), tell)

    def _run(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            status = self._once()
            if self._is_over.is_set():
                return
            self._note(began, status)
            self._is_over.wait(max(0.0, INTERVAL_S - (time.monotonic() - began)))

    def _once(self) -> int | None:
        """Run it once; return its exit status, None where it took too long."""
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return _NOT_RUN  # nothing asked the guest, so it has not answered
        with self._lock:
            self._process = process
        try:
            return process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with self._lock:
                _kill(process)
                process.wait()
                self._process = None  # its number may be another's from now on

    def _note(self, began: float, status: int | None) -> None:
        now = time.monotonic()
        if status == 0:
            if self._answered_from is not None:
                self._longest_s = max(self._longest_s, now - self._answered_from)
            self._answered_from = began
        with self._lock:
            asked = self._question
        if asked is None:
            return
        asked_at, tell = asked
        # A run that had begun before was perhaps answered by the copy on the other host.
        is_answer = status == 0 and began >= asked_at
        if not is_answer and now - asked_at <= self._silence_s:
            return
        with self._lock:
            self._question = None
        tell(Probed(0, "", self._longest_s) if is_answer else self._silent(status))
        self._longest_s = 0.0

    def _silent(self, status: int | None) -> Probed:
        how = f"ended with {status}"
        if status is None:
            how = f"took more than {self._limit_s:g} s (--probe-limit)"
        return Probed(status or 1, f"no answer in {self._silence_s:g} s: the probe {how}", 0.0)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
