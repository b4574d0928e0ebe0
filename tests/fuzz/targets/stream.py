"""The stream engine in both directions, and xl's own header."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from colod.errors import StreamError
from colod.stream import writer, xl
from colod.stream.events import Direction, Event, HeaderSeen, PagesSeen, RecordSeen
from colod.stream.libxc import DomainType, PageType, RecordType
from colod.stream.parser import StreamParser
from colod.stream.record import REC_HEADER_BYTES, ByteOrder
from colod.stream.writer import typed_pfn
from tests.fuzz.target import MIB, Finding, Reader, Target, demand, gist, pieces, same

_CONFIG = b'{"c_info":{"type":"pv","name":"g1"}}'
_Outcome = tuple[list[Event], str, int]


def _parse(octets: bytes, step: int, parser: StreamParser) -> _Outcome:
    """Return the events, and the error that came at last with its offset."""
    events: list[Event] = []
    try:
        for piece in pieces(octets, step):
            events += parser.feed(piece)
        parser.finish()
    except StreamError as error:
        demand(0 <= error.offset <= len(octets), f"an error at {error.offset} of {len(octets)}")
        _demand_the_same_again(parser, error)
        return events, gist(error), error.offset
    return events, "", -1


def _demand_the_same_again(parser: StreamParser, error: StreamError) -> None:
    try:
        parser.feed(b"x")
    except StreamError as again:
        demand(again is error, "another call raises another error")
        return
    raise Finding("the call after an error raises nothing")


def _demand_order(events: list[Event], size: int) -> None:
    records = [event for event in events if isinstance(event, RecordSeen)]
    demand(len(records) <= size // REC_HEADER_BYTES, "more records than there is room for")
    demand(all(0 <= event.offset <= size for event in events), "an event outside of the stream")
    demand(all(record.end <= size for record in records), "a record that has not come")
    ends = [0, *(record.end for record in records)]
    starts = [record.offset for record in records]
    demand(all(a <= b for a, b in zip(ends, starts, strict=False)), "records overlap")
    for pages in (event for event in events if isinstance(event, PagesSeen)):
        demand(0 <= pages.pages <= pages.pfns, "more pages than PFNs")


def _shape(events: list[Event]) -> frozenset[object]:
    return frozenset(
        (type(event).__name__, event.layer, event.type & 0xFF)
        if isinstance(event, RecordSeen)
        else type(event).__name__
        for event in events
    )


def _run_forward(octets: bytes) -> Hashable:
    reader = Reader(octets)
    has_header, step = reader.flag(), reader.byte()
    stream = reader.rest()
    whole = _parse(stream, 0, StreamParser(header=has_header))
    same("two splits", _parse(stream, step, StreamParser(header=has_header)), whole)
    _demand_order(whole[0], len(stream))
    return _shape(whole[0]), whole[1]


def _run_back(octets: bytes) -> Hashable:
    reader = Reader(octets)
    flags, step = reader.byte(), reader.byte()
    stream = reader.rest()

    def made() -> StreamParser:
        return StreamParser(
            header=bool(flags & 1),
            direction=Direction.BACK,
            byte_order=ByteOrder.BIG if flags & 2 else ByteOrder.LITTLE,
        )

    whole = _parse(stream, 0, made())
    same("two splits", _parse(stream, step, made()), whole)
    _demand_order(whole[0], len(stream))
    return _shape(whole[0]), whole[1]


def _run_header(octets: bytes) -> Hashable:
    """What has been taken is what `writer` would write of it."""
    reader = Reader(octets)
    step, stream = reader.byte(), reader.rest()
    parser = StreamParser()
    events, error, _ = _parse(stream, step, parser)
    seen = next((event for event in events if isinstance(event, HeaderSeen)), None)
    if seen is None:
        return error
    fields = xl.header_fields(seen.byte_order)
    length = fields.unpack_from(stream, len(xl.SAVEFILE_MAGIC))[3]
    raw = stream[: xl.HEADER_BYTES + length]
    demand(len(raw) == xl.HEADER_BYTES + length, "a header before all of it has come")
    again = writer.xl_header(
        seen.config,
        mandatory_flags=seen.mandatory_flags,
        optional_flags=seen.optional_flags,
        order=seen.byte_order,
    )
    # A newer xl may add to the optional part, and leave out the NUL; then it is not ours.
    is_ours = not length or (length == 4 + _size_of(raw, seen) and raw.endswith(b"\0"))
    if is_ours and (seen.config or not length):
        same("a header written anew", again, raw)
    return "taken", seen.mandatory_flags, bool(seen.config), is_ours


def _size_of(raw: bytes, seen: HeaderSeen) -> int:
    """Return how long the configuration says that it is, its NUL included."""
    return int(xl.config_length(seen.byte_order).unpack_from(raw, xl.HEADER_BYTES)[0])


def compact(order: ByteOrder, version: int, domain: DomainType, *, epochs: int = 2) -> bytes:
    """Return a replication stream with as few bytes as it can have, xl's header included."""
    pfns = [typed_pfn(1, PageType.XTAB), typed_pfn(2, PageType.BROKEN)]
    parts = [
        writer.xl_header(_CONFIG, order=order),
        writer.libxl_header(order=order),
        writer.libxl_record(1, order=order),
        writer.libxc_image_header(version=version, order=order),
        writer.libxc_domain_header(domain, order=order),
    ]
    if domain is DomainType.X86_PV:
        parts.append(writer.pv_info(order=order))
    if version == 3:
        parts.append(writer.libxc_record(RecordType.X86_CPUID_POLICY, bytes(24), order=order))
        parts.append(writer.libxc_record(RecordType.STATIC_DATA_END, order=order))
    if domain is DomainType.X86_PV:
        parts.append(writer.pv_p2m_frames(0, 1, [7], order=order))
    for _ in range(epochs):
        parts.append(writer.page_data(pfns, [], order=order))
        parts.append(writer.tsc_info(order=order))
        if domain is DomainType.X86_HVM:
            parts.append(writer.hvm_params({1: 2}, order=order))
            parts.append(writer.libxc_record(RecordType.HVM_CONTEXT, b"context", order=order))
        else:
            parts.append(writer.libxc_record(RecordType.SHARED_INFO, bytes(16), order=order))
        parts.append(writer.checkpoint(order=order))
        parts.append(writer.emulator_xenstore_data({"a": "b"}, order=order))
        parts.append(writer.emulator_context(b"qemu", order=order))
        parts.append(writer.checkpoint_end(order=order))
    return b"".join(parts)


