"""Tell from two independent signals whether the other host gives signs of life.

It decides *when* to ask for ownership, never *whether* it is ours: a wrong suspicion costs a
failover, not a promise.
"""

from __future__ import annotations

from colod.failover.view import Contact


class Detector:
    """Signs of life of one peer: its daemon's heartbeat and, per guest, its session's pings."""

    def __init__(self, *, silent_after_s: float, suspect_after_s: float, now: float) -> None:
        """Start to listen.

        Args:
            silent_after_s: Without a heartbeat for longer, the peer is SILENT.
            suspect_after_s: Without any sign for longer, it is LOST.
            now: Monotonic time; a daemon that has just begun gives its peer the whole time.
        """
        self._silent_after_s = silent_after_s
        self._suspect_after_s = suspect_after_s
        self._control_at = now - silent_after_s
        self._any_at = now

    def control_heard(self, now: float) -> None:
        """Note a heartbeat of the peer's daemon."""
        self._control_at = max(self._control_at, now)
        self._any_at = max(self._any_at, now)

    def data_heard(self, at: float) -> None:
        """Note that the peer's session was heard at `at`."""
        self._any_at = max(self._any_at, at)

    def contact(self, now: float) -> Contact:
        """Return how the peer stands."""
        if now - self._control_at < self._silent_after_s:
            return Contact.UP
        return Contact.LOST if now - self._any_at > self._suspect_after_s else Contact.SILENT

    def next_deadline(self, now: float) -> float | None:
        """Return when `contact` changes if nothing is heard, or None if it will not."""
        deadlines = (
            self._control_at + self._silent_after_s,
            self._any_at + self._suspect_after_s,
        )
        return min((at for at in deadlines if at >= now), default=None)
