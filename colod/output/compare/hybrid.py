"""When COLO is the worse choice: fall back to Remus, and come back later.

COLO saves checkpoints as long as the copies agree. Where they rarely do, each divergence makes
clients wait for a checkpoint that Remus would have made by the clock, and both hosts pay for
running the guest. Whether that goes on can only be seen while both copies run, so the way back is
a trial, and each trial that fails makes the next one wait for longer.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from colod.model import Mode
from colod.output.compare.decisions import DIVERGENCE, Reason
from colod.output.compare.limits import check_times


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridOptions:
    """When to leave COLO, and when to try it again.

    Attributes:
        fall_back_per_s: Checkpoints for divergence in a second that make that second a bad one.
            About what Remus would make by the clock: above it, COLO saves nothing.
        fall_back_after_s: For how long every second must be a bad one; rounded up to whole seconds.
            The smaller, the sooner a passing burst costs a switch; the larger, the longer clients
            suffer.
        retry_after_s: Time in Remus before the first trial of COLO.
        retry_max_s: Each trial that fails doubles that time, up to this. A switch suspends
            protection's progress for a whole copy of the guest, so trials must stay rare.
        settled_after_s: A stay in COLO of at least this is no failed trial: the wait begins anew.
    """

    fall_back_per_s: float = 5.0
    fall_back_after_s: float = 30.0
    retry_after_s: float = 600.0
    retry_max_s: float = 14_400.0
    settled_after_s: float = 600.0

    def __post_init__(self) -> None:
        """Refuse times that make no sense together.

        Raises:
            ValueError: If one is not positive, or the longest wait is below the first.
        """
        check_times(self)
        if self.retry_max_s < self.retry_after_s:
            raise ValueError(
                f"retry_max_s {self.retry_max_s}: want at least retry_after_s, {self.retry_after_s}"
            )
        if self.settled_after_s <= self.fall_back_after_s:
            raise ValueError(
                f"settled_after_s {self.settled_after_s}: want more than fall_back_after_s, "
                f"{self.fall_back_after_s}, or no trial ever fails"
            )


class Hybrid:
    """The choice between COLO and Remus for one guest, which starts in COLO.

    It wants a switch by returning the mode; the caller makes it, and tells by `switched` or
    `switch_failed`. Until then nothing more is wanted.

    Attributes:
        mode: The mode that the guest is in.
        switches: How many switches were made, by the mode that they led to.
        failed: How many were not.
        retry_s: How long the next stay in Remus is.
    """

    def __init__(self, options: HybridOptions, now: float) -> None:
        """Begin in COLO.

        Args:
            options: When to switch.
            now: In seconds, monotonic; never less in any later call.
        """
        self.mode = Mode.COLO
        self.switches: Counter[Mode] = Counter()
        self.failed: Counter[Mode] = Counter()
        self.retry_s = options.retry_after_s
        self._options = options
        self._since = now
        self._wanted: Mode | None = None
        self._seconds = math.ceil(options.fall_back_after_s)
        self._restart(now)

    @property
    def wanted(self) -> Mode | None:
        """The mode to which a switch was wanted and is not made yet."""
        return self._wanted

    @property
    def bad_s(self) -> int:
        """How many whole seconds up to now were bad ones; at `fall_back_after_s` COLO is left."""
        return self._bad

    def committed(self, reason: Reason | None, now: float) -> Mode | None:
        """Take note of a checkpoint in COLO, and of its reason; None if nobody asked for it."""
        switch = self.on_deadline(now)
        if self.mode is Mode.COLO and reason in DIVERGENCE:
            self._count += 1
        return switch

    def next_deadline(self) -> float | None:
        """Return when to call `on_deadline`, in seconds; None for never."""
        if self._wanted is not None:
            return None
        return self._second_ends if self.mode is Mode.COLO else self._since + self.retry_s

    def on_deadline(self, now: float) -> Mode | None:
        """Return the mode to switch to, if it is time for that."""
        if self._wanted is not None:
            return None
        if self.mode is Mode.COLO:
            self._end_seconds(now)
            return self._want(Mode.REMUS) if self._bad >= self._seconds else None
        return self._want(Mode.COLO) if now >= self._since + self.retry_s else None

    def switched(self, now: float) -> None:
        """Take note that the wanted switch was made: the guest is protected in the new mode."""
        assert self._wanted is not None, "no switch was wanted"
        if self._wanted is Mode.REMUS:
            stayed_s = now - self._since
            is_settled = stayed_s >= self._options.settled_after_s
            self.retry_s = self._options.retry_after_s if is_settled else self._next_retry_s()
        self.mode, self._wanted = self._wanted, None
        self.switches[self.mode] += 1
        self._since = now
        self._restart(now)

    def switch_failed(self, now: float) -> None:
        """Take note that the guest is still in the old mode; the same conditions count anew."""
        assert self._wanted is not None, "no switch was wanted"
        self.failed[self._wanted] += 1
        if self._wanted is Mode.COLO:
            self.retry_s = self._next_retry_s()
            self._since = now
        self._wanted = None
        self._restart(now)

    def _next_retry_s(self) -> float:
        """Return the wait after a trial that failed; the first stay in COLO is none."""
        is_trial = bool(self.switches or self.failed[Mode.COLO])
        return min(2 * self.retry_s, self._options.retry_max_s) if is_trial else self.retry_s

    def _want(self, mode: Mode) -> Mode:
        self._wanted = mode
        return mode

    def _restart(self, now: float) -> None:
        self._bad = self._count = 0
        self._second_ends = now + 1.0

    def _end_seconds(self, now: float) -> None:
        """Judge the seconds that are over: only the first of them can have had checkpoints."""
        if now < self._second_ends:
            return
        self._bad = self._bad + 1 if self._count >= self._options.fall_back_per_s else 0
        over = math.floor(now - self._second_ends)
        if over:
            self._bad = 0
        self._count = 0
        self._second_ends += over + 1