def ending(order: ByteOrder = ByteOrder.LITTLE) -> bytes:
    """Return what makes an image complete, on libxc's level and on libxl's."""
    return writer.libxc_record(RecordType.END, order=order) + writer.libxl_record(0, order=order)


def _forward_seeds() -> Iterable[bytes]:
    for order in ByteOrder:
        for version in (2, 3):
            for domain in DomainType:
                yield b"\x01\x00" + compact(order, version, domain)
    yield b"\x01\x05" + compact(ByteOrder.LITTLE, 3, DomainType.X86_PV, epochs=0) + ending()
    colo = writer.checkpoint_state(0) + writer.page_data([1], [bytes(4096)])
    yield b"\x01\x07" + compact(ByteOrder.LITTLE, 3, DomainType.X86_HVM) + colo


def _back_seeds() -> Iterable[bytes]:
    for flag, order in ((0, ByteOrder.LITTLE), (2, ByteOrder.BIG)):
        talk = writer.checkpoint_state(1, order=order) + writer.dirty_pfn_list([1, 2], order=order)
        yield bytes((flag, 3)) + talk
        yield bytes((flag | 1, 0)) + writer.xl_banner() + talk


def _header_seeds() -> Iterable[bytes]:
    for order in ByteOrder:
        yield b"\0" + writer.xl_header(_CONFIG, order=order) + writer.libxl_header()
        yield b"\x03" + writer.xl_header(b"", order=order)
        yield b"\x03" + writer.xl_header(b"x", order=order, optional_flags=7, mandatory_flags=2)


def _held(size: int) -> int:
    """One header, or xl's configuration; and the events and splits of the target itself."""
    return xl.CONFIG_LENGTH_MAX + MIB + 64 * size


FORWARD = Target(run=_run_forward, seeds=_forward_seeds, held_bytes=_held)
BACK = Target(run=_run_back, seeds=_back_seeds, held_bytes=_held)
XL_HEADER = Target(run=_run_header, seeds=_header_seeds, held_bytes=_held)
