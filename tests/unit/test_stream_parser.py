"""The stream parser: what it reports of good streams, and what it refuses."""

import struct
import sys
import tracemalloc
from collections.abc import Callable

import pytest

from colod.errors import RecordTooLong, StreamError, StreamTruncated, UnknownMandatoryRecord
from colod.stream import writer, xl
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
from colod.stream.libxc import DomainType, RecordType
from colod.stream.libxl import ControlId
from colod.stream.parser import StreamParser
from colod.stream.record import ByteOrder
from tests.unit.stream_samples import CONFIG, PAGE, Sample, parse, remus_stream, save_image

HVM, PV = DomainType.X86_HVM, DomainType.X86_PV
MIB = 1 << 20


def refuse(data: bytes, parser: StreamParser | None = None) -> StreamError:
    """Feed bytes that must be refused, and return why."""
    parser = parser or StreamParser()
    try:
        parser.feed(data)
    except StreamError as error:
        return error
    assert parser.error is not None  # raised by the next call, see below
    return parser.error


@pytest.mark.parametrize("order", ByteOrder)
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("domain", DomainType)
def test_every_record_of_a_save_image_is_reported(
    order: ByteOrder, version: int, domain: DomainType
) -> None:
    sample = save_image(order, version, domain)
    parser = StreamParser()
    events = parse(parser, sample.data)
    assert [event for event in events if isinstance(event, RecordSeen)] == sample.records
    assert events[-1] == StreamEnded(sample.size)
    assert parser.finish() == ()
    assert parser.epoch == 1


@pytest.mark.parametrize("order", ByteOrder)
def test_headers_tell_domain_format_and_xen_version(order: ByteOrder) -> None:
    sample = save_image(order, 2, HVM)
    events = parse(StreamParser(), sample.data)
    starts = sample.starts()
    assert events[0] == EpochOpened(0, 1)
    assert events[1] == HeaderSeen(0, CONFIG, 3, 0, order)
    assert events[2] == LibxlHeader(starts[1], 2, order, is_converted=False)
    assert DomainHeader(starts[3], 2, HVM, 12, 4, 17) in events


@pytest.mark.parametrize("order", ByteOrder)
@pytest.mark.parametrize("domain", DomainType)
def test_an_epoch_is_every_byte_after_the_previous_seal_up_to_its_own(
    order: ByteOrder, domain: DomainType
) -> None:
    sample = remus_stream(3, order, 3, domain).pages()
    events = parse(StreamParser(), sample.data)
    opened = [event for event in events if isinstance(event, EpochOpened)]
    sealed = [event for event in events if isinstance(event, EpochSealed)]
    assert sealed == [EpochSealed(at, n) for n, at in enumerate(sample.seals, 1)]
    assert opened == [EpochOpened(at, n) for n, at in enumerate([0, *sample.seals], 1)]


def test_the_guest_may_resume_right_after_the_checkpoint_record() -> None:
    sample = remus_stream(2, domain=HVM)
    events = parse(StreamParser(), sample.data)
    resumes = [event for event in events if isinstance(event, GuestMayResume)]
    assert resumes == [GuestMayResume(at, n) for n, at in enumerate(sample.resumes, 1)]


def test_an_epoch_opens_with_its_first_byte_and_not_before() -> None:
    sample = remus_stream(1)
    parser = StreamParser()
    assert isinstance(parse(parser, sample.data)[-1], EpochSealed)
    assert parser.epoch == 2
    assert parser.feed(b"\1") == (EpochOpened(sample.size, 2),)


def test_pages_with_contents_are_told_from_pfns_without() -> None:
    sample = Sample().headers().pages(5)
    *_, record, pages = parse(StreamParser(), sample.data)
    assert isinstance(record, RecordSeen)
    assert pages == PagesSeen(record.offset, pfns=6, pages=5)


def test_a_record_ends_after_its_padding() -> None:
    sample = Sample().headers().pages().libxc(writer.libxc_record(RecordType.TOOLSTACK, b"12345"))
    record = sample.records[-1]
    assert record.length == 5
    assert record.end == sample.size
    assert parse(StreamParser(), sample.data)[-1] == record


def test_a_record_is_reported_only_when_its_last_byte_of_padding_came() -> None:
    sample = Sample().headers().pages().libxc(writer.libxc_record(RecordType.TOOLSTACK, b"12345"))
    parser = StreamParser()
    assert parse(parser, sample.data[:-1])[-1] != sample.records[-1]
    assert (parser.is_between_records, parser.record_offset) == (False, sample.records[-1].offset)
    assert parse(parser, sample.data[-1:]) == [sample.records[-1]]
    assert (parser.is_between_records, parser.record_offset) == (True, sample.size)


