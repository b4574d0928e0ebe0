"""Finds the pages in libxl's stream as it goes by.

Unlike `StreamParser` it raises nothing: what it does not understand is passed on literally, and
whether the stream is sound is the parser's business.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from enum import Enum
from typing import Final

import numpy as np

from colod.stream import libxc, libxl, xl
from colod.stream.delta.store import Words
from colod.stream.record import REC_HEADER_BYTES, ByteOrder, padded_length, record_header

PAGE_BYTES: Final = 1 << libxc.PAGE_SHIFT
MAX_PFNS: Final = 4096
"""Longest list of PFNs that is looked at; libxc writes at most 1024 to a record."""

_PFN_SHIFT: Final = np.uint64(libxc.PAGE_TYPE_SHIFT)
_PFN_MASK: Final = np.uint64(libxc.PFN_MASK)
_FIRST_TYPE_WITHOUT_DATA: Final = np.uint64(min(libxc.PAGE_TYPES_WITHOUT_DATA))


class Part(Enum):
    """What a piece of the stream is."""

    LITERAL = 0
    """Anything but the following."""
    PFNS = 1
    """The whole list of PFNs and types of one record."""
    PAGES = 2
    """Contents of pages, whole or not, in the order of the list before."""


_Wants = Generator[tuple[Part, int, bool], bytes, None]
"""Yields (kind of what comes next, its bytes, whether it must be sent in whole)."""


def pfns_with_data(entries: Words) -> Words:
    """Return the PFNs of a record's list for which contents follow."""
    return entries[entries >> _PFN_SHIFT < _FIRST_TYPE_WITHOUT_DATA] & _PFN_MASK


class RecordWalk:
    """Cuts a forward stream into parts; together they are the stream, in order."""

    def __init__(self, *, is_in_image: bool = False) -> None:
        """Stand at the beginning of the stream, before xl's header.

        Args:
            is_in_image: Whether to stand between two of libxc's records instead.
        """
        self._steps = self._records(is_in_image) if is_in_image else self._stream()
        self._held = bytearray()
        self._part = Part.LITERAL
        self._left = 0
        self._is_wanted = False
        self._is_whole = True
        self._begin(next(self._steps))

    def feed(self, chunk: memoryview) -> Iterator[tuple[Part, memoryview]]:
        """Yield the parts of the next bytes; views into `chunk`, except for PFNS.

        Part PFNS comes as soon as it is whole, LITERAL and PAGES in any pieces.
        """
        at = literal_at = 0
        while at < len(chunk):
            begin, at = at, min(at + self._left, len(chunk))
            part = self._part
            self._left -= at - begin
            if self._is_wanted:
                self._held += chunk[begin:at]
            if part is not Part.LITERAL:
                if begin > literal_at:
                    yield Part.LITERAL, chunk[literal_at:begin]
                literal_at = at
                if part is Part.PAGES:
                    yield part, chunk[begin:at]
                elif not self._left:
                    yield part, memoryview(bytes(self._held))
            self._go_on()
        if literal_at < at:
            yield Part.LITERAL, chunk[literal_at:at]

    def interrupt(self, *, is_page_broken: bool) -> bytes:
        """Return what is held back, so that all that was fed is put out; a list of PFNs if any.

        What is left of that record, or of one with a broken page, becomes literal. Between two
        records nothing is held.
        """
        held = bytes(self._held) if self._part is Part.PFNS else b""
        if held or is_page_broken:
            self._part, self._is_whole = Part.LITERAL, False
        return held

    def _go_on(self) -> None:
        while not self._left:
            held = bytes(self._held)
            self._held.clear()
            self._begin(self._steps.send(held))

    def _begin(self, want: tuple[Part, int, bool]) -> None:
        self._part, self._left, self._is_wanted = want
        self._is_whole = True

    def _take(self, size: int) -> Generator[tuple[Part, int, bool], bytes, bytes]:
        return (yield Part.LITERAL, size, True)

    def _skip(self, size: int) -> _Wants:
        yield Part.LITERAL, size, False

    # -- the stream's grammar, as far as pages need it

    def _stream(self) -> _Wants:
        if (yield from self._headers()) is ByteOrder.LITTLE:
            yield from self._records(False)
        # x86 writes no other order: not worth more than passing on.
        yield from self._endless()

    def _records(self, is_in_image: bool) -> _Wants:
        """Pass all records of libxl's level, and between them libxc's image."""
        kind = None
        while kind != libxl.RecordType.END:
            if is_in_image:
                yield from self._image()
            kind = yield from self._record()
            is_in_image = kind == libxl.RecordType.LIBXC_CONTEXT
            if is_in_image:
                headers = libxc.IMAGE_HEADER.size + libxc.domain_header(ByteOrder.LITTLE).size
                yield from self._skip(headers)
        yield from self._endless()

    def _endless(self) -> _Wants:
        while True:
            yield from self._skip(1 << 62)

    def _headers(self) -> Generator[tuple[Part, int, bool], bytes, ByteOrder | None]:
        raw = yield from self._take(xl.HEADER_BYTES)
        order = xl.header_fields(ByteOrder.LITTLE)
        byte_order, _, _, length = order.unpack_from(raw, len(xl.SAVEFILE_MAGIC))
        if byte_order != xl.SAVEFILE_BYTEORDER_VALUE:
            return None
        yield from self._skip(length)
        raw = yield from self._take(libxl.HEADER.size)
        ident, version, options = libxl.HEADER.unpack(raw)
        if (ident, version) != (libxl.IDENT, libxl.VERSION):
            return None
        return ByteOrder.BIG if options & libxl.OPT_BIG_ENDIAN else ByteOrder.LITTLE

    def _image(self) -> _Wants:
        kind = None
        while kind != libxc.RecordType.END:
            kind = yield from self._record(is_libxc=True)
            while kind == libxc.RecordType.CHECKPOINT:  # libxl's records follow
                if (yield from self._record()) == libxl.RecordType.CHECKPOINT_END:
                    kind = None

    def _record(self, *, is_libxc: bool = False) -> Generator[tuple[Part, int, bool], bytes, int]:
        raw = yield from self._take(REC_HEADER_BYTES)
        kind, length = record_header(ByteOrder.LITTLE).unpack(raw)
        if is_libxc and kind == libxc.RecordType.PAGE_DATA and length:
            yield from self._pages(length)
        else:
            yield from self._skip(padded_length(length))
        return int(kind)

    def _pages(self, length: int) -> _Wants:
        left = padded_length(length)
        if length < libxc.PAGE_DATA_HEADER_BYTES:
            yield from self._skip(left)
            return
        raw = yield from self._take(libxc.PAGE_DATA_HEADER_BYTES)
        count, _ = libxc.counted_header(ByteOrder.LITTLE).unpack(raw)
        left -= libxc.PAGE_DATA_HEADER_BYTES
        list_bytes = count * libxc.PFN_BYTES
        if not 0 < count <= MAX_PFNS or list_bytes > left:
            yield from self._skip(left)
            return
        raw = yield Part.PFNS, list_bytes, True
        left -= list_bytes
        pages = len(pfns_with_data(np.frombuffer(raw, np.uint64)))
        is_regular = self._is_whole and left == pages * PAGE_BYTES
        yield Part.PAGES if is_regular else Part.LITERAL, left, False
