"""When a COLO session makes a checkpoint: at most one is asked for at a time, and not too soon.

A checkpoint suspends both copies. The comparator asks for one when they differ; this decides when
that request goes out, adds the periodic one, and notices a checkpoint that was asked for and does
not come.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from colod.output.compare.decisions import Reason
from colod.output.compare.limits import check_times

_AT_ONCE = frozenset({Reason.SPACE, Reason.OPERATOR})


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """How often checkpoints are made.

    Attributes:
        spacing_min_s: Time from a checkpoint to the next request, but for want of room and for an
            operator. Without it, copies that differ all the time are suspended all the time: each
            request is answered by a checkpoint whose first output differs again, and the guest
            computes nothing. With it the guest runs for at least this long between two, and a
            client waits for this much longer at most. It costs no safety: what differs is held
            meanwhile. It must be far below the time in which the guest's output fills half of the
            comparator's bounds, for then there is no room left to wait in.
        interval_max_s: Longest time from a checkpoint to the next request. The smaller, the less
            state has to be sent at a time and the more often the guest is suspended; libxl makes
            one by itself after 5 s without a request.
        overdue_s: For how long a request may be unanswered before that is told. Below the time
            that a checkpoint of a busy guest takes, it cries wolf; the larger, the longer a guest
            is mute behind a toolstack that hangs.
    """

    spacing_min_s: float = 0.05
    interval_max_s: float = 4.0
    overdue_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse times that would never let a checkpoint be made.

        Raises:
            ValueError: If one is not positive, or the spacing is not below the interval.
        """
        check_times(self)
        if self.spacing_min_s >= self.interval_max_s:
            raise ValueError(
                f"spacing_min_s {self.spacing_min_s}: want less than interval_max_s, "
                f"{self.interval_max_s}"
            )


class Step(StrEnum):
    """What to do about checkpoints now."""

    REQUEST = "request"
    """Ask the toolstack for one."""
    OVERDUE = "overdue"
    """Say that the one that was asked for does not come: output is held until it does."""


class Checkpoints:
    """The checkpoint requests of one pairing.

    Give it whatever happens, do the step that it returns, if any, and call `on_deadline` at
    `next_deadline`.

    Attributes:
        requested: How many requests went out, by reason.
        made: How many checkpoints were made for each reason.
        unasked: How many were made without a request: by the toolstack's own clock.
        overdue: How many requests were unanswered for too long.
    """

    def __init__(self, options: CheckpointOptions, now: float) -> None:
        """Begin at the moment of a checkpoint.

        Args:
            options: How often.
            now: In seconds, monotonic; never less in any later call.
        """
        self.requested: Counter[Reason] = Counter()
        self.made: Counter[Reason] = Counter()
        self.unasked = 0
        self.overdue = 0
        self._options = options
        self._made_at = now
        self._waiting: Reason | None = None
        self._outstanding: Reason | None = None
        self._asked_at = now
        self._is_told = False

    @property
    def outstanding(self) -> Reason | None:
        """Why the checkpoint is made that the toolstack was asked for and has not made yet."""
        return self._outstanding

    def ask(self, reason: Reason, now: float) -> Step | None:
        """Take a wish for a checkpoint.

        The first of those that wait for their time names the reason, but one that cannot wait does
        so at once. While one is outstanding nothing is asked: that one serves all.
        """
        if self._outstanding is not None:
            return None
        if reason in _AT_ONCE or now >= self._earliest():
            return self._request(reason, now)
        self._waiting = self._waiting or reason
        return None

    def committed(self, now: float) -> Reason | None:
        """Take note that a checkpoint was made, asked for or not.

        Returns:
            What it was asked for, None if it was not.
        """
        reason, self._outstanding, self._waiting = self._outstanding, None, None
        self._made_at = now
        if reason is None:
            self.unasked += 1
        else:
            self.made[reason] += 1
        return reason

    def next_deadline(self) -> float | None:
        """Return when to call `on_deadline`, in seconds; None for never."""
        if self._outstanding is not None:
            return None if self._is_told else self._asked_at + self._options.overdue_s
        return self._earliest() if self._waiting else self._made_at + self._options.interval_max_s

    def on_deadline(self, now: float) -> Step | None:
        """Do what is due."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return None
        if self._outstanding is None:
            return self._request(self._waiting or Reason.PERIODIC, now)
        self._is_told = True
        self.overdue += 1
        return Step.OVERDUE

    def _earliest(self) -> float:
        return self._made_at + self._options.spacing_min_s

    def _request(self, reason: Reason, now: float) -> Step:
        self._outstanding, self._waiting = reason, None
        self._asked_at, self._is_told = now, False
        self.requested[reason] += 1
        return Step.REQUEST
