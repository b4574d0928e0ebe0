"""What sender and receiver do with a batch of pages, vectorised.

`encode` and `decode` are each other's inverse, and leave the two stores equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from colod.errors import StreamError
from colod.stream.delta.block import BITMAP_BYTES, Octets, PageClass
from colod.stream.delta.store import BATCH_PAGES, PAGE_WORDS, Ints, PageStore, Words

_DENSE: Final = PAGE_WORDS // 4
"""From so many changed words on, a page may take fewer when it is described anew."""
_COLUMN_BITS: Final = 9
_COLUMN: Final = PAGE_WORDS - 1
# Members of an enum are slow to look up, and there are batches by the thousand.
_SAME, _DELTA, _RAW, _PASS = map(int, PageClass)


@dataclass(slots=True)
class PageCounts:
    """How many pages were described in which way.

    Attributes:
        same: Unchanged; they cost nothing but their place in the list.
        delta: Changed in part.
        raw: Unknown to the other side, or cheaper than as a change.
        zero: Of `raw`, those without contents.
    """

    same: int = 0
    delta: int = 0
    raw: int = 0
    zero: int = 0

    def add(self, classes: Octets, sizes: Ints) -> None:
        """Count a batch; `sizes` are the words that each page takes."""
        same, delta, *raw = np.bincount(classes, minlength=len(PageClass)).tolist()
        self.same += same
        self.delta += delta
        if any(raw):
            self.raw += sum(raw)
            self.zero += int(np.count_nonzero(sizes[classes >= _RAW] == 0))


class PageEncoder:
    """Describes pages by what the store has of them; keeps its working memory."""

    def __init__(self, store: PageStore) -> None:
        """Work with `store`, which the receiver's must equal."""
        self.counts = PageCounts()
        self._store = store
        self._old = np.empty((BATCH_PAGES, PAGE_WORDS), np.uint64)
        self._mask = np.empty((BATCH_PAGES, PAGE_WORDS), np.bool_)

    def encode(self, pfns: Ints, pages: Words) -> tuple[Octets, Octets, Words]:
        """Return the pages' classes, bitmaps and words, and keep the pages.

        Args:
            pfns: At most BATCH_PAGES, as `PageStore.eligible` returned them.
            pages: Their contents, aligned.
        """
        slots = self._store.find(pfns)
        old, mask = self._old[: len(pfns)], self._mask[: len(pfns)]
        self._store.gather(slots, old)
        is_new = slots < 0
        if is_new.any():
            old[is_new] = 0
        np.not_equal(pages, old, out=mask)
        bitmaps, sizes = _packed(mask)
        classes = (sizes > 0).view(np.uint8)  # SAME or DELTA
        classes[is_new] = _RAW
        classes[pfns < 0] = _PASS
        self._rewrite_dense(classes, pages, bitmaps, sizes)
        _keep(self._store, pfns, slots, classes, pages)
        self.counts.add(classes, sizes)
        coded = classes.nonzero()[0]
        at = mask[coded].reshape(-1).nonzero()[0]
        words = pages.reshape(-1)[(coded << _COLUMN_BITS)[at >> _COLUMN_BITS] + (at & _COLUMN)]
        return classes, bitmaps[coded], words

    def _rewrite_dense(self, classes: Octets, pages: Words, bitmaps: Octets, sizes: Ints) -> None:
        """Describe those pages anew that take no more words that way than as a change."""
        dense = ((sizes >= _DENSE) & (classes == _DELTA)).nonzero()[0]
        if not len(dense):
            return
        contents = pages[dense] != 0
        anew, sizes_anew = _packed(contents)
        is_less = sizes_anew <= sizes[dense]
        chosen = dense[is_less]
        classes[chosen] = _RAW
        bitmaps[chosen], sizes[chosen] = anew[is_less], sizes_anew[is_less]
        self._mask[chosen] = contents[is_less]


def decode(
    store: PageStore, pfns: Ints, coded: tuple[Octets, Octets, Words], out: Words, offset: int
) -> None:
    """Write to `out` the pages that `encode` described, and keep them.

    Args:
        store: The receiver's.
        pfns: At most BATCH_PAGES, as `PageStore.eligible` returned them.
        coded: Classes, bitmaps and words, which agree in their numbers.
        out: As many pages, aligned.
        offset: Where the block begins, for the error.

    Raises:
        StreamError: A page is to be taken or kept that this store cannot have.
    """
    classes, bitmaps, words = coded
    slots = store.find(pfns)
    if np.any((slots < 0) & (classes <= _DELTA)):
        raise StreamError("a change of a page that is not held", offset=offset)
    if np.any((pfns < 0) & (classes == _RAW)):
        raise StreamError("a page that cannot be held is to be kept", offset=offset)
    store.gather(slots, out)
    is_raw = classes >= _RAW
    if is_raw.any():
        out[is_raw] = 0
    at = np.unpackbits(bitmaps).nonzero()[0]
    firsts = classes.nonzero()[0] << _COLUMN_BITS
    out.reshape(-1)[firsts[at >> _COLUMN_BITS] + (at & _COLUMN)] = words
    _keep(store, pfns, slots, classes, out)


def _keep(store: PageStore, pfns: Ints, slots: Ints, classes: Octets, pages: Words) -> None:
    """Bring a store to what the other side has: first what it holds, then what is new to it."""
    is_held = slots >= 0
    changed = (is_held & (classes != _SAME)).nonzero()[0]
    if len(changed):
        store.replace(slots[changed], pages[changed])
    if not is_held.all():
        new = (~is_held & (classes == _RAW)).nonzero()[0]
        store.insert(pfns[new], pages[new])


def _packed(mask: NDArray[np.bool_]) -> tuple[Octets, Ints]:
    """Return the bitmap of each row, and how many bits it has."""
    bitmaps = np.packbits(mask, axis=None).reshape(-1, BITMAP_BYTES)
    return bitmaps, np.bitwise_count(bitmaps.view(np.uint64)).sum(axis=1, dtype=np.int64)
