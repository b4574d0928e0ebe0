"""What several looks at a guest tell together: the traffic on its link, and its last lags."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from colod.measures import Measure

if TYPE_CHECKING:
    from colod.v1.admin_pb2 import ProtectionStatus

KEPT: Final = 60
"""How many lags are kept."""

_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.:-=+*#"
_UNKNOWN: Final = "·"
_PLAIN_UNKNOWN: Final = "?"


class Trend:
    """One guest over time.

    Attributes:
        lags: Its last lags in seconds, oldest first; None was not known.
        wire_bytes_per_s: Bytes on the link between the last two looks, of epochs that were
            acknowledged meanwhile; None where that is not known.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.lags: deque[float | None] = deque(maxlen=KEPT)
        self.wire_bytes_per_s: float | None = None
        self._pairing = ""
        self._total: float | None = None
        self._looked_at = 0.0

    def add(self, status: ProtectionStatus, lag_s: float | None, now: float) -> None:
        """Note a look at monotonic time `now`."""
        self.lags.append(lag_s)
        histogram = status.measures.get(Measure.WIRE)
        total = None if histogram is None else histogram.total
        self.wire_bytes_per_s = self._rate(status.pairing, total, now)
        self._pairing, self._total, self._looked_at = status.pairing, total, now

    def _rate(self, pairing: str, total: float | None, now: float) -> float | None:
        """Return the rate since the last look, if that was at the same session."""
        since_s = now - self._looked_at
        if total is None or self._total is None or pairing != self._pairing or since_s <= 0:
            return None
        return (total - self._total) / since_s if total >= self._total else None


def sparkline(values: Sequence[float | None], width: int, *, plain: bool = False) -> str:
    """Draw the last `width` values from 0 to their greatest.

    Args:
        values: Oldest first; None is drawn as not known, never as 0.
        width: Most characters.
        plain: Whether to draw in ASCII.
    """
    bars, unknown = (_PLAIN_BARS, _PLAIN_UNKNOWN) if plain else (_BARS, _UNKNOWN)
    shown = list(islice(values, max(0, len(values) - width), None))
    greatest = max((value for value in shown if value is not None), default=0.0)
    return "".join(
        unknown if value is None else bars[_level(value, greatest, len(bars))] for value in shown
    )


def _level(value: float, greatest: float, levels: int) -> int:
    return min(levels - 1, int(value / greatest * levels)) if greatest > 0 else 0
