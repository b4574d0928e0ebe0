"""What is measured of every epoch, counted in histograms that live as long as their session.

The session counts and the daemon only passes on, so that neither the daemon's restart nor the time
between two of its looks loses an epoch. Buckets are fixed: histograms of all guests can be added.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Measure(StrEnum):
    """A quantity of one epoch; its unit is the end of its name."""

    PAUSE = "pause_seconds"
    COPY = "copy_seconds"
    ACK_WAIT = "ack_wait_seconds"
    HOLD = "hold_seconds"
    STREAM = "stream_bytes"
    WIRE = "wire_bytes"
    PAGES = "pages"
    PAGES_SAME = "same_pages"
    PAGES_DELTA = "delta_pages"
    PAGES_RAW = "raw_pages"
    COMPARE = "compare_seconds"


MEANINGS: Final[Mapping[Measure, str]] = {
    Measure.PAUSE: "How long the guest was suspended: the epoch's first byte to libxc's CHECKPOINT",
    Measure.COPY: "The epoch's first byte to its last one, as they were read from libxl",
    Measure.ACK_WAIT: "The epoch's last byte to its acknowledgement",
    Measure.HOLD: "The longest that a packet can have been held until the epoch let it go",
    Measure.STREAM: "Bytes of the epoch in libxl's stream",
    Measure.WIRE: "Bytes of the epoch on the link, frames and all",
    Measure.PAGES: "Pages with contents in the epoch",
    Measure.PAGES_SAME: "With deltas: pages that had not changed since they were last sent",
    Measure.PAGES_DELTA: "With deltas: pages sent as what had changed",
    Measure.PAGES_RAW: "With deltas: pages sent whole",
    Measure.COMPARE: "In COLO, of each frame of the primary: how long it was held",
}

_SECONDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0),
)
_BYTES: Final = tuple(float(1 << shift) for shift in range(12, 36, 2))
_PAGES: Final = tuple(float(1 << shift) for shift in range(0, 24, 2))


def bounds_of(measure: Measure) -> tuple[float, ...]:
    """Return the upper bounds of a measure's buckets, without the last one, which has none."""
    if measure.endswith("seconds"):
        return _SECONDS
    return _BYTES if measure.endswith("bytes") else _PAGES


class Histogram:
    """Counts values in buckets.

    Attributes:
        counts: How many values were in each bucket, at most its bound; the last has no bound.
        total: The sum of all values.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin with nothing counted."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Measures:
    """The histograms of one session."""

    def __init__(self) -> None:
        """Begin with nothing measured."""
        self._histograms: dict[Measure, Histogram] = {}

    def observe(self, measure: Measure, value: float) -> None:
        """Count one value; one below 0 stands for "not known" and is not counted."""
        if value < 0:
            return
        histogram = self._histograms.get(measure)
        if histogram is None:
            histogram = self._histograms[measure] = Histogram(bounds_of(measure))
        histogram.observe(value)

    def histograms(self) -> Mapping[Measure, Histogram]:
        """Return what was measured; a measure without any value is not there."""
        return self._histograms
