"""The newest contents and type of every page that a stream has brought."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from colod.errors import CheckpointError
from colod.stream import libxc
from colod.stream.libxc import PageType

PAGE_BYTES: Final = 1 << libxc.PAGE_SHIFT
PFN_LIMIT: Final = 1 << 26
"""Guests up to 256 GiB; one byte of memory is taken for each PFN up to the highest one seen."""

UNSEEN: Final = 0xFF
_TYPE_MASK: Final = 0x0F
_HAS_CONTENTS: Final = 0x10
_BARE: Final = frozenset(map(int, libxc.PAGE_TYPES_WITHOUT_DATA))
_XALLOC: Final = int(PageType.XALLOC)


class PageFile(Protocol):
    """Where contents are kept; errors of the medium are OSErrors."""

    def write(self, pfn: int, contents: memoryview) -> None:
        """Keep the contents of the pages from `pfn` on."""
        ...

    def read(self, pfn: int, count: int) -> bytes:
        """Return the contents of `count` pages from `pfn` on, which were written before."""
        ...


class PageMap:
    """Types in memory, contents in a `PageFile`."""

    def __init__(self, file: PageFile, *, max_pages: int) -> None:
        """Know no page yet.

        Args:
            file: Where contents go.
            max_pages: Most pages whose contents may take room there.
        """
        self._file = file
        self._max_pages = max_pages
        self._types = bytearray()
        self.pages = 0

    def types(self) -> bytearray:
        """Return a copy of the types by PFN, UNSEEN for a page that never came."""
        table = bytes(range(_HAS_CONTENTS)) * 2
        return self._types.translate(table + bytes([UNSEEN]) * (256 - len(table)))

    def put(self, entries: Sequence[int], contents: memoryview) -> None:
        """Take over one PAGE_DATA record.

        Args:
            entries: PFNs with their types, as in the record.
            contents: Of those whose type has any, in order.

        Raises:
            CheckpointError: If a PFN is beyond the limit, there is no room for it, or the contents
                are not those of the list.
            OSError: If the file cannot be written.
        """
        begin, first, count, at = 0, 0, 0, 0
        for entry in entries:
            pfn, kind = entry & libxc.PFN_MASK, entry >> libxc.PAGE_TYPE_SHIFT
            if not self._note(pfn, kind):
                continue
            if not count or pfn != first + count:
                self._store(first, contents[begin:at])
                begin, first, count = at, pfn, 0
            count += 1
            at += PAGE_BYTES
        if at != len(contents):
            raise CheckpointError(f"{len(contents)} bytes of contents where {at} are due")
        self._store(first, contents[begin:at])

    def read(self, pfns: Sequence[int]) -> Iterator[bytes]:
        """Yield the contents of pages that have any, in order, neighbours in one piece."""
        for first, count in _runs(pfns):
            yield self._file.read(first, count)

    def _note(self, pfn: int, kind: int) -> bool:
        """Remember a page's type; return whether contents come with it."""
        if pfn >= PFN_LIMIT:
            raise CheckpointError(f"PFN {pfn:#x} is beyond the limit of {PFN_LIMIT:#x}")
        if pfn >= len(self._types):
            self._types += bytes([UNSEEN]) * (pfn + 1 - len(self._types))
        was = self._types[pfn]
        had = 0 if was == UNSEEN else was & _HAS_CONTENTS
        if kind in _BARE:
            # "Allocate only" gives no contents: a page that has some keeps them, as in a restore.
            if kind != _XALLOC or was == UNSEEN or was & _TYPE_MASK in _BARE:
                self._types[pfn] = kind | had
            return False
        if not had:
            self._count()
        self._types[pfn] = kind | _HAS_CONTENTS
        return True

    def _count(self) -> None:
        self.pages += 1
        if self.pages > self._max_pages:
            raise CheckpointError(
                f"the guest has more than the {self._max_pages} pages that may be kept of it",
                advice="raise checkpoints.store_mib on the secondary",
            )

    def _store(self, pfn: int, contents: memoryview) -> None:
        if contents:
            self._file.write(pfn, contents)


def has_contents(kind: int) -> bool:
    """Tell whether pages of this type have contents in a stream."""
    return kind not in _BARE


def _runs(pfns: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of neighbours."""
    first = count = 0
    for pfn in pfns:
        if count and pfn == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = pfn, 1
    if count:
        yield first, count
