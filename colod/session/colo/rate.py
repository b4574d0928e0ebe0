"""How often something happened lately."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 10.0


class Rate:
    """Counts what happened within the last WINDOW_S seconds."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._at: deque[float] = deque()

    def note(self, now: float) -> None:
        """Note that it happened."""
        self._at.append(now)
        self._forget(now)

    def per_s(self, now: float) -> float:
        """Return how often a second, over the last WINDOW_S."""
        self._forget(now)
        return len(self._at) / WINDOW_S

    def _forget(self, now: float) -> None:
        while self._at and self._at[0] < now - WINDOW_S:
            self._at.popleft()
