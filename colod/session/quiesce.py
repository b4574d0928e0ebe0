"""The last checkpoint of a switchover: its window is kept open until the guest was paused in it.

The guest is suspended while a checkpoint's window is open (see `colod.output.gate`), so a pause
that is taken meanwhile keeps it from running on afterwards: nothing comes after that epoch. The
daemon takes the pause; this only keeps the window, and knows whether it was still kept then.
"""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum
from typing import Final

from colod.output.gate import LOCK_STEP_BYTES

WINDOW_S: Final = 20.0
"""Longest that a window is kept open for the daemon's pause: the guest stands still meanwhile."""

MAX_ATTEMPT_CHARS: Final = 64

_log = logging.getLogger(__name__)


class Stage(StrEnum):
    """How far the attempt has come."""

    IDLE = "idle"
    WANTED = "wanted"
    """The next certain window will be kept."""
    KEPT = "kept"
    """The guest is suspended until `finish`, `cancel` or the time limit."""
    FINAL = "final"
    """The guest was paused in the window of the final epoch."""


class Quiesce:
    """One attempt at a time.

    Attributes:
        stage: How far it has come.
        attempt: Its id, as the daemon gave it.
        epoch: The epoch whose window is kept, or the final one; 0 before.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        """Begin without an attempt; a window is kept for `window_s` seconds at most."""
        self.stage = Stage.IDLE
        self.attempt = ""
        self.epoch = 0
        self._window_s = window_s
        self._over = asyncio.Event()

    @property
    def kept_epoch(self) -> int:
        """The epoch whose window is kept now, else 0."""
        return self.epoch if self.stage is Stage.KEPT else 0

    @property
    def final_epoch(self) -> int:
        """The epoch after which the guest does not run on, else 0."""
        return self.epoch if self.stage is Stage.FINAL else 0

    def want(self, attempt: str) -> str:
        """Keep the next certain window for `attempt`; return why not, or nothing."""
        if not 0 < len(attempt) <= MAX_ATTEMPT_CHARS:
            return f"an attempt is named by 1 to {MAX_ATTEMPT_CHARS} characters"
        self._become(Stage.WANTED, attempt)
        return ""

    def finish(self, attempt: str) -> str:
        """Take note that the guest is paused, and let the window go; return why not, or nothing."""
        if self.stage is not Stage.KEPT or attempt != self.attempt:
            return f"no window is kept for {attempt}: it came too late, or never"
        self.stage = Stage.FINAL
        _log.info("quiesce.final epoch=%d", self.epoch)
        self._over.set()
        return ""

    def cancel(self) -> None:
        """Forget the attempt, whatever came of it."""
        if self.stage is not Stage.IDLE:
            self._become(Stage.IDLE)

    def window(self, epoch: int, *, is_certain: bool) -> None:
        """Take note that the checkpoint of `epoch` has begun.

        Args:
            epoch: Its number.
            is_certain: Whether the guest is proved to be suspended until the pipe is read on.
        """
        if self.stage is Stage.WANTED and is_certain:
            self.stage, self.epoch = Stage.KEPT, epoch
            _log.info("quiesce.kept epoch=%d", epoch)

    def may_resume(self, epoch: int, checkpoint_bytes: int) -> None:
        """Take note of libxc's CHECKPOINT: one so short was no certain window after all."""
        is_short = checkpoint_bytes <= LOCK_STEP_BYTES
        if is_short and self.epoch == epoch and self.stage in (Stage.KEPT, Stage.FINAL):
            self.cancel()

    async def passed(self) -> None:
        """Wait while a window is kept: until then nothing may be read from libxl's pipe."""
        if self.stage is not Stage.KEPT:
            return
        try:
            async with asyncio.timeout(self._window_s):
                await self._over.wait()
        except TimeoutError:
            _log.warning("quiesce.expired epoch=%d after_s=%g", self.epoch, self._window_s)
            self.cancel()

    def _become(self, stage: Stage, attempt: str = "") -> None:
        self._over.set()  # whoever waits for the former attempt
        self._over = asyncio.Event()
        self.stage, self.attempt, self.epoch = stage, attempt, 0