@pytest.mark.parametrize("layer", Layer)
def test_unknown_optional_records_are_passed_over(layer: Layer) -> None:
    optional = writer.libxl_record(0x8000_0077, b"future")
    sample = Sample().headers()
    if layer is Layer.LIBXC:
        sample.pages().libxc(optional).end()
    else:
        sample.pages().libxc(writer.libxc_record(0)).libxl(optional, writer.libxl_record(0))
    events = parse(StreamParser(), sample.data)
    assert sample.records[-2 if layer is Layer.LIBXL else -3] in events
    assert events[-1] == StreamEnded(sample.size)


@pytest.mark.parametrize("unknown", [0x13, 0x7FFF_FFFF])
def test_an_unknown_mandatory_record_is_refused_with_its_offset(unknown: int) -> None:
    sample = Sample().headers()
    error = refuse(sample.data + writer.libxc_record(unknown))
    assert isinstance(error, UnknownMandatoryRecord)
    assert error.offset == sample.size


def test_an_unknown_mandatory_record_of_libxl_is_refused_with_its_offset() -> None:
    sample = Sample().headers().libxc(writer.libxc_record(0))
    error = refuse(sample.data + writer.libxl_record(6))
    assert isinstance(error, UnknownMandatoryRecord)
    assert error.offset == sample.size


@pytest.mark.parametrize("length", [(128 << 20) + 1, 0xFFFF_FFFF])
def test_a_body_above_the_limit_is_refused_before_it_comes(length: int) -> None:
    sample = Sample().headers()
    error = refuse(sample.data + struct.pack("<II", RecordType.TOOLSTACK, length))
    assert isinstance(error, RecordTooLong)
    assert error.offset == sample.size
    assert str(128 << 20) in str(error)


def test_the_limit_of_a_body_can_be_set() -> None:
    sample = Sample().headers().pages(3)
    error = refuse(sample.data, StreamParser(max_record_bytes=4096 * 3))
    assert isinstance(error, RecordTooLong)
    assert error.offset == sample.records[-1].offset


def _hvm(piece: bytes) -> bytes:
    return Sample(domain=HVM).headers().data + piece


