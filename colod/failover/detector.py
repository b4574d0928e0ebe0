"""Tell from independent signals whether the other host gives signs of life.

It decides *when* to ask for ownership, never *whether* it is ours: a wrong suspicion costs a
failover, not a promise. The signals are the heartbeats of the daemons, one over each network that
is configured, and the pings of the guest's sessions. The host is suspected when all of them have
been silent for too long; one that still speaks is enough to trust it.

A network whose link has gone down can bring nothing, so its silence counts sooner: once nothing was
heard for the grace, all of it without a link. A link that comes back within that time has changed
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from colod.failover.view import Contact

SESSION: Final = "session"
"""The signal of the guest's sessions; those of the daemons are called by the peer's addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """How one signal stands, for people.

    Attributes:
        name: The signal.
        heard_age_s: Time since it was last heard, None if it never was.
        no_carrier_s: For how long its network has been without a link, None while it has one or
            nobody knows.
        is_silent: Whether it speaks for suspecting the host.
    """

    name: str
    heard_age_s: float | None
    no_carrier_s: float | None
    is_silent: bool


@dataclass(slots=True)
class _Signal:
    since: float
    heard_at: float | None = None
    lost_at: float | None = None

    def heard(self, at: float) -> None:
        if self.heard_at is None or at > self.heard_at:
            self.heard_at = at
            self.since = max(self.since, at)


@dataclass(slots=True)
class Detector:
    """Signs of life of one peer.

    Attributes:
        silent_after_s: Without a heartbeat for longer, the peer is SILENT.
        suspect_after_s: Without any sign for longer, it is LOST.
        carrier_grace_s: The same for a signal whose network has no link meanwhile; not above
            `suspect_after_s`.
        now: Monotonic time; a daemon that has just begun gives its peer the whole time.
    """

    silent_after_s: float
    suspect_after_s: float
    carrier_grace_s: float
    now: float
    _signals: dict[str, _Signal] = field(default_factory=dict)

    def expect(self, signal: str) -> None:
        """Take `signal` for one of those that have to be silent."""
        self._at(signal)

    def heard(self, signal: str, at: float) -> None:
        """Note that `signal` was heard at `at`."""
        self._at(signal).heard(at)

    def carrier(self, signal: str, lost_at: float | None) -> None:
        """Note since when the network of `signal` has no link, None if it has, or nobody knows."""
        self._at(signal).lost_at = lost_at

    def contact(self, now: float) -> Contact:
        """Return how the peer stands."""
        if now < self._daemon_silent_at():
            return Contact.UP
        return Contact.LOST if now > self._lost_at() else Contact.SILENT

    def next_deadline(self, now: float) -> float | None:
        """Return when `contact` changes if nothing is heard, or None if it will not."""
        silent_at, lost_at = self._daemon_silent_at(), self._lost_at()
        if now < silent_at:
            return silent_at
        return lost_at if now <= lost_at else None

    def signs(self, now: float) -> tuple[Sign, ...]:
        """Return how each signal stands, in the order in which they were met."""
        return tuple(
            Sign(
                name=name,
                heard_age_s=None if each.heard_at is None else max(0.0, now - each.heard_at),
                no_carrier_s=None if each.lost_at is None else max(0.0, now - each.lost_at),
                is_silent=now > self._silent_at(each),
            )
            for name, each in self._signals.items()
        )

    def _at(self, signal: str) -> _Signal:
        return self._signals.setdefault(signal, _Signal(self.now))

    def _daemon_silent_at(self) -> float:
        heard = [
            each.heard_at
            for name, each in self._signals.items()
            if name != SESSION and each.heard_at is not None
        ]
        return max(heard) + self.silent_after_s if heard else float("-inf")

    def _lost_at(self) -> float:
        """Return when the last signal falls silent, unless it is heard before."""
        silent_at = [self._silent_at(each) for each in self._signals.values()]
        return max(silent_at, default=self.now + self.suspect_after_s)

    def _silent_at(self, signal: _Signal) -> float:
        by_silence = signal.since + self.suspect_after_s
        if signal.lost_at is None:
            return by_silence
        # What is heard without a link (by another way, or late) is a sign of life all the same.
        return min(by_silence, max(signal.since, signal.lost_at) + self.carrier_grace_s)
