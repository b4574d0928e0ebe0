"""Packets that are equal or not, in any order."""

from __future__ import annotations

from collections import deque

from colod.output.compare.entry import Entry
from colod.output.compare.identity import Identity


class Multiset:
    """Packets of both sides that wait for an equal one of the other side."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: dict[Identity, deque[Entry]] = {}

    def take(self, identity: Identity, entry: Entry) -> list[Entry]:
        """Take a packet; return it and the longest waiting equal one of the other side, or none.

        Those that wait under one identity are all of one side: another one's would have matched.
        """
        queue = self._waiting.get(identity)
        if queue is None or queue[0].side is entry.side:
            self._waiting.setdefault(identity, deque()).append(entry)
            return []
        match = queue.popleft()
        if not queue:
            del self._waiting[identity]
        return [match, entry]

    def clear(self) -> None:
        """Forget all that wait."""
        self._waiting.clear()
