"""Watch over a guest that stands still: say so, for how long and why, and do nothing about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from colod.daemon.limits import Limits
from colod.daemon.sessions import SessionHandle
from colod.failover.effects import Decision, State
from colod.failover.standstill import Checkpoint, Standstill, why
from colod.failover.view import Link, View
from colod.model import GuestName
from colod.observe.logs import Event

_log = structlog.get_logger()

_NOTHING: Final = Checkpoint()


class GuestWatch:
    """One guest's."""

    def __init__(self, guest: GuestName, limits: Limits, decision: Callable[[], Decision]) -> None:
        """Begin to watch; `decision` tells what was decided last."""
        self._guest = guest
        self._limits = limits
        self._decision = decision
        self._standstill = Standstill()
        self._checkpoint = _NOTHING
        self._view: View | None = None
        self._told_why = ""

    def looked(self, view: View, session: SessionHandle | None, now: float) -> None:
        """Take note of the facts, which were gathered at `now`."""
        self._view, self._checkpoint = view, _checkpoint_of(session)
        self._standstill.look(view, self._checkpoint, now)
        self._tell()

    def spoke(self, session: SessionHandle) -> None:
        """Take note that the session has said something."""
        self._checkpoint = _checkpoint_of(session)
        self._standstill.told(self._checkpoint)
        self._tell()

    @property
    def lasts_s(self) -> float | None:
        """For how long the guest stands still; 0 while it runs, None where it is not known."""
        return self._standstill.lasts_s

    @property
    def cause(self) -> str:
        """Why it has stood still for longer than the limit, "" while it has not."""
        lasts_s, view = self.lasts_s, self._view
        if view is None or lasts_s is None or lasts_s <= self._limits.standstill_s:
            return ""
        decision = self._decision()
        return why(view, self._checkpoint, decision.state or State.STOPPED, decision.cause)

    def _tell(self) -> None:
        """Log when it begins to be too long, and when it is over."""
        cause, lasts_s = self.cause, self.lasts_s
        if cause and not self._told_why:
            _log.warning(
                Event.GUEST_STALLED, protection=self._guest, standstill_s=lasts_s, cause=cause
            )
        elif self._told_why and not cause:
            _log.info(Event.GUEST_CONTINUED, protection=self._guest, cause=self._told_why)
        self._told_why = cause


def _checkpoint_of(session: SessionHandle | None) -> Checkpoint:
    # What one that has ended said last is no longer so, once the guest was resumed.
    is_on = session is not None and session.link not in (Link.NONE, Link.BROKEN)
    if session is None or session.status is None or not is_on:
        return _NOTHING
    progress, gate = session.status.progress, session.status.gate
    return Checkpoint(
        suspended_s=progress.suspended_s if progress.HasField("suspended_s") else None,
        waits_for=progress.waits_for,
        sealed_epoch=progress.sealed_epoch,
        acked_epoch=progress.acked_epoch,
        last_ack_age_s=progress.last_ack_age_s,
        staging_bytes=progress.staging_bytes,
        gate_error=gate.error,
    )
