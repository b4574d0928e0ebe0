"""A stand-in for a watchdog's driver: the other end of the pipe that a simulated host feeds.

It keeps a watchdog's rules: what opens it starts it, a 'V' before it is closed stops it, closed
without one it runs on, and when its time is over the host is reset, which here is `reset`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.pair import LIMIT_S

NAME = "watchdog-stand-in"
_POLL_S = 0.02
_TOKEN = re.compile(rb"timeout=(\d+)\n|(\.)|(V)")


class StandInDriver:
    """Reads one pipe.

    Attributes:
        is_active: Whether it runs.
        feeds: How often it was fed.
        starts: How often it was opened.
        has_fired: Set once it has reset the host.
    """

    def __init__(self, root: Path, reset: Callable[[], None]) -> None:
        """Make the pipe below `root`, and wait for somebody to open it."""
        self.is_active = False
        self.feeds = self.starts = 0
        self.has_fired = threading.Event()
        self._reset = reset
        self._timeout_s = 0.0
        self._fed_at = 0.0
        self._may_stop = False
        path = root / NAME
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; nothing is reset any more."""
        self._stop.set()
        self._thread.join(LIMIT_S)
        os.close(self._pipe)

    def _run(self) -> None:
        while not self._stop.wait(_POLL_S):
            with suppress(BlockingIOError):  # it is open, and nothing was written
                self._take(os.read(self._pipe, 4096))
            if self.is_active and time.monotonic() - self._fed_at > self._timeout_s:
                self.is_active = False
                self.has_fired.set()
                self._reset()

    def _take(self, told: bytes) -> None:
        if not told and self._may_stop:
            self.is_active = self._may_stop = False
        for timeout_s, is_feed, is_magic in _TOKEN.findall(told):
            if timeout_s:
                self.starts += 1
                self._timeout_s = float(timeout_s)
            self.feeds += bool(is_feed)
            self.is_active = True
            self._fed_at = time.monotonic()
            self._may_stop = bool(is_magic)
