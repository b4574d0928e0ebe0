"""The pages that the other side is known to have, bounded.

Sender and receiver each keep one of the same size and put the same pages into it in the same
order; then both know of the same pages, also of those that were dropped for newer ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from colod.stream.delta.terms import MIN_PAGES

PAGE_WORDS: Final = 512
"""Words of 64 bits in a page of 4096 bytes."""
BATCH_PAGES: Final = MIN_PAGES
"""Pages that are worked on at a time: many, as each batch has its price in calls, but few enough
for the processor's cache, and for a block that takes them in even when they are noise."""

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]


def memory_pages(max_pages: int) -> Words:
    """Return room for `max_pages` pages in memory, which is taken only as it is written to."""
    return np.zeros((max_pages, PAGE_WORDS), np.uint64)


def mapped_pages(fileno: int, max_pages: int) -> Words:
    """Return room for `max_pages` pages in a file, for guests that memory has no place for.

    Args:
        fileno: An open file of at least `max_pages` * 4096 bytes. Its blocks must be allocated
            (`posix_fallocate`): a disk that fills up later ends the process by SIGBUS.
        max_pages: At least BATCH_PAGES.
    """
    import mmap

    room = mmap.mmap(fileno, max_pages * PAGE_WORDS * 8)
    return np.frombuffer(room, np.uint64).reshape(max_pages, PAGE_WORDS)


@dataclass(slots=True)
class _Undo:
    """What a change of some slots replaced."""

    slots: Ints
    owners: Ints
    pages: Words
    cursor: int


class PageStore:
    """Contents by PFN. When it is full, what has been in it for the longest time makes room.

    Calls are heavy (they copy pages) and let other threads run meanwhile; only one thread at a
    time may use a store.
    """

    def __init__(self, pages: Words, *, pfn_limit: int, keeps_undo: bool = False) -> None:
        """Know no page yet.

        Args:
            pages: Where contents are kept: `memory_pages` or `mapped_pages`. Whatever is in it
                is ignored.
            pfn_limit: PFNs from here on are not kept. The index takes 4 bytes for each PFN that
                is, in whole pages of memory, and only where PFNs are in use.
            keeps_undo: Whether `rollback` is possible. It costs a copy of each page that an
                epoch changes, until that epoch is committed.

        Raises:
            ValueError: There is room for less than BATCH_PAGES pages.
        """
        if len(pages) < BATCH_PAGES:
            message = f"a page store needs room for {BATCH_PAGES} pages, not {len(pages)}"
            raise ValueError(message)
        self._pages = pages
        self._words = pages.reshape(-1)  # a view
        self._owners = np.full(len(pages), -1, np.int64)
        self._index = np.zeros(pfn_limit, np.uint32)  # slot + 1, 0 for none
        self._cursor = 0
        self._undo: list[list[_Undo]] | None = [[]] if keeps_undo else None
        self._held = 0

    @property
    def max_pages(self) -> int:
        """How many pages fit."""
        return len(self._pages)

    @property
    def pfn_limit(self) -> int:
        """The first PFN that is not kept."""
        return len(self._index)

    @property
    def pages_held(self) -> int:
        """How many pages are in it."""
        return self._held

    def eligible(self, pfns: Words) -> Ints:
        """Return the PFNs of one record, with -1 for those that must not be kept.

        These are PFNs beyond the limit, and all but the first mention of one, whose order within
        a batch would matter. Both sides must ask this before `find`.
        """
        if not len(pfns) or (pfns[-1] < self.pfn_limit and bool((pfns[1:] > pfns[:-1]).all())):
            return pfns.astype(np.int64)  # ascending, as libxc writes them
        chosen = np.full(len(pfns), -1, np.int64)
        unique, first = np.unique(pfns, return_index=True)
        kept = first[unique < self.pfn_limit]
        chosen[kept] = pfns[kept].astype(np.int64)
        return chosen

    def find(self, pfns: Ints) -> Ints:
        """Return the slot of each page, -1 where it is not held. A PFN of -1 is in no slot."""
        slots = self._index[pfns].astype(np.int64) - 1
        slots[pfns < 0] = -1
        return slots

    def gather(self, slots: Ints, out: Words) -> None:
        """Copy the pages in `slots` to `out`; what comes for a slot of -1 is arbitrary."""
        # "clip" lets numpy write to `out` without a copy between.
        np.take(self._pages, slots, axis=0, out=out, mode="clip")

    def patch(self, slots: Ints, at: Ints, words: Words) -> None:
        """Change single words of held pages.

        Args:
            slots: The pages that change, each once.
            at: For each word, its slot times PAGE_WORDS plus its place in the page.
            words: The new words.
        """
        self._save(slots)
        self._words[at] = words

    def replace(self, slots: Ints, contents: Words) -> None:
        """Give held pages new contents."""
        self._save(slots)
        self._pages[slots] = contents

    def insert(self, pfns: Ints, contents: Words) -> None:
        """Hold at most BATCH_PAGES new pages, each once; the oldest make room where needed."""
        slots = (self._cursor + np.arange(len(pfns))) % len(self._pages)
        self._save(slots)
        self._disown(slots)
        self._cursor = int(self._cursor + len(pfns)) % len(self._pages)
        self._owners[slots] = pfns
        self._index[pfns] = slots + 1
        self._held += len(pfns)
        self._pages[slots] = contents

    def seal(self) -> None:
        """Say that an epoch ends here: what comes is the next one's."""
        if self._undo is not None:
            self._undo.append([])

    def commit(self) -> None:
        """Make the changes of the oldest sealed epoch lasting."""
        if self._undo is not None:
            assert len(self._undo) > 1, "nothing is sealed"
            self._undo.pop(0)

    def rollback(self) -> None:
        """Undo the changes of all epochs that were not committed; only with `keeps_undo`."""
        assert self._undo is not None
        for change in reversed([change for epoch in self._undo for change in epoch]):
            self._disown(change.slots)
            self._pages[change.slots] = change.pages
            self._owners[change.slots] = change.owners
            self._cursor = change.cursor
            owned = change.owners >= 0
            self._index[change.owners[owned]] = change.slots[owned] + 1
            self._held += int(np.count_nonzero(owned))
        self._undo = [[]]

    def _disown(self, slots: Ints) -> None:
        owners = self._owners[slots]
        owners = owners[owners >= 0]
        self._index[owners] = 0
        self._held -= len(owners)

    def _save(self, slots: Ints) -> None:
        if self._undo is not None:
            change = _Undo(slots, self._owners[slots], self._pages[slots], self._cursor)
            self._undo[-1].append(change)