REFUSED: dict[str, tuple[bytes, str]] = {
    "pv record in hvm": (_hvm(writer.pv_info()), "X86_PV_INFO may not come here"),
    "vcpu record in hvm": (_hvm(writer.libxc_record(5, bytes(8))), "may not come here"),
    "hvm record in pv": (
        Sample().headers().data + writer.hvm_params({}),
        "HVM_PARAMS may not come here",
    ),
    "pages before static end": (
        b"".join(Sample().headers().pieces[:-2]) + writer.page_data([1], [PAGE]),
        "PAGE_DATA may not come here",
    ),
    "back channel record forward": (
        _hvm(writer.dirty_pfn_list([1])),
        "CHECKPOINT_DIRTY_PFN_LIST may not come here",
    ),
    "second static end": (_hvm(writer.libxc_record(0x10)), "STATIC_DATA_END may not come here"),
    "v3 record in v2": (
        Sample(version=2).headers().data + writer.libxc_record(0x10),
        "STATIC_DATA_END may not come here",
    ),
    "end with a body": (_hvm(writer.libxc_record(0, b"12345678")), "none is due"),
    "no pfn": (_hvm(writer.libxc_record(1, bytes(8))), "cannot hold 0 PFNs"),
    "pfns beyond the body": (
        _hvm(writer.libxc_record(1, struct.pack("<IIQ", 2, 0, 0))),
        "cannot hold 2 PFNs",
    ),
    "half a page": (
        _hvm(writer.libxc_record(1, struct.pack("<IIQ", 1, 0, 0) + PAGE[:2048])),
        "cannot hold 1 PFNs",
    ),
    "more pages than pfns": (
        _hvm(writer.libxc_record(1, struct.pack("<IIQ", 1, 0, 0) + PAGE * 2)),
        "cannot hold 1 PFNs",
    ),
    "page data without count": (_hvm(writer.libxc_record(1, b"1234")), "at least 8"),
    "checkpoint end on top": (
        Sample().headers().libxc(writer.libxc_record(0)).data + writer.checkpoint_end(),
        "CHECKPOINT_END may not come here",
    ),
    "end inside a checkpoint": (
        Sample().headers().libxc(writer.checkpoint()).data + writer.libxl_record(0),
        "END may not come here",
    ),
    "short emulator record": (
        Sample(domain=HVM).headers().libxc(writer.checkpoint()).data
        + writer.libxl_record(3, b"1234"),
        "at least 8",
    ),
    "short checkpoint state": (
        remus_stream(1, domain=HVM).data + writer.libxl_record(5, b"12"),
        "at least 4",
    ),
    "bytes after the end": (save_image().data + b"\0", "after the end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_record_out_of_place_or_shape_is_refused(case: str) -> None:
    data, reason = REFUSED[case]
    assert reason in str(refuse(data))


def _patched(sample: Sample, piece: int, at: int, new: bytes) -> bytes:
    """Overwrite bytes inside one piece of a sample."""
    old = sample.pieces[piece]
    pieces = list(sample.pieces)
    pieces[piece] = old[:at] + new + old[at + len(new) :]
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("piece", "at", "new", "reason"),
    [
        (0, 0, b"LibxlFmt", "expected xl's header"),
        (0, 32, b"\0\0\0\0", "no byte order"),
        (0, 36, b"\7", "unknown mandatory flags 0x4"),
        (0, 36, b"\1", "legacy image"),
        (0, 44, b"\3\0\0\0", "needs 4"),
        (0, 48, b"\xff\xff\0\0", "are left for it"),
        (1, 0, b"x", "expected libxl's header"),
        (1, 11, b"\1", "version 1"),
        (3, 0, b"\0", "legacy libxc image"),
        (3, 8, b"Y", "id 0x"),
        (3, 15, b"\4", "version 4"),
        (3, 17, b"\1", "byte order is not libxl's"),
        (4, 0, b"\3", "unknown type of domain 0x3"),
        (4, 4, b"\x0d", "page_shift is 13"),
    ],
)
def test_a_bad_header_is_refused_with_the_offset_of_that_header(
    piece: int, at: int, new: bytes, reason: str
) -> None:
    sample = save_image()
    error = refuse(_patched(sample, piece, at, new))
    assert reason in str(error)
    assert error.offset == sample.starts()[piece]


def test_a_configuration_above_its_limit_is_refused() -> None:
    size = xl.CONFIG_LENGTH_MAX + 1
    fields = struct.pack("<IIIII", xl.SAVEFILE_BYTEORDER_VALUE, 3, 0, size + 4, size)
    error = refuse(xl.SAVEFILE_MAGIC + fields)
    assert isinstance(error, RecordTooLong)
    assert error.offset == 0


def test_an_optional_part_longer_than_the_configuration_is_skipped() -> None:
    config = CONFIG + b"\0"
    optional = struct.pack("<I", len(config)) + config + b"newer xl says more"
    fields = struct.pack("<IIII", xl.SAVEFILE_BYTEORDER_VALUE, 3, 0, len(optional))
    events = parse(StreamParser(), xl.SAVEFILE_MAGIC + fields + optional, writer.libxl_header())
    assert [type(event) for event in events] == [EpochOpened, HeaderSeen, LibxlHeader]
    assert isinstance(events[1], HeaderSeen)
    assert events[1].config == CONFIG


def test_a_header_may_come_without_configuration() -> None:
    events = parse(StreamParser(), writer.xl_header(b"", mandatory_flags=2))
    assert events[1] == HeaderSeen(0, b"", 2, 0, ByteOrder.LITTLE)


def test_a_stream_of_libxl_alone_is_read_without_xl_header() -> None:
    sample = Sample().headers(xl=False).pages().end()
    events = parse(StreamParser(header=False), sample.data)
    assert events[-1] == StreamEnded(sample.size)


def test_a_converted_stream_says_so() -> None:
    events = parse(StreamParser(header=False), writer.libxl_header(legacy=True))
    assert events[1] == LibxlHeader(0, 2, ByteOrder.LITTLE, is_converted=True)


def test_colo_records_are_told_from_libxc_records_of_the_same_number() -> None:
    sample = remus_stream(1, domain=HVM).libxl(writer.checkpoint_state(ControlId.CHECKPOINT_NEW))
    sample.pages().state().seal()
    events = parse(StreamParser(), sample.data)
    assert [event for event in events if isinstance(event, RecordSeen)] == sample.records
    state = CheckpointStateSeen(sample.seals[0], ControlId.CHECKPOINT_NEW)
    assert events.index(EpochOpened(sample.seals[0], 2)) < events.index(state)
    assert [event.offset for event in events if isinstance(event, EpochSealed)] == sample.seals


def test_a_vcpu_record_that_opens_a_pv_epoch_stays_libxc_s() -> None:
    vcpu = writer.pv_vcpu(RecordType.X86_PV_VCPU_EXTENDED, 0, b"")
    sample = remus_stream(1).libxc(vcpu).seal()
    events = parse(StreamParser(), sample.data)
    assert [event for event in events if isinstance(event, RecordSeen)] == sample.records


@pytest.mark.parametrize("order", ByteOrder)
def test_the_back_channel_carries_banner_control_and_dirty_pfns(order: ByteOrder) -> None:
    sample = Sample(order).raw(writer.xl_banner())
    sample.libxl(writer.checkpoint_state(ControlId.CHECKPOINT_SVM_READY, order=order))
    sample.libxc(writer.dirty_pfn_list([3, 5, 8], order=order))
    parser = StreamParser(direction=Direction.BACK, byte_order=order)
    events = parse(parser, sample.data)
    state, dirty = sample.records
    assert events == [
        BannerSeen(0),
        state,
        CheckpointStateSeen(state.offset, ControlId.CHECKPOINT_SVM_READY),
        dirty,
        DirtyPfnsSeen(dirty.offset, 3),
    ]
    assert parser.finish() == ()


def test_the_back_channel_is_truncated_inside_a_record_only() -> None:
    parser = StreamParser(direction=Direction.BACK, header=False)
    assert parser.finish() == ()
    parser = StreamParser(direction=Direction.BACK, header=False)
    parse(parser, writer.checkpoint_state(1), b"\5\0")
    with pytest.raises(StreamTruncated) as caught:
        parser.finish()
    assert caught.value.offset == 16


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (b"bash: colod-session: command not found, that is what came back\n", True),
        (writer.page_data([1], [PAGE]), False),
        (writer.libxc_record(RecordType.CHECKPOINT_DIRTY_PFN_LIST, b"1234567"), False),
    ],
)
def test_the_back_channel_refuses_what_is_not_its_own(data: bytes, header: bool) -> None:
    error = refuse(data, StreamParser(direction=Direction.BACK, header=header))
    assert error.offset == 0


