"""Follow an acknowledged replication stream, and keep what an image of its newest epoch needs."""

from __future__ import annotations

import struct
from typing import Final

from colod.errors import CheckpointError, StreamError
from colod.stream import libxc, libxl, writer, xl
from colod.stream.cursor import Cursor, Steps
from colod.stream.image.export import Export, Frame, Put
from colod.stream.image.pages import PageFile, PageMap
from colod.stream.record import REC_HEADER_BYTES, ByteOrder, padded_length, record_header

_LITTLE: Final = ByteOrder.LITTLE
_MAX_HEAD_RECORDS: Final = 64
MAX_STATE_BYTES: Final = 64 << 20
"""Most that one epoch's records other than of pages may take, and longest record of any kind: those
of real guests are some MiB. The first copy has no end that a receiver knows of before."""


class ImageKeeper:
    """Feed it every byte of the stream, in order, and only of epochs that are acknowledged.

    Of the first epoch, the live copy, it may be fed as it comes. Calls are heavy: they copy pages.
    After an error it is of no more use.
    """

    def __init__(self, file: PageFile, *, max_pages: int) -> None:
        """Stand at the beginning of the stream.

        Args:
            file: Where contents of pages are kept.
            max_pages: Most pages that may take room there.
        """
        self._map = PageMap(file, max_pages=max_pages)
        self._cursor = Cursor()
        self._xl_header = b""
        self._flags = (0, 0)
        self._head = b""
        self._lead: list[tuple[int, bytes]] = []
        self._has_pages = False
        self._coming: tuple[list[bytes], list[bytes]] = ([], [])
        self._coming_bytes = 0
        self._state = self._emulators = b""
        self._export: Export | None = None
        self._is_whole = False
        self.epoch = 0
        self.config = b""
        self._steps = self._stream()
        next(self._steps)

    @property
    def pages(self) -> int:
        """Pages whose contents are kept."""
        return self._map.pages

    @property
    def is_whole(self) -> bool:
        """Whether what is kept is the guest at one moment: the end of `epoch`."""
        return self._is_whole

    def feed(self, octets: bytes | memoryview) -> None:
        """Take the next bytes of the stream.

        Raises:
            StreamError: If they are not what a replication stream has; a record of type VERIFY,
                END, or bytes in big-endian order too.
            CheckpointError: If there are more pages, or other records, than may be kept.
            OSError: If they cannot be kept.
        """
        with memoryview(octets) as view:
            self._is_whole = False
            self._cursor.load(view)
            try:
                next(self._steps)
            finally:
                self._cursor.unload()

    def export(self, put: Put, *, config: bytes = b"") -> Export:
        """Begin to write the image of the newest epoch; have its `step` called until it is over.

        Args:
            put: Takes the image's bytes; may raise OSError.
            config: Takes the place of the domain's configuration (JSON); empty leaves that.

        Raises:
            CheckpointError: If no epoch is whole now.
        """
        if not self._is_whole:
            raise CheckpointError("no epoch is whole yet")
        header = self._xl_header
        if config:
            mandatory, optional = self._flags
            header = writer.xl_header(config, mandatory_flags=mandatory, optional_flags=optional)
        frame = Frame(
            head=header + self._head + b"".join(record for _, record in self._lead),
            state=self._state,
            emulators=self._emulators,
        )
        self._export = Export(self._map, frame, put, epoch=self.epoch)
        return self._export

    def end_export(self) -> None:
        """Let go of the export, done or not."""
        self._export = None

    # --- the stream ---------------------------------------------------------------------------

    def _stream(self) -> Steps[None]:
        yield from self._xl()
        self._head = yield from self._cursor.take(libxl.HEADER.size)
        _, _, options = libxl.HEADER.unpack(self._head)
        if options & libxl.OPT_BIG_ENDIAN:
            raise StreamError("big-endian: no image can be kept", offset=self._cursor.offset)
        context = yield from self._cursor.take(REC_HEADER_BYTES)
        size = libxc.IMAGE_HEADER.size + libxc.domain_header(_LITTLE).size
        self._head += context + (yield from self._cursor.take(size))
        while True:
            yield from self._epoch()

    def _xl(self) -> Steps[None]:
        head = yield from self._cursor.take(xl.HEADER_BYTES)
        fields = xl.header_fields(_LITTLE).unpack_from(head, len(xl.SAVEFILE_MAGIC))
        order, mandatory, optional, length = fields
        if order != xl.SAVEFILE_BYTEORDER_VALUE or length > xl.CONFIG_LENGTH_MAX + 8:
            raise StreamError("xl's header is not one to keep", offset=0)
        rest = yield from self._cursor.take(length)
        self._flags = (mandatory, optional)
        self._xl_header = head + rest
        size = xl.config_length(_LITTLE)
        self.config = rest[size.size :].rstrip(b"\0")

    def _epoch(self) -> Steps[None]:
        """Read libxc's records up to CHECKPOINT, then libxl's up to CHECKPOINT_END."""
        while (yield from self._libxc()) != libxc.RecordType.CHECKPOINT:
            pass
        while (yield from self._libxl()) != libxl.RecordType.CHECKPOINT_END:
            pass
        state, emulators = self._coming
        self._state, self._emulators = b"".join(state), b"".join(emulators)
        self._coming = ([], [])
        self._coming_bytes = 0
        self.epoch += 1
        self._is_whole = True

    def _libxc(self) -> Steps[int]:
        at = self._cursor.offset
        kind, header, body = yield from self._record()
        if kind == libxc.RecordType.PAGE_DATA:
            self._put_pages(memoryview(body), at)
        elif kind in (libxc.RecordType.END, libxc.RecordType.VERIFY):
            raise StreamError(f"libxc record {kind:#x}: no image can be kept", offset=at)
        elif kind != libxc.RecordType.CHECKPOINT:
            self._keep(kind, header + body, at)
        return kind

    def _libxl(self) -> Steps[int]:
        at = self._cursor.offset
        kind, header, body = yield from self._record()
        if kind in libxl.EMULATOR_RECORDS:
            self._count(len(body))
            self._coming[1].append(header + body)
        elif kind != libxl.RecordType.CHECKPOINT_END:
            raise StreamError(f"libxl record {kind:#x}: no image can be kept", offset=at)
        return kind

    def _record(self) -> Steps[tuple[int, bytes, bytes]]:
        header = yield from self._cursor.take(REC_HEADER_BYTES)
        kind, length = record_header(_LITTLE).unpack(header)
        self._check_size(length)
        return kind, header, (yield from self._cursor.take(padded_length(length)))

    def _keep(self, kind: int, record: bytes, at: int) -> None:
        """Keep a record that is not of pages: once for all, or for this epoch."""
        self._count(len(record))
        if not self._has_pages:
            if len(self._lead) == _MAX_HEAD_RECORDS:
                raise StreamError("too many records before the first page", offset=at)
            self._lead.append((kind, record))
        elif kind == libxc.RecordType.X86_PV_P2M_FRAMES:
            # Says where the P2M lies: the newest holds, and has to precede the pages.
            self._lead = [each for each in self._lead if each[0] != kind] + [(kind, record)]
        else:
            self._coming[0].append(record)

    def _count(self, octets: int) -> None:
        self._coming_bytes += octets
        self._check_size(self._coming_bytes)

    def _check_size(self, octets: int) -> None:
        if octets > MAX_STATE_BYTES:
            message = f"{octets} bytes of records in an epoch, at most {MAX_STATE_BYTES} are kept"
            raise CheckpointError(message)

    def _put_pages(self, body: memoryview, at: int) -> None:
        self._has_pages = True
        try:
            count, _ = libxc.counted_header(_LITTLE).unpack_from(body)
            entries = struct.unpack_from(f"<{count}Q", body, libxc.PAGE_DATA_HEADER_BYTES)
        except struct.error as error:
            raise StreamError("PAGE_DATA is shorter than its list", offset=at) from error
        begin = libxc.PAGE_DATA_HEADER_BYTES + count * libxc.PFN_BYTES
        if self._export is not None:
            self._export.save(entry & libxc.PFN_MASK for entry in entries)
        self._map.put(entries, body[begin:])
