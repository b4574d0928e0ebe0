"""What is known of the other host's being off, for one takeover, and when it is asked for again."""

from __future__ import annotations

from typing import Final

from colod.failover.record import NO_GENERATION
from colod.failover.view import Fence
from colod.model import Generation

RETRY_S: Final = 30.0
RETRY_MAX_S: Final = 300.0
"""An agent that hangs takes minutes itself; and a board that is being repaired, hours."""

_MAX_TROUBLE_CHARS: Final = 300


class Proof:
    """For the ownership of one generation, and only for it.

    A host that was off once may be on again at the next takeover.
    """

    def __init__(self, retry_s: float = RETRY_S) -> None:
        """Know of no takeover yet; what proved nothing is due again after `retry_s` at first."""
        self._retry_s = retry_s
        self._generation = NO_GENERATION
        self._outcome = Fence.NEEDED
        self._trouble = ""
        self._retry_at: float | None = None
        self._backoff_s = retry_s

    def won(self, generation: Generation) -> None:
        """Note that the host is off for the takeover of `generation`."""
        self._generation, self._outcome = generation, Fence.CONFIRMED

    def missed(self, generation: Generation, trouble: str, now: float, *, may_change: bool) -> None:
        """Note that nothing proved it.

        Args:
            generation: Of the takeover that waits.
            trouble: Why, for people.
            now: Monotonic time at which it was over.
            may_change: Whether asking again may bring another answer; then it is waited longer each
                time until that is due.
        """
        if generation != self._generation:
            self._backoff_s = self._retry_s
        self._generation, self._outcome = generation, Fence.UNCONFIRMED
        self._trouble = _cut(trouble)
        self._retry_at = now + self._backoff_s if may_change else None
        self._backoff_s = min(self._backoff_s * 2, RETRY_MAX_S)

    def again(self) -> None:
        """Have it asked for at once: an operator has given the word that was missing."""
        self._generation, self._outcome = NO_GENERATION, Fence.NEEDED

    def of(self, generation: Generation, now: float, *, may_ask_again: bool) -> Fence:
        """Return how it stands for the takeover of `generation`.

        Args:
            generation: The one that is known now.
            now: Monotonic time.
            may_ask_again: Whether this host may try by itself what proved nothing before.
        """
        if generation != self._generation:
            return Fence.NEEDED
        if self._outcome is not Fence.UNCONFIRMED or self._retry_at is None:
            return self._outcome
        is_due = may_ask_again and now >= self._retry_at
        return Fence.DUE_AGAIN if is_due else Fence.UNCONFIRMED

    def trouble_of(self, generation: Generation) -> str:
        """Return why nothing proved it for the takeover of `generation`, and whether that ends."""
        if generation != self._generation or self._outcome is not Fence.UNCONFIRMED:
            return ""
        if self._retry_at is None:
            return self._trouble
        often = f"every {RETRY_S:g} to {RETRY_MAX_S:g} s"
        return f"{self._trouble}; asked again {often} while the other host is lost"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TROUBLE_CHARS else f"{text[:_MAX_TROUBLE_CHARS]}…"
