"""The bytes that the secondary has produced of a TCP stream, by their position."""

from __future__ import annotations

from bisect import bisect_right

CONFLICT = -1


class Runs:
    """Bytes at positions, as runs that neither touch nor overlap.

    Nearly always there is one run that grows at its end and is trimmed at its beginning, which
    bytearray does without moving the rest.

    A part of it is *shared*: bytes without a gap that the primary has produced, too.
    """

    __slots__ = ("_high", "_low", "_runs", "_starts", "size")

    def __init__(self) -> None:
        """Begin with none; `size` is the number of bytes held."""
        self._low = self._high = 0
        self._starts: list[int] = []
        self._runs: list[bytearray] = []
        self.size = 0

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._starts)

    def add(self, at: int, octets: bytes) -> bool:
        """Take bytes that begin at `at`; False, and nothing taken, if others are known there."""
        if not octets:
            return True
        index = bisect_right(self._starts, at) - 1
        if index >= 0:
            done = self._add_to(index, at, octets)
            if done is not None:
                return done
        return self._merge(at, octets)

    def match(self, at: int, octets: bytes) -> int:
        """Return how many of `octets` at `at` are known from the first on, or CONFLICT.

        CONFLICT is returned if one of those differs.
        """
        index = bisect_right(self._starts, at) - 1
        if index < 0:
            return 0
        run = self._runs[index]
        offset = at - self._starts[index]
        count = min(len(octets), len(run) - offset)
        if count <= 0:
            return 0
        wanted = octets if count == len(octets) else octets[:count]
        return count if run.startswith(wanted, offset) else CONFLICT

    def share(self, at: int, end: int) -> None:
        """Take note that the primary has produced these bytes, too, all of which are known.

        Of parts with a gap between them only the newest counts: less is kept then, never more.
        """
        if at == end:
            return
        if at > self._high or end < self._low or self._low == self._high:
            if end > self._high:
                self._low, self._high = at, end
        else:
            self._low, self._high = min(at, self._low), max(end, self._high)

    def keep_shared(self) -> None:
        """Forget what is not shared."""
        self.trim(self._low)
        while self._starts and self._starts[-1] + len(self._runs[-1]) > self._high:
            keep = max(0, self._high - self._starts[-1])
            self.size -= len(self._runs[-1]) - keep
            del self._runs[-1][keep:]
            if not keep:
                del self._starts[-1], self._runs[-1]

    def trim(self, below: int) -> None:
        """Forget what lies before position `below`."""
        while self._starts and self._starts[0] < below:
            count = min(below - self._starts[0], len(self._runs[0]))
            self.size -= count
            if count == len(self._runs[0]):
                del self._starts[0], self._runs[0]
            else:
                del self._runs[0][:count]
                self._starts[0] += count
        self._low = min(self._high, max(self._low, below))

    def forget_lowest(self) -> None:
        """Forget the run with the lowest position."""
        self.trim(self._starts[0] + len(self._runs[0]))

    def clear(self) -> None:
        """Forget everything."""
        self._starts.clear()
        self._runs.clear()
        self.size = self._low = self._high = 0

    def _add_to(self, index: int, at: int, octets: bytes) -> bool | None:
        """Add to one run; None if that does not do."""
        run = self._runs[index]
        offset = at - self._starts[index]
        known = len(run) - offset
        if known < 0:
            return None
        if known >= len(octets):
            return run.startswith(octets, offset)
        end = at + len(octets)
        if index + 1 < len(self._starts) and end >= self._starts[index + 1]:
            return None
        if known and not run.startswith(octets[:known], offset):
            return False
        run += octets[known:]
        self.size += len(octets) - known
        return True

    def _merge(self, at: int, octets: bytes) -> bool:
        """Add to, before and between any number of runs."""
        end = at + len(octets)
        first = max(0, bisect_right(self._starts, at) - 1)
        if first < len(self._starts) and self._starts[first] + len(self._runs[first]) < at:
            first += 1
        last = bisect_right(self._starts, end)
        touched = list(zip(self._starts[first:last], self._runs[first:last], strict=True))
        for start, run in touched:
            low, high = max(at, start), min(end, start + len(run))
            if low < high and run[low - start : high - start] != octets[low - at : high - at]:
                return False
        begin = min(at, touched[0][0]) if touched else at
        stop = max(end, touched[-1][0] + len(touched[-1][1])) if touched else end
        merged = bytearray(stop - begin)
        merged[at - begin : end - begin] = octets
        for start, run in touched:
            merged[start - begin : start - begin + len(run)] = run
        self.size += len(merged) - sum(len(run) for _, run in touched)
        self._starts[first:last] = [begin]
        self._runs[first:last] = [merged]
        return True
