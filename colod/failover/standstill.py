"""Tell for how long a guest has stood still, and why: nothing is ever done about it here.

A checkpoint suspends the guest for a moment, so that one look finds it suspended says little. It
stands still while every look finds it paused, or finds it suspended and no epoch has been completed
in between; and for as long as the session says that the present checkpoint lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colod.failover.effects import State
from colod.failover.view import Copy, Link, View
from colod.model import Role

_RUNS_IN: Final = frozenset(
    {
        *(State.STOPPED, State.ALONE, State.SUSPENDED, State.PAIRING, State.SYNCING),
        *(State.REPLICATING, State.PROTECTED, State.DEGRADED),
    }
)
"""States in which colod wants the guest to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the session says of the checkpoint that it is reading.

    Attributes:
        suspended_s: For how long the guest has been suspended for it, None while there is none.
        waits_for: What reading waits for: `link`, `gate`, `switchover`, `xl`, or "".
        sealed_epoch: The newest epoch that is whole.
        acked_epoch: The newest that is acknowledged.
        last_ack_age_s: Age of that acknowledgement; below 0 if there was none.
        staging_bytes: Room for what is not acknowledged.
        gate_error: The gate's last failure.
    """

    suspended_s: float | None = None
    waits_for: str = ""
    sealed_epoch: int = 0
    acked_epoch: int = 0
    last_ack_age_s: float = -1.0
    staging_bytes: int = 0
    gate_error: str = ""


class Standstill:
    """For how long the guest was seen to stand still; what was not seen does not count."""

    def __init__(self) -> None:
        """Know nothing."""
        self._is_known = False
        self._since: float | None = None
        self._seen_s = 0.0
        self._told_s = 0.0
        self._epoch = 0

    def look(self, view: View, checkpoint: Checkpoint, now: float) -> None:
        """Take note of a look at the guest's domain.

        Args:
            view: The facts.
            checkpoint: What the session said last.
            now: Monotonic time of the facts.
        """
        self._is_known = is_at_home(view) and view.guest not in (Copy.ABSENT, Copy.DOWN)
        is_same = view.guest is Copy.PAUSED or checkpoint.sealed_epoch == self._epoch
        self._epoch = checkpoint.sealed_epoch
        if not self._is_known or view.guest is Copy.RUNNING:
            self._since = None
        elif self._since is None or not is_same:
            self._since = now
        self._seen_s = 0.0 if self._since is None else now - self._since
        self.told(checkpoint)

    def told(self, checkpoint: Checkpoint) -> None:
        """Take note of what the session says just now."""
        self._told_s = checkpoint.suspended_s or 0.0

    @property
    def lasts_s(self) -> float | None:
        """For how long; 0 while the guest runs, None where it is not known."""
        return max(self._seen_s, self._told_s) if self._is_known else None


def is_at_home(view: View) -> bool:
    """Whether the guest should run on this host, as far as is known: it has not been lost."""
    if view.journal.record is None:
        return view.journal.role is Role.PRIMARY
    return view.is_mine


def why(view: View, checkpoint: Checkpoint, state: State, cause: str) -> str:
    """Say why a guest stands still, as far as is known.

    Args:
        view: The facts.
        checkpoint: What the session said last.
        state: What was decided on them.
        cause: Why that.
    """
    decided = f"{state}{f': {cause}' if cause else ''}"
    if view.guest is Copy.PAUSED:
        if view.journal.held or state not in _RUNS_IN:
            return f"colod holds it, {decided}"
        return "it was paused, and not by colod: xl unpause lets it go on"
    if view.link in (Link.NONE, Link.BROKEN):
        return f"its checkpoint did not end ({view.link_error or 'no session'}), {decided}"
    return _of_checkpoint(checkpoint)


def _of_checkpoint(checkpoint: Checkpoint) -> str:
    match checkpoint.waits_for:
        case "link":
            unacked = checkpoint.sealed_epoch - checkpoint.acked_epoch
            ago_s = checkpoint.last_ack_age_s
            last = f", the last acknowledgement is {ago_s:.1f} s old" if ago_s >= 0 else ""
            return (
                f"backpressure: the {checkpoint.staging_bytes >> 20} MiB of session.staging_mib "
                f"are full and the link takes no more; {max(0, unacked)} whole epochs are not "
                f"acknowledged{last}"
            )
        case "gate":
            error = f": {checkpoint.gate_error}" if checkpoint.gate_error else ""
            return f"the output gate has not set its barrier yet{error}"
        case "switchover":
            return "its last checkpoint is kept open for a switchover"
        case "xl":
            return "xl has suspended it and writes nothing: xl or its save helper stands still"
        case _:
            return "it is in a checkpoint, and nobody knows what that waits for"
