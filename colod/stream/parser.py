"""Reads a migration stream as it goes by and tells where its records and epochs lie.

The parser looks at headers only. Bodies are counted, never copied or kept, so that a chunk costs
as much as it has records, however many bytes it has.

Epoch N is every byte after the CHECKPOINT_END of epoch N-1 up to and including its own; epoch 1
also has all headers and the first copy of the guest's memory.

Spec: Xen docs/specs/libxl-migration-stream.pandoc, docs/specs/libxc-migration-stream.pandoc;
tools/xl/xl.h for the header before them.
"""

from colod.errors import RecordTooLong, StreamError, StreamTruncated
from colod.stream import grammar, libxc, libxl, xl
from colod.stream.cursor import Cursor, Steps
from colod.stream.events import (
    BannerSeen,
    CheckpointStateSeen,
    Direction,
    DirtyPfnsSeen,
    DomainHeader,
    EpochOpened,
    EpochSealed,
    Event,
    GuestMayResume,
    HeaderSeen,
    Layer,
    LibxlHeader,
    PagesSeen,
    RecordSeen,
    StreamEnded,
)
from colod.stream.grammar import Allowed
from colod.stream.libxc import DomainType
from colod.stream.record import (
    REC_HEADER_BYTES,
    REC_LENGTH_MAX,
    ByteOrder,
    padded_length,
    record_header,
)


