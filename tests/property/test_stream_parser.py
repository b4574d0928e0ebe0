"""The stream parser on any stream, split, cut or spoilt in any way."""

import struct
import tracemalloc
from bisect import bisect_right
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from colod.errors import StreamError
from colod.stream import writer
from colod.stream.events import Direction, EpochSealed, Event, RecordSeen, StreamEnded
from colod.stream.libxc import DomainType, RecordType
from colod.stream.parser import StreamParser
from colod.stream.record import ByteOrder
from tests.unit.stream_samples import Sample, remus_stream, save_image


@st.composite
def streams(draw: st.DrawFn) -> Sample:
    """Draw a whole stream: any domain, version, byte order, and any records that may come."""
    sample = Sample(
        draw(st.sampled_from(ByteOrder)),
        draw(st.sampled_from([2, 3])),
        draw(st.sampled_from(DomainType)),
        config=draw(st.binary(max_size=60)),
    ).headers()
    for _ in range(draw(st.integers(0, 3))):
        _draw_epoch(draw, sample)
        sample.seal()
        if sample.domain is DomainType.X86_HVM and draw(st.booleans()):
            sample.libxl(writer.checkpoint_state(0, order=sample.order))
    if draw(st.booleans()):
        _draw_epoch(draw, sample)
        sample.end()
    return sample


def _draw_epoch(draw: st.DrawFn, sample: Sample) -> None:
    for _ in range(draw(st.integers(0, 2))):
        sample.pages(draw(st.integers(0, 2)))
    if draw(st.booleans()):
        sample.state()
    if draw(st.booleans()):
        kind = draw(st.integers(0x8000_0000, 0xFFFF_FFFF))
        body = draw(st.binary(max_size=40))
        sample.libxc(writer.libxc_record(kind, body, order=sample.order))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut at the given places; some chunks may be empty."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def outcome(chunks: list[bytes], **options: object) -> tuple[list[Event], str, int | None]:
    """Return all events, and the error that came at last with its offset."""
    parser = StreamParser(**options)  # type: ignore[arg-type]
    events: list[Event] = []
    try:
        for chunk in chunks:
            events += parser.feed(chunk)
        parser.finish()
    except StreamError as error:
        return events, str(error), error.offset
    return events, "", None


@given(streams(), st.lists(st.integers(0, 40_000), max_size=12))
def test_any_split_gives_the_same_events(sample: Sample, cuts: list[int]) -> None:
    assert outcome(split(sample.data, cuts)) == outcome([sample.data])


@settings(max_examples=15)
@given(streams())
def test_a_stream_that_comes_byte_by_byte_gives_the_same_events(sample: Sample) -> None:
    bytewise = [sample.data[at : at + 1] for at in range(sample.size)]
    assert outcome(bytewise) == outcome([sample.data])


@given(streams())
def test_the_records_found_are_those_that_were_written(sample: Sample) -> None:
    events, _, _ = outcome([sample.data])
    assert [event for event in events if isinstance(event, RecordSeen)] == sample.records
    sealed = [event for event in events if isinstance(event, EpochSealed)]
    assert [(event.epoch, event.offset) for event in sealed] == list(enumerate(sample.seals, 1))


def check_truncation(sample: Sample, cut: int) -> None:
    """Cut a stream and check where the parser says that the incomplete record begins."""
    starts = sample.starts()
    events, _, offset = outcome([sample.data[:cut]])
    whole = [record for record in sample.records if record.end <= cut]
    assert [event for event in events if isinstance(event, RecordSeen)] == whole
    if events and isinstance(events[-1], StreamEnded):
        assert (cut, offset) == (sample.size, None)
    elif cut == sample.size:
        assert offset == cut
    else:
        assert offset == starts[bisect_right(starts, cut) - 1]


def test_truncation_at_every_byte_names_the_record_that_was_cut() -> None:
    for sample in (save_image(), remus_stream(2, ByteOrder.BIG, 2, DomainType.X86_HVM)):
        for cut in range(sample.size + 1):
            check_truncation(sample, cut)


@given(streams(), st.data())
def test_truncation_anywhere_names_the_record_that_was_cut(
    sample: Sample, data: st.DataObject
) -> None:
    check_truncation(sample, data.draw(st.integers(0, sample.size)))


@given(
    st.binary(max_size=300),
    st.booleans(),
    st.sampled_from(Direction),
    st.lists(st.integers(0, 300), max_size=5),
)
def test_garbage_is_refused_with_an_offset_inside_it(
    garbage: bytes, header: bool, direction: Direction, cuts: list[int]
) -> None:
    options = {"header": header, "direction": direction}
    events, error, offset = outcome(split(garbage, cuts), **options)
    assert (events, error, offset) == outcome([garbage], **options)
    if direction is Direction.FORWARD:
        assert offset is not None
        assert 0 <= offset <= len(garbage)


@given(streams(), st.data(), st.lists(st.integers(0, 40_000), max_size=4))
def test_a_spoilt_byte_harms_nothing_before_its_record(
    sample: Sample, data: st.DataObject, cuts: list[int]
) -> None:
    at = data.draw(st.integers(0, sample.size - 1))
    flip = data.draw(st.integers(1, 255))
    spoilt = bytearray(sample.data)
    spoilt[at] ^= flip
    events, _, offset = outcome(split(bytes(spoilt), cuts))
    begins = sample.starts()[bisect_right(sample.starts(), at) - 1]
    expected = [record for record in sample.records if record.end <= begins]
    found = [event for event in events if isinstance(event, RecordSeen)]
    assert found[: len(expected)] == expected
    assert offset is None or begins <= offset <= sample.size


@given(
    st.integers(0, 0xFFFF_FFFF) | st.sampled_from([int(kind) for kind in RecordType]),
    st.integers(0, 0xFFFF_FFFF),
    st.sampled_from(DomainType),
)
def test_no_length_field_makes_the_parser_keep_bytes(
    kind: int, length: int, domain: DomainType
) -> None:
    sample = Sample(domain=domain).headers()
    parser = StreamParser()
    parser.feed(sample.data)
    chunk = memoryview(bytes(256 * 1024))
    offset = sample.size
    tracemalloc.start()
    try:
        parser.feed(struct.pack("<II", kind, length))
        for _ in range(8):
            parser.feed(chunk[: min(len(chunk), length)])
    except StreamError as error:
        offset = error.offset
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 * 1024
    assert offset >= sample.size
