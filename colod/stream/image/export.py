"""Write the image of one moment while the pages go on to change.

The image may hold its pages in any order. So a page that is about to change is written first, and
nothing has to be copied aside: `save` before a change, `step` while there is nothing else to do.

Spec: Xen docs/specs/libxc-migration-stream.pandoc, "PAGE_DATA"; a save image as
docs/specs/libxl-migration-stream.pandoc, "Layout", has it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from colod.stream import libxc, libxl, writer
from colod.stream.image.pages import PAGE_BYTES, UNSEEN, PageMap, has_contents
from colod.stream.record import REC_HEADER_BYTES, ByteOrder, record_header

STEP_PAGES: Final = 256
"""Pages of one step; an epoch that comes meanwhile waits for that long."""
_SCAN_PAGES: Final = 1 << 16
"""PFNs without a page that one step passes over at most."""
_MAX_RECORD_PAGES: Final = 1024
_LITTLE: Final = ByteOrder.LITTLE

Put = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is around the pages of an image.

    Attributes:
        head: All headers, and the records that come before the first page.
        state: libxc's records of the suspended guest, as the newest checkpoint wrote them.
        emulators: libxl's records of the device models, as the newest checkpoint wrote them.
    """

    head: bytes
    state: bytes
    emulators: bytes


class Export:
    """One image on its way out.

    A failure to write ends the export and nothing else: `error` has it.

    Attributes:
        epoch: The epoch that the image is of.
        written_bytes: What was put out.
        total_bytes: Length of the image.
        saved_pages: Pages that were written early, because they were about to change.
        is_done: Whether all was put out.
        error: Why it was given up, None while it was not.
    """

    def __init__(self, pages: PageMap, frame: Frame, put: Put, *, epoch: int) -> None:
        """Write the head; the pages are those of this moment.

        Args:
            pages: All pages; before they change, `save` is to be called.
            frame: What is around them.
            put: Takes the image's bytes; may raise OSError.
            epoch: The epoch that this is.
        """
        self._pages = pages
        self._frame = frame
        self._put = put
        self._left = pages.types()
        self._at = 0
        self.epoch = epoch
        self.written_bytes = 0
        self.saved_pages = 0
        self.is_done = False
        self.error: OSError | None = None
        tail = _end(frame)
        self.total_bytes = len(frame.head) + len(tail) + _pages_bytes(self._left)
        self._write(frame.head)

    def save(self, pfns: Iterable[int]) -> None:
        """Write those of `pfns` that were not written yet; they are about to change."""
        size = len(self._left)
        due = [pfn for pfn in dict.fromkeys(pfns) if pfn < size and self._left[pfn] != UNSEEN]
        for begin in range(0, len(due), _MAX_RECORD_PAGES):
            self._write_pages(due[begin : begin + _MAX_RECORD_PAGES])
        self.saved_pages += len(due)

    def step(self) -> bool:
        """Write some more; return whether there is more to do."""
        if self.is_over:
            return False
        due: list[int] = []
        end = min(len(self._left), self._at + _SCAN_PAGES)
        while self._at < end and len(due) < STEP_PAGES:
            if self._left[self._at] != UNSEEN:
                due.append(self._at)
            self._at += 1
        if due:
            self._write_pages(due)
        elif self._at == len(self._left):
            self._write(_end(self._frame))
            self.is_done = self.error is None
        return not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether it is done or was given up."""
        return self.is_done or self.error is not None

    def _write_pages(self, pfns: Sequence[int]) -> None:
        entries = [pfn | self._left[pfn] << libxc.PAGE_TYPE_SHIFT for pfn in pfns]
        filled = [pfn for pfn in pfns if has_contents(self._left[pfn])]
        for pfn in pfns:
            self._left[pfn] = UNSEEN
        if self.error is not None:
            return
        length = libxc.PAGE_DATA_HEADER_BYTES + libxc.PFN_BYTES * len(pfns)
        length += PAGE_BYTES * len(filled)
        try:
            contents = list(self._pages.read(filled))
        except OSError as error:
            self.error = error
            return
        header = record_header(_LITTLE).pack(libxc.RecordType.PAGE_DATA, length)
        count = libxc.counted_header(_LITTLE).pack(len(pfns), 0)
        listed = struct.pack(f"<{len(entries)}Q", *entries)
        # Records may be split otherwise than was foreseen: only the total tells how far it is.
        self._write(b"".join((header, count, listed, *contents)))

    def _write(self, octets: bytes) -> None:
        if self.error is not None:
            return
        try:
            self._put(octets)
        except OSError as error:
            self.error = error
        self.written_bytes += len(octets)


def _end(frame: Frame) -> bytes:
    return b"".join(
        (
            frame.state,
            writer.libxc_record(libxc.RecordType.END),
            frame.emulators,
            writer.libxl_record(libxl.RecordType.END),
        )
    )


def _pages_bytes(types: bytearray) -> int:
    """Return about what the pages take in an image."""
    bare = sum(types.count(int(kind)) for kind in libxc.PAGE_TYPES_WITHOUT_DATA)
    seen = len(types) - types.count(UNSEEN)
    overhead = (REC_HEADER_BYTES + libxc.PAGE_DATA_HEADER_BYTES) * -(-seen // STEP_PAGES)
    return (seen - bare) * PAGE_BYTES + seen * libxc.PFN_BYTES + overhead