class StreamParser:
    """Turns the bytes of one direction of a stream into events.

    Feed it every byte in order. The events do not depend on how the bytes are split. After an
    error the parser is of no more use: every further call raises that error again.
    """

    def __init__(
        self,
        *,
        header: bool = True,
        direction: Direction = Direction.FORWARD,
        byte_order: ByteOrder = ByteOrder.LITTLE,
        max_record_bytes: int = REC_LENGTH_MAX,
    ) -> None:
        """Stand at the beginning of a stream.

        Args:
            header: Whether what xl itself writes first is part of the stream: its save-file
                header, or on the back channel its banner.
            direction: FORWARD for the stream with the guest's state, BACK for what comes back.
            byte_order: Of the records on the back channel, which has no header to say so;
                a forward stream's own header decides.
            max_record_bytes: Longest body that is accepted.
        """
        self._direction = direction
        self._order = byte_order
        self._max_record_bytes = max_record_bytes
        self._cursor = Cursor()
        self._events: list[Event] = []
        self._epoch = 1
        self._ended = False
        self._error: StreamError | None = None
        self._steps = (
            self._forward(header) if direction is Direction.FORWARD else self._back(header)
        )
        next(self._steps)

    @property
    def offset(self) -> int:
        """Bytes consumed; after an error, where reading stopped."""
        return self._cursor.offset

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next byte belongs to, from 1."""
        return self._epoch

    @property
    def record_offset(self) -> int:
        """Where the header or record that the next byte belongs to begins."""
        return self._cursor.record_at

    @property
    def record_rest_bytes(self) -> int:
        """How many of the next bytes surely belong to the record that was begun, 0 for none."""
        return self._cursor.skipping

    @property
    def is_between_records(self) -> bool:
        """Whether no header or record is begun and unfinished."""
        return self._cursor.offset == self._cursor.record_at

    @property
    def error(self) -> StreamError | None:
        """The error that the next call will raise, None while the stream is sound.

        To be looked at before the chunk just fed is passed on: its bytes from `error.offset` on
        are not what they should be.
        """
        return self._error

    def feed(self, data: bytes | bytearray | memoryview) -> tuple[Event, ...]:
        """Read the next bytes of the stream.

        `data` is not kept; the caller may overwrite it afterwards.

        Args:
            data: The next chunk, of any size.

        Returns:
            What the chunk brought, in order. If an error follows upon it in the same chunk, the
            events before the error are returned and the next call raises.

        Raises:
            StreamError: The bytes are no valid stream; the offset is that of the record.
        """
        if self._error:
            raise self._error
        with memoryview(data) as view, view.cast("B") as octets:
            self._read(octets)
        events = tuple(self._events)
        self._events.clear()
        if self._error and not events:
            raise self._error
        return events

    def finish(self) -> tuple[Event, ...]:
        """Say that no more bytes will come.

        A forward stream is complete only with libxl's END. A replication stream never has one:
        it ends in StreamTruncated even when it stops between two epochs.

        Returns:
            Nothing; all events were returned by `feed`.

        Raises:
            StreamTruncated: The stream is not complete; the offset is where the incomplete (or
                missing) record begins.
            StreamError: The error that `feed` found and has not raised yet.
        """
        if self._error is None and not self._is_complete():
            at = self._cursor.record_at
            missing = "before" if self.is_between_records else "inside"
            message = f"the stream ends after {self.offset} bytes, {missing} a record"
            self._error = StreamTruncated(message, offset=at)
        if self._error:
            raise self._error
        return ()

    def _is_complete(self) -> bool:
        """Tell whether the stream may end here."""
        return self._ended or (self._direction is Direction.BACK and self.is_between_records)

    def _read(self, octets: memoryview) -> None:
        """Let the reader consume a chunk, and keep the error it may end in."""
        self._cursor.load(octets)
        try:
            next(self._steps)
        except StreamError as error:
            self._error = error
        finally:
            self._cursor.unload()

    # -- the two directions

    def _forward(self, header: bool) -> Steps[None]:
        yield from self._open_epoch()
        if header:
            yield from self._xl_header()
        yield from self._libxl_header()
        record_type = None
        while record_type != libxl.RecordType.END:
            record_type = yield from self._record(Layer.LIBXL, grammar.LIBXL_TOP)
            if record_type == libxl.RecordType.LIBXC_CONTEXT:
                yield from self._image()
        self._ended = True
        self._events.append(StreamEnded(self._cursor.offset))
        yield from self._cursor.wait()
        raise StreamError("bytes after the end of the stream", offset=self._cursor.offset)

    def _back(self, header: bool) -> Steps[None]:
        """Read COLO's back channel, where libxl and libxc write in turn without any header."""
        if header:
            yield from self._banner()
        while True:
            record_type, length = yield from self._record_header()
            if record_type == libxl.RecordType.CHECKPOINT_STATE:
                yield from self._body(Layer.LIBXL, record_type, length, grammar.LIBXL_STATE)
            else:
                yield from self._body(Layer.LIBXC, record_type, length, grammar.LIBXC_BACK)

    def _open_epoch(self) -> Steps[None]:
        yield from self._cursor.wait()
        self._events.append(EpochOpened(self._cursor.offset, self._epoch))

    # -- headers

    def _banner(self) -> Steps[None]:
        offset = self._cursor.offset
        banner = yield from self._cursor.take(len(xl.MIGRATE_RECEIVER_BANNER))
        if banner != xl.MIGRATE_RECEIVER_BANNER:
            message = f"expected the banner of xl migrate-receive, got {banner[:16]!r}"
            raise StreamError(message, offset=offset)
        self._cursor.mark_record()
        self._events.append(BannerSeen(offset))

    def _xl_header(self) -> Steps[None]:
        offset = self._cursor.offset
        raw = yield from self._cursor.take(xl.HEADER_BYTES)
        order, mandatory, optional, length = _decode_xl_header(raw, offset)
        config = yield from self._xl_config(order, length)
        self._cursor.mark_record()
        self._events.append(HeaderSeen(offset, config, mandatory, optional, order))

    def _xl_config(self, order: ByteOrder, length: int) -> Steps[bytes]:
        """Read xl's optional part: the config's length, the config, and what newer xl may add."""
        offset = self._cursor.record_at
        if not length:
            return b""
        if length < 4:
            message = f"xl's optional part has {length} bytes, its first field needs 4"
            raise StreamError(message, offset=offset)
        raw = yield from self._cursor.take(4)
        (size,) = xl.config_length(order).unpack(raw)
        if size > length - 4:
            message = f"the domain's configuration has {size} bytes, {length - 4} are left for it"
            raise StreamError(message, offset=offset)
        if size > xl.CONFIG_LENGTH_MAX:
            limit = xl.CONFIG_LENGTH_MAX
            message = f"the domain's configuration has {size} bytes, the limit is {limit}"
            raise RecordTooLong(message, offset=offset)
        config = yield from self._cursor.take(size)
        yield from self._cursor.skip(length - 4 - size)
        return config.removesuffix(b"\0")

    def _libxl_header(self) -> Steps[None]:
        offset = self._cursor.offset
        raw = yield from self._cursor.take(libxl.HEADER.size)
        ident, version, options = libxl.HEADER.unpack(raw)
        if ident != libxl.IDENT:
            raise StreamError(f"expected libxl's header, got {raw[:8]!r}", offset=offset)
        if version != libxl.VERSION:
            message = f"libxl's format has version {version}, only {libxl.VERSION} is known"
            raise StreamError(message, offset=offset)
        self._order = ByteOrder.BIG if options & libxl.OPT_BIG_ENDIAN else ByteOrder.LITTLE
        self._cursor.mark_record()
        is_converted = bool(options & libxl.OPT_LEGACY)
        self._events.append(LibxlHeader(offset, version, self._order, is_converted))

    def _image_headers(self) -> Steps[DomainHeader]:
        offset = self._cursor.offset
        raw = yield from self._cursor.take(libxc.IMAGE_HEADER.size)
        version, order = _decode_image_header(raw, offset)
        if order is not self._order:
            raise StreamError("libxc's byte order is not libxl's", offset=offset)
        layout = libxc.domain_header(order)
        domain_at = self._cursor.mark_record()
        fields = layout.unpack((yield from self._cursor.take(layout.size)))
        header = _decode_domain_header(fields, version, offset, domain_at)
        self._cursor.mark_record()
        self._events.append(header)
        return header

    # -- records

    def _image(self) -> Steps[None]:
        """Read libxc's image, and with it each checkpoint's part on libxl's level."""
        header = yield from self._image_headers()
        main = grammar.image_records(header.type, header.version)
        allowed = grammar.static_records(header.type, header.version) or main
        is_resuming = False
        while True:
            record_type, length = yield from self._record_header()
            if is_resuming and _is_colo_state(header.type, record_type):
                yield from self._body(Layer.LIBXL, record_type, length, grammar.LIBXL_STATE)
                continue
            yield from self._body(Layer.LIBXC, record_type, length, allowed)
            is_resuming = record_type == libxc.RecordType.CHECKPOINT
            if is_resuming:
                yield from self._checkpoint()
            elif record_type == libxc.RecordType.STATIC_DATA_END:
                allowed = main
            elif record_type == libxc.RecordType.END:
                return

    def _checkpoint(self) -> Steps[None]:
        """Read from behind libxc's CHECKPOINT until the first byte of the next epoch."""
        self._events.append(GuestMayResume(self._cursor.offset, self._epoch))
        record_type = None
        while record_type != libxl.RecordType.CHECKPOINT_END:
            record_type = yield from self._record(Layer.LIBXL, grammar.LIBXL_CHECKPOINT)
        self._events.append(EpochSealed(self._cursor.offset, self._epoch))
        self._epoch += 1
        yield from self._open_epoch()

    def _record(self, layer: Layer, allowed: Allowed) -> Steps[int]:
        record_type, length = yield from self._record_header()
        yield from self._body(layer, record_type, length, allowed)
        return record_type

    def _record_header(self) -> Steps[tuple[int, int]]:
        raw = yield from self._cursor.take(REC_HEADER_BYTES)
        record_type, length = record_header(self._order).unpack(raw)
        return record_type, length

    def _body(self, layer: Layer, record_type: int, length: int, allowed: Allowed) -> Steps[None]:
        """Check a record by its header, pass over its body, and report it once it is whole."""
        offset = self._cursor.record_at
        limit = self._max_record_bytes
        grammar.check_header(layer, record_type, length, allowed, limit=limit, offset=offset)
        detail = yield from self._detail(layer, record_type, length)
        end = offset + REC_HEADER_BYTES + padded_length(length)
        yield from self._cursor.skip(end - self._cursor.offset)
        self._cursor.mark_record()
        self._events.append(RecordSeen(offset, layer, record_type, length))
        if detail is not None:
            self._events.append(detail)

    def _detail(self, layer: Layer, record_type: int, length: int) -> Steps[Event | None]:
        """Read the beginning of those bodies that say something about the stream."""
        offset = self._cursor.record_at
        match layer, record_type:
            case Layer.LIBXC, libxc.RecordType.PAGE_DATA:
                return (yield from self._pages(length, offset))
            case Layer.LIBXC, libxc.RecordType.CHECKPOINT_DIRTY_PFN_LIST:
                _check_whole(length, libxc.PFN_BYTES, "CHECKPOINT_DIRTY_PFN_LIST", offset)
                return DirtyPfnsSeen(offset, length // libxc.PFN_BYTES)
            case Layer.LIBXL, libxl.RecordType.CHECKPOINT_STATE:
                _check_least(length, 4, "CHECKPOINT_STATE", offset)
                raw = yield from self._cursor.take(4)
                return CheckpointStateSeen(offset, *libxl.checkpoint_state(self._order).unpack(raw))
            case Layer.LIBXL, kind if kind in libxl.EMULATOR_RECORDS:
                _check_least(length, 8, grammar.record_name(layer, kind), offset)
        return None

    def _pages(self, length: int, offset: int) -> Steps[PagesSeen]:
        _check_least(length, libxc.PAGE_DATA_HEADER_BYTES, "PAGE_DATA", offset)
        raw = yield from self._cursor.take(libxc.PAGE_DATA_HEADER_BYTES)
        count, _ = libxc.counted_header(self._order).unpack(raw)
        contents = length - libxc.PAGE_DATA_HEADER_BYTES - count * libxc.PFN_BYTES
        pages, rest = divmod(contents, 1 << libxc.PAGE_SHIFT)
        if not count or rest or not 0 <= pages <= count:
            message = f"PAGE_DATA of {length} bytes cannot hold {count} PFNs and their pages"
            raise StreamError(message, offset=offset)
        return PagesSeen(offset, count, pages)


def _decode_xl_header(raw: bytes, offset: int) -> tuple[ByteOrder, int, int, int]:
    """Return the byte order, the two sets of flags and the length of the optional part."""
    if not raw.startswith(xl.SAVEFILE_MAGIC):
        raise StreamError(f"expected xl's header, got {raw[:32]!r}", offset=offset)
    for order in ByteOrder:
        value, mandatory, optional, length = xl.header_fields(order).unpack(raw[32:])
        if value == xl.SAVEFILE_BYTEORDER_VALUE:
            break
    else:
        message = f"xl's header has no byte order: {raw[32:36].hex()}"
        raise StreamError(message, offset=offset)
    if unknown := mandatory & ~xl.XL_MANDATORY_FLAG_ALL:
        raise StreamError(f"xl's header has unknown mandatory flags {unknown:#x}", offset=offset)
    if not mandatory & xl.XL_MANDATORY_FLAG_STREAMV2:
        message = "a legacy image, as Xen 4.5 and older wrote: restore it with xl, then save anew"
        raise StreamError(message, offset=offset)
    return order, mandatory, optional, length


def _decode_image_header(raw: bytes, offset: int) -> tuple[int, ByteOrder]:
    """Return the version and byte order of libxc's image."""
    marker, ident, version, options, _, _ = libxc.IMAGE_HEADER.unpack(raw)
    if marker != libxc.IHDR_MARKER:
        message = f"a legacy libxc image, or none: it begins with {raw[:8].hex()}"
        raise StreamError(message, offset=offset)
    if ident != libxc.IHDR_ID:
        raise StreamError(f"libxc's image header has the id {ident:#010x}", offset=offset)
    if version not in libxc.VERSIONS:
        message = f"libxc's format has version {version}, only 2 and 3 are known"
        raise StreamError(message, offset=offset)
    is_big = options & libxc.IHDR_OPT_BIG_ENDIAN
    return version, ByteOrder.BIG if is_big else ByteOrder.LITTLE


def _decode_domain_header(
    fields: tuple[int, ...], version: int, offset: int, domain_at: int
) -> DomainHeader:
    """Check the domain header, which lies at `domain_at`."""
    domain_type, page_shift, _, major, minor = fields
    if domain_type not in frozenset(DomainType):
        raise StreamError(f"unknown type of domain {domain_type:#x}", offset=domain_at)
    if page_shift != libxc.PAGE_SHIFT:
        message = f"page_shift is {page_shift}, only {libxc.PAGE_SHIFT} is known"
        raise StreamError(message, offset=domain_at)
    return DomainHeader(offset, version, DomainType(domain_type), page_shift, major, minor)


def _is_colo_state(domain: DomainType, record_type: int) -> bool:
    """Tell whether the first record after CHECKPOINT_END is libxl's, and not libxc's.

    The number of CHECKPOINT_STATE is that of X86_PV_VCPU_EXTENDED on libxc's level. COLO, which
    alone sends it, is for HVM only, and an HVM image cannot have the other.
    """
    return domain is DomainType.X86_HVM and record_type == libxl.RecordType.CHECKPOINT_STATE


def _check_least(length: int, least: int, name: str, offset: int) -> None:
    if length < least:
        message = f"{name} has a body of {length} bytes, it needs at least {least}"
        raise StreamError(message, offset=offset)


def _check_whole(length: int, unit: int, name: str, offset: int) -> None:
    if length % unit:
        message = f"{name} has a body of {length} bytes, not a multiple of {unit}"
        raise StreamError(message, offset=offset)
