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

_DENSE: Final = PAGE_WORDS // 2
"""From so many changed words on, a page may take fewer when it is described anew."""
_TILE_PAGES: Final = 48
"""Pages compared at a time: what they are compared with stays in the processor's cache."""
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
        self._old = np.empty((_TILE_PAGES, PAGE_WORDS), np.uint64)
        self._mask = np.empty((BATCH_PAGES, PAGE_WORDS), np.bool_)

    def encode(self, pfns: Ints, pages: Words) -> tuple[Octets, Octets, Words]:
        """Return the pages' classes, bitmaps and words, and keep the pages.

        Args:
            pfns: At most BATCH_PAGES, as `PageStore.eligible` returned them.
            pages: Their contents, aligned.
        """
        slots = self._store.find(pfns)
        is_new = slots < 0
        mask = self._compare(slots, pages, is_new if is_new.any() else None)
        bitmaps, sizes = _packed(mask)
        classes = (sizes > 0).view(np.uint8)  # SAME or DELTA
        classes[is_new] = _RAW
        classes[pfns < 0] = _PASS
        self._rewrite_dense(classes, pages, bitmaps, sizes)
        self.counts.add(classes, sizes)
        coded = classes.nonzero()[0]
        changes = _Changes(mask[coded])
        words = pages.reshape(-1)[changes.within(coded)]
        _keep(self._store, pfns, slots, classes, pages, changes, words)
        return classes, bitmaps[coded], words

    def _compare(
        self, slots: Ints, pages: Words, is_new: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_]:
        """Return which words are not as they are held, or not zero in pages that are not held."""
        mask = self._mask[: len(pages)]
        for begin in range(0, len(pages), _TILE_PAGES):
            tile = slice(begin, begin + _TILE_PAGES)
            old = self._old[: len(slots[tile])]
            self._store.gather(slots[tile], old)
            if is_new is not None:
                old[is_new[tile]] = 0
            np.not_equal(pages[tile], old, out=mask[tile])
        return mask

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
    changes = _Changes(np.unpackbits(bitmaps))
    out.reshape(-1)[changes.within(classes.nonzero()[0])] = words
    _keep(store, pfns, slots, classes, out, changes, words)


class _Changes:
    """Where the words that are sent lie, in the rows of the pages that are not SAME."""

    def __init__(self, mask: NDArray[np.bool_] | Octets) -> None:
        at = mask.reshape(-1).nonzero()[0]
        self.rows = at >> _COLUMN_BITS
        self.columns = at & _COLUMN

    def within(self, places: Ints) -> Ints:
        """Return the words' indices where the pages lie at `places`."""
        within: Ints = (places << _COLUMN_BITS)[self.rows] + self.columns
        return within


def _keep(
    store: PageStore,
    pfns: Ints,
    slots: Ints,
    classes: Octets,
    pages: Words,
    changes: _Changes,
    words: Words,
) -> None:
    """Bring a store to what the other side has: first what it holds, then what is new to it."""
    coded = classes.nonzero()[0]
    is_delta = classes[coded] == _DELTA
    if is_delta.all():
        store.patch(slots[coded], changes.within(slots[coded]), words)
        return
    chosen = is_delta[changes.rows]
    if chosen.any():
        at = changes.within(slots[coded])[chosen]
        store.patch(slots[coded[is_delta]], at, words[chosen])
    is_raw = classes == _RAW
    rewritten = (is_raw & (slots >= 0)).nonzero()[0]
    if len(rewritten):
        store.replace(slots[rewritten], pages[rewritten])
    new = (is_raw & (slots < 0)).nonzero()[0]
    if len(new):
        store.insert(pfns[new], pages[new])


def _packed(mask: NDArray[np.bool_]) -> tuple[Octets, Ints]:
    """Return the bitmap of each row, and how many bits it has."""
    bitmaps = np.packbits(mask, axis=None).reshape(-1, BITMAP_BYTES)
    return bitmaps, np.bitwise_count(bitmaps.view(np.uint64)).sum(axis=1, dtype=np.int64)
