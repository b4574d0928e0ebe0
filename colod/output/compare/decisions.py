"""What the comparator decides: what may leave, what is dropped, and when a checkpoint is due."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple


class Side(Enum):
    """Which of the two running copies sent a frame."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class Reason(StrEnum):
    """Why a checkpoint is asked for."""

    PAYLOAD = "payload"
    """The two copies sent different bytes at the same place of a TCP stream."""
    SYN_OPTIONS = "syn_options"
    """They offered or accepted a connection on different terms."""
    ACK_WINDOW = "ack_window"
    """The primary acknowledged, or has room for, more than the secondary, for too long."""
    FIN_RST = "fin_rst"
    """They ended a connection at different places, or one of them ended it alone."""
    UNMATCHED = "unmatched"
    """A packet that is not TCP found no equal in time."""
    TIMEOUT = "timeout"
    """Bytes of a TCP stream, or a SYN, found no equal in time."""
    SPACE = "space"
    """A bound is near, or was reached."""
    PERIODIC = "periodic"
    """The longest time between two checkpoints has passed."""
    OPERATOR = "operator"
    """Somebody asked for it."""


DIVERGENCE = frozenset(Reason) - {Reason.PERIODIC, Reason.OPERATOR}
"""Reasons that the comparator has: what COLO costs more than checkpoints by the clock."""


class Release(NamedTuple):
    """Send this frame of the primary now: as it came, but for a window that was clamped."""

    frame: bytes


class Drop(NamedTuple):
    """Forget this frame of the secondary: it was compared, or a checkpoint made it void."""

    frame: bytes


class Lose(NamedTuple):
    """Forget this frame of the primary: there was no room to hold it and no proof to send it.

    The network loses it, as a full queue would; count it, and raise an alarm. It comes only when a
    checkpoint was asked for at half of a bound and was not made before the bound itself.
    """

    frame: bytes


class RequestCheckpoint(NamedTuple):
    """Make a checkpoint; not repeated before `Comparator.checkpoint_committed`."""

    reason: Reason


Decision = Release | Drop | Lose | RequestCheckpoint
Decisions = tuple[Decision, ...]
"""The order is the order of execution."""