def test_events_before_an_error_in_the_same_chunk_are_not_lost() -> None:
    sample = remus_stream(1)
    parser = StreamParser()
    events = parse(parser, sample.data + writer.libxc_record(0x55))
    assert EpochSealed(sample.size, 1) in events
    assert parser.error is not None
    assert parser.error.offset == sample.size
    with pytest.raises(UnknownMandatoryRecord):
        parser.feed(sample.data)
    with pytest.raises(UnknownMandatoryRecord):
        parser.finish()


def test_a_replication_stream_that_stops_between_epochs_is_still_not_complete() -> None:
    sample = remus_stream(1)
    parser = StreamParser()
    parse(parser, sample.data)
    assert parser.is_between_records
    with pytest.raises(StreamTruncated) as caught:
        parser.finish()
    assert caught.value.offset == sample.size


def test_an_empty_stream_is_truncated_at_its_beginning() -> None:
    with pytest.raises(StreamTruncated) as caught:
        StreamParser().finish()
    assert caught.value.offset == 0


def test_a_buffer_may_be_overwritten_and_resized_once_it_was_fed() -> None:
    sample = save_image()
    parser = StreamParser()
    events: list[Event] = []
    buffer = bytearray(7)
    for at in range(0, sample.size, 7):
        buffer[:] = sample.data[at : at + 7]
        events += parser.feed(memoryview(buffer))
        buffer[:] = b"\xff" * 9
    assert events == parse(StreamParser(), sample.data)


def _calls_during(function: Callable[[], object]) -> int:
    """Count the calls, of Python and of C functions, that `function` makes."""
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("body", [4096, 64 * MIB])
def test_a_chunk_costs_as_much_as_it_has_records_whatever_their_size(body: int) -> None:
    parser = StreamParser()
    parse(parser, Sample().headers().data)
    chunk = writer.libxc_record(RecordType.TOOLSTACK, bytes(body)) * 2
    assert _calls_during(lambda: parser.feed(chunk)) < 120


def test_bodies_are_neither_copied_nor_kept() -> None:
    parser = StreamParser()
    parse(parser, Sample().headers().data)
    chunk = bytes(MIB)
    header = struct.pack("<II", RecordType.TOOLSTACK, 128 * MIB)
    tracemalloc.start()
    try:
        parser.feed(header)
        for _ in range(127):
            assert parser.feed(chunk) == ()
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024
    finally:
        tracemalloc.stop()
    assert not parser.is_between_records
