"""The sender's bounded memory between libxl's pipe and the link.

libxc writes the guest's dirty pages while the guest is suspended, so what takes them out must not
wait for the link: it fills a ring at the speed of memory, and the link empties it. The ring is all
there is: when it is full, libxl's pipe is not read, and that is counted.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import deque
from dataclasses import dataclass

from colod.stream.frames import MAX_DATA_BYTES


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of one epoch, at most MAX_DATA_BYTES."""

    epoch: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Sealed:
    """All bytes of the epoch came before."""

    epoch: int


Piece = Data | Sealed


class Staging:
    """A ring of bytes that belong to epochs.

    Fill it by `room`, `add` and `seal`; empty it by `next` and `taken`.
    """

    def __init__(self, octets: int) -> None:
        """Reserve `octets` bytes; only what was in use at once ever takes memory.

        Raises:
            OSError: If there is not so much.
        """
        memory = mmap.mmap(-1, octets)
        with contextlib.suppress(OSError, AttributeError):
            memory.madvise(mmap.MADV_HUGEPAGE)  # fewer faults while the guest is suspended
        self._memory = memoryview(memory)
        self._begin = 0
        self._used = 0
        self._peak = 0
        self._waiting: deque[tuple[int, int]] = deque()  # (epoch, bytes), 0 bytes for its seal
        self._out = 0

    @property
    def used_bytes(self) -> int:
        """What is held."""
        return self._used

    @property
    def peak_bytes(self) -> int:
        """The most that was ever held at once."""
        return self._peak

    @property
    def is_empty(self) -> bool:
        """Whether everything was taken, seals too."""
        return not self._waiting

    def room(self, most: int, bound: int) -> memoryview:
        """Return a place for the next bytes, empty if there is none now.

        Use it at once: a later `taken` may begin the ring anew.

        Args:
            most: Longest that is of use.
            bound: Most that may be held, for now.
        """
        size = len(self._memory)
        if not self._used:
            self._begin = 0  # an idle guest keeps to the same few pages
        at = (self._begin + self._used) % size
        free = min(size, bound) - self._used
        return self._memory[at : at + max(0, min(most, free, size - at))]

    def add(self, epoch: int, count: int) -> None:
        """Take note that the next `count` bytes, put into the last `room`, are of `epoch`."""
        self._used += count
        self._peak = max(self._peak, self._used)
        if self._waiting and self._waiting[-1][0] == epoch:
            count += self._waiting.pop()[1]
        self._waiting.append((epoch, count))

    def seal(self, epoch: int) -> None:
        """Take note that `epoch` is whole."""
        self._waiting.append((epoch, 0))

    def next(self) -> Piece | None:
        """Return what is to be sent next, None for nothing; it stays until `taken`."""
        if not self._waiting:
            return None
        epoch, count = self._waiting[0]
        if not count:
            return Sealed(epoch)
        whole = min(count, MAX_DATA_BYTES, len(self._memory) - self._begin)
        self._out = whole
        return Data(epoch, self._memory[self._begin : self._begin + whole])

    def taken(self) -> None:
        """Free what `next` returned last."""
        epoch, count = self._waiting.popleft()
        rest = count - self._out
        if rest:
            self._waiting.appendleft((epoch, rest))
        self._begin = (self._begin + self._out) % len(self._memory)
        self._used -= self._out
        self._out = 0
