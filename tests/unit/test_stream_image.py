"""Images of single epochs, made of a replication stream while it goes on."""

import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.errors import CheckpointError, StreamError
from colod.stream import libxc, writer
from colod.stream.events import EpochSealed, Layer, RecordSeen, StreamEnded
from colod.stream.image.export import Export
from colod.stream.image.keeper import MAX_STATE_BYTES, ImageKeeper
from colod.stream.image.pages import PFN_LIMIT
from colod.stream.libxc import DomainType, PageType, RecordType, decode_page_data
from colod.stream.parser import StreamParser
from colod.stream.record import REC_HEADER_BYTES
from colod.stream.writer import typed_pfn
from tests.unit.stream_samples import Sample, parse, remus_stream
from tests.unit.test_stream_verify import CAPTURE, SCRIPT, verify

PAGE_BYTES = 4096
Memory = dict[int, tuple[PageType, bytes | None]]


class Store:
    """Contents of pages in memory."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}

    def write(self, pfn: int, contents: memoryview) -> None:
        """Keep them."""
        for index in range(len(contents) // PAGE_BYTES):
            at = index * PAGE_BYTES
            self.pages[pfn + index] = bytes(contents[at : at + PAGE_BYTES])

    def read(self, pfn: int, count: int) -> bytes:
        """Return them."""
        return b"".join(self.pages[each] for each in range(pfn, pfn + count))


def keeper(max_pages: int = 1 << 20) -> ImageKeeper:
    """Return one that keeps pages in memory."""
    return ImageKeeper(Store(), max_pages=max_pages)


def whole(export: Export) -> None:
    """Carry an export to its end."""
    while export.step():
        pass
    assert export.is_done


def memory_of(image: bytes) -> tuple[Memory, list[tuple[Layer, int, bytes]]]:
    """Return what a restore makes of an image: the pages, and the other records in order."""
    parser = StreamParser()
    events = parse(parser, image)
    parser.finish()
    assert isinstance(events[-1], StreamEnded)
    memory: Memory = {}
    others = []
    for event in events:
        if not isinstance(event, RecordSeen):
            continue
        begin = event.offset + REC_HEADER_BYTES
        body = image[begin : begin + event.length]
        if (event.layer, event.type) != (Layer.LIBXC, RecordType.PAGE_DATA):
            others.append((event.layer, event.type, body))
            continue
        for pfn, kind, contents in decode_page_data(body):
            assert pfn not in memory, "a page is in the image once"
            memory[pfn] = (kind, None if contents is None else bytes(contents))
    return memory, others


def page(number: int) -> bytes:
    """Return contents that tell pages apart."""
    return number.to_bytes(8, "little") * (PAGE_BYTES // 8)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("domain", DomainType)
@pytest.mark.parametrize("size", [1, 7, 4097, 1 << 20])
def test_an_image_is_what_a_save_of_that_moment_would_be(
    version: int, domain: DomainType, size: int
) -> None:
    sample = remus_stream(2, version=version, domain=domain)
    kept = keeper()
    data = sample.data
    for at in range(0, len(data), size):
        kept.feed(data[at : at + size])
    assert (kept.epoch, kept.is_whole, kept.config) == (2, True, sample.config)
    out = bytearray()
    export = kept.export(out.extend)
    whole(export)
    expected = Sample(version=version, domain=domain).headers().pages().state().end().data
    assert bytes(out) == expected
    assert export.written_bytes == export.total_bytes == len(expected)


def test_the_newest_contents_and_types_count() -> None:
    sample = Sample().headers()
    first = [0, 1, typed_pfn(2, PageType.L1TAB), 3, typed_pfn(9, PageType.XTAB)]
    sample.libxc(writer.page_data(first, [page(n) for n in range(4)])).state().seal()
    balloon = [
        1,
        typed_pfn(2, PageType.XTAB),
        typed_pfn(3, PageType.BROKEN),
        9,
        typed_pfn(0, PageType.XALLOC),
        typed_pfn(11, PageType.XALLOC),
    ]
    sample.libxc(writer.page_data(balloon, [page(11), page(19)])).state().seal()
    kept = keeper()
    kept.feed(sample.data)
    out = bytearray()
    whole(kept.export(out.extend))
    memory, _ = memory_of(bytes(out))
    assert memory == {
        0: (PageType.NOTAB, page(0)),
        1: (PageType.NOTAB, page(11)),
        2: (PageType.XTAB, None),
        3: (PageType.BROKEN, None),
        9: (PageType.NOTAB, page(19)),
        11: (PageType.XALLOC, None),
    }


def test_only_the_newest_checkpoints_state_is_in_the_image() -> None:
    sample = Sample().headers()
    for elapsed in (1, 2, 3):
        sample.pages()
        sample.libxc(writer.tsc_info(elapsed_ns=elapsed))
        sample.libxc(writer.pv_vcpu(RecordType.X86_PV_VCPU_BASIC, 0, bytes([elapsed]) * 8))
        if elapsed == 2:
            sample.libxc(writer.pv_p2m_frames(0, 1023, [5, 6]))
        sample.seal()
    kept = keeper()
    kept.feed(sample.data)
    out = bytearray()
    whole(kept.export(out.extend))
    _, others = memory_of(bytes(out))
    kinds = [kind for layer, kind, _ in others if layer is Layer.LIBXC]
    assert kinds.count(RecordType.X86_TSC_INFO) == kinds.count(RecordType.X86_PV_VCPU_BASIC) == 1
    assert kinds.count(RecordType.X86_PV_P2M_FRAMES) == 1
    bodies = {kind: body for layer, kind, body in others if layer is Layer.LIBXC}
    assert bodies[RecordType.X86_PV_VCPU_BASIC].endswith(bytes([3]) * 8)
    assert bodies[RecordType.X86_PV_P2M_FRAMES].endswith(bytes([5, *bytes(7), 6, *bytes(7)]))


def test_an_image_is_of_one_moment_however_the_guest_goes_on_meanwhile() -> None:
    random.seed(7)
    total = 3000
    expected: Memory = {}
    kept = keeper()

    def epoch(pfns: list[int]) -> bytes:
        sample = Sample()
        contents = []
        for pfn in pfns:
            number = random.getrandbits(60)
            contents.append(page(number))
            live[pfn] = (PageType.NOTAB, page(number))
        return sample.libxc(writer.page_data(pfns, contents)).state().seal().data

    live: Memory = {}
    kept.feed(Sample().headers().data)
    kept.feed(epoch(list(range(total))))
    for round_ in range(5):
        expected = dict(live)
        out = bytearray()
        export = kept.export(out.extend)
        while export.step():
            kept.feed(epoch(sorted(random.sample(range(total + round_), 40))))
        kept.end_export()
        memory, _ = memory_of(bytes(out))
        assert memory == expected
        assert export.epoch < kept.epoch
        assert export.saved_pages


def test_an_image_that_cannot_be_written_hurts_nothing_else() -> None:
    kept = keeper()
    kept.feed(remus_stream(1).data)

    def full(octets: bytes) -> None:
        raise OSError(28, "No space left on device")

    export = kept.export(full)
    assert not export.step()
    assert export.error is not None
    assert not export.is_done
    kept.feed(Sample().pages().state().seal().data)
    kept.end_export()
    out = bytearray()
    whole(kept.export(out.extend))
    assert kept.epoch == 2


def test_another_configuration_takes_the_place_of_the_domains_own() -> None:
    sample = remus_stream(1)
    kept = keeper()
    kept.feed(sample.data)
    out = bytearray()
    whole(kept.export(out.extend, config=b'{"c_info": {"name": "other"}}'))
    ours = out.replace(writer.xl_header(b'{"c_info": {"name": "other"}}'), b"")
    plain = bytearray()
    kept.end_export()
    whole(kept.export(plain.extend))
    assert ours == plain.replace(writer.xl_header(sample.config), b"")


def test_no_image_is_begun_inside_an_epoch() -> None:
    kept = keeper()
    with pytest.raises(CheckpointError, match="no epoch is whole"):
        kept.export(bytearray().extend)
    kept.feed(remus_stream(1).data)
    kept.feed(Sample().pages().data)
    with pytest.raises(CheckpointError, match="no epoch is whole"):
        kept.export(bytearray().extend)


def test_more_pages_than_may_be_kept_name_the_setting() -> None:
    kept = keeper(max_pages=2)
    with pytest.raises(CheckpointError) as caught:
        kept.feed(Sample().headers().pages(3).data)
    assert "checkpoints.store_mib" in caught.value.advice


@pytest.mark.parametrize(
    "piece",
    [
        writer.libxc_record(RecordType.VERIFY),
        writer.libxc_record(RecordType.END),
        writer.libxc_record(RecordType.PAGE_DATA, (9).to_bytes(8, "little")),
        writer.libxc_record(RecordType.PAGE_DATA, (1).to_bytes(8, "little") + bytes(8)),
        writer.page_data([typed_pfn(PFN_LIMIT)], [bytes(PAGE_BYTES)]),
    ],
)
def test_what_no_image_can_be_made_of_is_an_error(piece: bytes) -> None:
    kept = keeper()
    kept.feed(Sample().headers().pages().data)
    with pytest.raises((StreamError, CheckpointError)):
        kept.feed(piece)


def _epochs(count: int) -> Iterator[bytes]:
    """Yield the first epochs of the capture, in chunks, and an empty one between them."""
    import zstandard

    parser = StreamParser()
    with CAPTURE.open("rb") as packed:
        unpacked = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(packed))
        while chunk := unpacked.read(1 << 20):
            begins, at = parser.offset, 0
            for event in parser.feed(chunk):
                if isinstance(event, EpochSealed):
                    yield chunk[at : event.offset - begins]
                    at = event.offset - begins
                    yield b""
                    count -= 1
                    if not count:
                        return
            yield chunk[at:]


@pytest.mark.skipif(not CAPTURE.exists(), reason=f"no capture at {CAPTURE}")
def test_an_image_of_the_capture_is_its_first_copy_with_all_that_came_after(
    tmp_path: Path,
) -> None:
    kept, memory = keeper(), {}
    out = bytearray()
    export = None
    raw = bytearray()
    for chunk in _epochs(12):
        kept.feed(chunk) if chunk else None
        raw += chunk
        if not chunk and kept.epoch == 10:
            for event in parse(StreamParser(), bytes(raw)):
                if isinstance(event, RecordSeen) and event.layer is Layer.LIBXC:
                    begin = event.offset + REC_HEADER_BYTES
                    if event.type == RecordType.PAGE_DATA:
                        body = bytes(raw[begin : begin + event.length])
                        for pfn, kind, contents in decode_page_data(body):
                            memory[pfn] = (kind, None if contents is None else bytes(contents))
            export = kept.export(out.extend)
        if export is not None:
            export.step()
    assert export is not None
    whole(export)
    found, others = memory_of(bytes(out))
    assert found == memory
    assert export.epoch == 10
    assert export.saved_pages
    kinds = [libxc.RecordType(kind).name for layer, kind, _ in others if layer is Layer.LIBXC]
    assert kinds == [
        *("X86_PV_INFO", "X86_CPUID_POLICY", "X86_MSR_POLICY", "STATIC_DATA_END"),
        *("X86_PV_P2M_FRAMES", "X86_TSC_INFO", "SHARED_INFO"),
        *("X86_PV_VCPU_BASIC", "X86_PV_VCPU_EXTENDED", "END"),
    ]
    if SCRIPT:
        image = tmp_path / "image"
        image.write_bytes(out)
        result = verify(image)
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not SCRIPT, reason="COLOD_VERIFY_STREAM names no verify-stream-v2")
@pytest.mark.parametrize("domain", DomainType)
def test_xens_judge_accepts_an_image(tmp_path: Path, domain: DomainType) -> None:
    kept = keeper()
    kept.feed(remus_stream(3, domain=domain).data)
    image = tmp_path / "image"
    out = bytearray()
    whole(kept.export(out.extend))
    image.write_bytes(out)
    result = verify(image)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_first_copy_without_end_does_not_fill_the_memory() -> None:
    """What is staged for xl is bounded elsewhere; this is what the image keeps beside it."""
    kept = keeper()
    kept.feed(Sample().headers().pages(1).data)
    record = writer.libxc_record(0x8000_0001, bytes(1 << 20))
    for _ in range((MAX_STATE_BYTES >> 20) - 1):
        kept.feed(record)
    with pytest.raises(CheckpointError, match="bytes of records in an epoch"):
        kept.feed(record)
    held = sum(map(len, kept._coming[0]))
    assert held <= MAX_STATE_BYTES


def test_a_record_that_is_too_long_is_refused_by_its_header() -> None:
    kept = keeper()
    kept.feed(Sample().headers().data)
    header = struct.pack("<II", RecordType.TOOLSTACK, MAX_STATE_BYTES + 1)
    with pytest.raises(CheckpointError, match="bytes of records"):
        kept.feed(header)


def test_the_state_of_each_epoch_is_counted_anew() -> None:
    sample = Sample().headers().pages(1)
    for _ in range(3):
        sample.libxc(writer.libxc_record(0x8000_0001, bytes(MAX_STATE_BYTES // 2)))
        sample.state().seal()
    kept = keeper()
    kept.feed(sample.data)
    assert kept.epoch == 3
