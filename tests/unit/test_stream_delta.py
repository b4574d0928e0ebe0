"""Deltas: what goes over the wire, what both sides keep, and what a hostile sender can do."""

import struct
import tempfile
import tracemalloc

import numpy as np
import pytest
import zstandard

from colod.errors import RecordTooLong, StreamError, StreamTruncated
from colod.stream import libxc
from colod.stream.delta.block import COUNTS, HEADER, MAX_OUTPUT_BYTES, MAX_PLAIN_BYTES, Op
from colod.stream.delta.codec import MAX_GROWTH_BYTES, Zstd1
from colod.stream.delta.decoder import Decoder
from colod.stream.delta.encoder import Encoder
from colod.stream.delta.pages import PageCounts
from colod.stream.delta.store import BATCH_PAGES, PageStore, mapped_pages, memory_pages
from colod.stream.delta.terms import NONE, ZSTD_1
from colod.stream.record import ByteOrder
from colod.stream.writer import typed_pfn
from tests.unit.delta_samples import Ends, epoch, headers, make_store, noise, page_record
from tests.unit.stream_samples import Sample, remus_stream
from tests.unit.test_stream_capture import CAPTURE

FRAME_BYTES = 1 << 20
SMALL = 700  # bytes of an epoch without pages, as these samples have it


def patched(page: bytes, at: int, word: bytes) -> bytes:
    return page[:at] + word + page[at + len(word) :]


# -- what goes over the wire


def test_an_unchanged_page_costs_almost_nothing() -> None:
    ends = Ends(1000)
    pages = dict(enumerate(noise(1, 500)))
    ends.carry(headers() + epoch(pages))
    assert ends.wire_bytes > 500 * 4096
    assert ends.carry(epoch(pages)) == epoch(pages)
    assert ends.wire_bytes < SMALL
    assert ends.encoder.counts.same == 500


def test_a_changed_word_costs_that_word_and_a_bitmap() -> None:
    ends = Ends()
    page = noise(1)[0]
    ends.carry(headers() + epoch({5: page}))
    changed = patched(page, 800, b"changed!")
    assert ends.carry(epoch({5: changed})) == epoch({5: changed})
    assert ends.wire_bytes < SMALL
    assert ends.encoder.counts == PageCounts(delta=1, raw=1)


def test_a_page_of_zeroes_costs_almost_nothing_even_when_it_was_noise() -> None:
    ends = Ends()
    ends.carry(headers() + epoch({5: noise(1)[0]}))
    assert ends.carry(epoch({5: bytes(4096)})) == epoch({5: bytes(4096)})
    assert ends.wire_bytes < SMALL
    assert (ends.encoder.counts.raw, ends.encoder.counts.zero) == (2, 1)


def test_a_page_that_was_rewritten_is_kept_as_it_is_now() -> None:
    ends = Ends()
    first, second = noise(1, 2)
    ends.carry(headers() + epoch({5: first}))
    ends.carry(epoch({5: second}))
    assert ends.carry(epoch({5: second})) == epoch({5: second})
    assert ends.encoder.counts == PageCounts(same=1, raw=2)


@pytest.mark.parametrize("has_new", [False, True], ids=["changes alone", "new pages too"])
def test_a_changed_page_is_kept_as_it_is_now(has_new: bool) -> None:
    ends = Ends()
    old = dict(enumerate(noise(1, 9)))
    ends.carry(headers() + epoch(old))
    now = {pfn: patched(page, 8 * pfn, b"changed!") for pfn, page in old.items()}
    if has_new:
        now |= {20: noise(2)[0], 21: noise(3)[0]}
    ends.carry(epoch(now))
    assert ends.encoder.counts.delta == len(old)
    assert ends.carry(epoch(now)) == epoch(now)
    assert ends.encoder.counts.same == len(now)


def test_a_piece_of_the_output_fits_into_a_frame_even_of_noise() -> None:
    ends = Ends(2000)
    blocks = ends.encode(headers() + epoch(dict(enumerate(noise(1, 1000)))))
    assert max(map(len, blocks)) <= FRAME_BYTES
    assert ends.wire_bytes < 1000 * 4096 * 1.03


def test_what_stands_for_many_pages_is_split_too() -> None:
    ends = Ends(1 << 13, pfn_limit=1 << 13)
    records = b"".join(
        page_record(range(base, base + 1024), [bytes(4096)] * 1024)
        for base in range(0, 5 << 10, 1 << 10)
    )
    stream = headers() + records
    blocks = ends.encode(stream)
    parts = [bytes(part) for block in blocks for part in ends.decoder.feed(block)]
    assert max(map(len, parts)) <= MAX_OUTPUT_BYTES
    assert b"".join(parts) == stream


def test_without_a_codec_nothing_is_packed() -> None:
    ends = Ends(codec=NONE)
    pages = {1: b"ab" * 2048}
    assert ends.carry(headers() + epoch(pages)) == headers() + epoch(pages)
    assert ends.wire_bytes > 4096
    ends.carry(epoch(pages))
    assert 100 < ends.wire_bytes < len(epoch({})) + 100


# -- what is passed on literally


@pytest.mark.parametrize(
    "stream",
    [
        b"no header at all, but long enough to be mistaken for one of xl's headers" * 200,
        remus_stream(order=ByteOrder.BIG).data,
        Sample().headers().data + struct.pack("<II", libxc.RecordType.PAGE_DATA, 1 << 31),
        Sample().headers().data + struct.pack("<IIII", 1, 8 + 16 + 4096, 2, 0) + bytes(9000),
        Sample().headers().data + struct.pack("<IIII", 1, 24, 5000, 0) + bytes(9000),
        Sample().headers().data + struct.pack("<IIII", 1, 24, 3, 0) + bytes(9000),
        Sample().headers().data + struct.pack("<II", 1, 4) + bytes(9000),
    ],
    ids=["garbage", "big-endian", "endless", "short", "too many", "short list", "no count"],
)
def test_what_is_not_understood_goes_through_as_it_is(stream: bytes) -> None:
    ends = Ends()
    assert ends.carry(stream) == stream
    assert ends.sent.pages_held == 0


def test_pages_of_types_without_contents_are_no_pages() -> None:
    ends = Ends()
    pfns = [typed_pfn(1, libxc.PageType.XTAB), 2, typed_pfn(3, libxc.PageType.BROKEN)]
    stream = headers() + page_record(pfns, noise(1))
    assert ends.carry(stream) == stream
    assert ends.sent.pages_held == 1


def test_a_flush_inside_a_record_loses_nothing_and_the_next_record_has_deltas_again() -> None:
    ends = Ends()
    pages = dict(enumerate(noise(1, 20)))
    ends.carry(headers() + epoch(pages))
    stream = epoch(pages)
    for cut in (4, 12, 20, 100, 16 + 160 + 4096, 16 + 160 + 5000):
        blocks = ends.encoder.feed(stream[:cut]) + ends.encoder.flush()
        blocks += ends.encoder.feed(stream[cut:]) + ends.encoder.flush()
        assert ends.decode(blocks) == stream
    ends.carry(stream)
    assert ends.wire_bytes < SMALL


# -- the stores


def test_a_full_store_drops_what_it_has_had_for_longest() -> None:
    ends = Ends(BATCH_PAGES, codec=NONE)
    first = dict(enumerate(noise(1, BATCH_PAGES)))
    ends.carry(headers() + epoch(first))
    newer = {3000 + pfn: page for pfn, page in enumerate(noise(2, 10))}
    ends.carry(epoch(newer))
    assert ends.sent.pages_held == BATCH_PAGES
    before = ends.encoder.counts.same
    ends.carry(epoch({pfn: first[pfn] for pfn in range(10, BATCH_PAGES)}))
    assert ends.encoder.counts.same == before + BATCH_PAGES - 10
    assert ends.carry(epoch({0: first[0]})) == epoch({0: first[0]})
    assert ends.wire_bytes > 4096


def test_a_pfn_beyond_the_limit_is_sent_whole_each_time() -> None:
    ends = Ends(pfn_limit=16)
    page = noise(1)[0]
    pages = {15: page, 16: page, (1 << 52) - 1: page}
    for stream in (headers() + epoch(pages), epoch(pages)):
        assert ends.carry(stream) == stream
    assert ends.sent.pages_held == 1
    assert ends.encoder.counts == PageCounts(same=1, raw=5)


def test_of_a_pfn_that_comes_twice_in_a_record_the_first_is_kept() -> None:
    ends = Ends()
    first, second = noise(1, 2)
    twice = page_record([7, 6, 7], [first, first, second])
    for stream in (headers() + twice, twice):
        assert ends.carry(stream) == stream
    assert ends.encoder.counts == PageCounts(same=2, raw=4)


def test_both_stores_are_equal_after_each_epoch() -> None:
    ends = Ends(300)
    ends.carry(headers() + epoch(dict(enumerate(noise(0, 200)))))
    for seed in range(1, 6):
        pages = {(seed * 37 + step) % 500: page for step, page in enumerate(noise(seed, 90))}
        ends.carry(epoch(dict(sorted(pages.items()))))
        assert_equal_stores(ends.sent, ends.received)


def test_a_store_in_a_file_does_what_one_in_memory_does() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(1000 * 4096)
        store = PageStore(mapped_pages(file.fileno(), 1000), pfn_limit=4096)
        encoder, ends = Encoder(store), Ends(1000)
        for stream in (headers() + epoch(dict(enumerate(noise(1, 300)))), epoch({4: noise(2)[0]})):
            assert encoder.feed(stream) + encoder.flush() == ends.encode(stream)
        assert_equal_stores(store, ends.sent)


def test_a_store_for_less_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="not 239"):
        make_store(BATCH_PAGES - 1)


def test_a_discarded_epoch_leaves_no_trace_on_either_side() -> None:
    ends = Ends(300, keeps_undo=True)
    pages = dict(enumerate(noise(1, 290)))
    ends.carry(headers() + epoch(pages))
    ends.encoder.commit()
    ends.decoder.commit()
    kept = [ends.sent.find(np.arange(400)), ends.received.find(np.arange(400))]
    discarded = dict(enumerate(noise(2, 60), start=270))
    first, *_ = ends.encode(epoch(discarded))
    list(ends.decoder.feed(first[:-9]))
    ends.encoder.rollback()
    ends.decoder.rollback()
    assert [s.find(np.arange(400)).tolist() for s in (ends.sent, ends.received)] == [
        slots.tolist() for slots in kept
    ]
    assert ends.carry(epoch(pages)) == epoch(pages)
    assert ends.wire_bytes < SMALL


def test_a_commit_covers_only_the_oldest_sealed_epoch() -> None:
    ends = Ends(keeps_undo=True)
    one, two, three = noise(1, 3)
    ends.carry(headers() + epoch({1: one}))
    ends.carry(epoch({1: two}))
    ends.carry(epoch({1: three}))
    for side in (ends.encoder, ends.decoder):
        side.commit()
        side.commit()
        side.rollback()
    assert_equal_stores(ends.sent, ends.received)
    ends.carry(epoch({1: two}))
    assert ends.encoder.counts.same == 1


# -- hostile or broken senders


def block(plain: bytes, *, codec: int = 0, claimed: int | None = None) -> bytes:
    size = len(plain) if claimed is None else claimed
    return HEADER.pack(1, codec, 0, size, len(plain)) + plain


def columns(
    ops: list[tuple[Op, int]],
    *,
    pfns: tuple[int, ...] = (),
    classes: bytes = b"",
    bitmaps: bytes = b"",
    words: bytes = b"",
    literal: bytes = b"",
) -> bytes:
    counts = (len(ops), len(pfns), len(classes), len(bitmaps) // 64, len(words) // 8, len(literal))
    packed = struct.pack(f"<{len(ops)}I", *(kind << 30 | count for kind, count in ops))
    listed = struct.pack(f"<{len(pfns)}Q", *pfns)
    return COUNTS.pack(*counts) + packed + listed + classes + bitmaps + words + literal


ONE_BIT = b"\x80" + bytes(63)
PFN_AND_PAGE = [(Op.PFNS, 1), (Op.PAGES, 1)]

HOSTILE = {
    "no block": b"not a block at all",
    "another version": HEADER.pack(2, 0, 0, 24, 24) + bytes(24),
    "too long": HEADER.pack(1, 0, 0, MAX_PLAIN_BYTES + 1, 24),
    "packed longer than plain": HEADER.pack(1, 0, 0, 100, 100 + MAX_GROWTH_BYTES + 1),
    "packed in nothing": HEADER.pack(1, 0, 0, 100, 0),
    "unknown codec": block(columns([]), codec=7),
    "no codec with two lengths": block(columns([]), claimed=30),
    "columns beyond the block": block(COUNTS.pack(0, 0, 0, 0, 0, 1 << 31)),
    "bytes beyond the columns": block(columns([]) + b"x"),
    "unknown op": block(columns([(3, 0)])),  # type: ignore[list-item]
    "op without bytes": block(columns([(Op.LITERAL, 5)], literal=b"four")),
    "bytes without op": block(columns([], literal=b"four")),
    "page without a PFN": block(columns([(Op.PAGES, 1)], classes=b"\0")),
    "change of an unknown page": block(
        columns(PFN_AND_PAGE, pfns=(5,), classes=b"\1", bitmaps=ONE_BIT, words=bytes(8))
    ),
    "unknown page is the same": block(columns(PFN_AND_PAGE, pfns=(5,), classes=b"\0")),
    "keeping beyond the limit": block(
        columns(PFN_AND_PAGE, pfns=(1 << 40,), classes=b"\2", bitmaps=bytes(64))
    ),
    "unknown class": block(columns(PFN_AND_PAGE, pfns=(5,), classes=b"\4", bitmaps=bytes(64))),
    "no bitmap": block(columns(PFN_AND_PAGE, pfns=(5,), classes=b"\2")),
    "a word too few": block(columns(PFN_AND_PAGE, pfns=(5,), classes=b"\2", bitmaps=ONE_BIT)),
    "a word too many": block(
        columns(PFN_AND_PAGE, pfns=(5,), classes=b"\2", bitmaps=bytes(64), words=bytes(8))
    ),
    "too long a list": block(columns([(Op.PFNS, 5000)], pfns=(0,) * 5000)),
    "too many pages at once": block(
        columns(
            [(Op.PFNS, 300), (Op.PAGES, 300)],
            pfns=(1,) * 300,
            classes=b"\3" * 300,
            bitmaps=bytes(64 * 300),
        )
    ),
    "too much output": block(columns([(Op.PAGES, 5000)], classes=bytes(5000))),
    "broken zstd": HEADER.pack(1, 1, 0, 100, 20) + bytes(20),
}


def hostile_decoder(data: bytes) -> Decoder:
    return Decoder(make_store(), codec=ZSTD_1 if data[1] == Zstd1.number else NONE)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_block_that_no_encoder_makes_is_refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        list(hostile_decoder(data).feed(data))


def test_a_refusal_names_the_limit() -> None:
    with pytest.raises(RecordTooLong, match=str(MAX_OUTPUT_BYTES)):
        list(hostile_decoder(HOSTILE["too much output"]).feed(HOSTILE["too much output"]))


def test_a_codec_that_was_not_agreed_on_is_refused() -> None:
    blocks = Ends(codec=ZSTD_1).encode(headers() + epoch({1: bytes(4096)}))
    with pytest.raises(StreamError, match="codec 1 was not agreed on"):
        list(Decoder(make_store(), codec=NONE).feed(blocks[0]))


@pytest.mark.parametrize("writes_size", [True, False])
def test_a_zstd_bomb_costs_no_memory(writes_size: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=writes_size)
    bomb = compressor.compress(bytes(256 << 20))
    data = HEADER.pack(1, 1, 0, MAX_PLAIN_BYTES, len(bomb)) + bomb
    decoder = Decoder(make_store())
    del compressor
    tracemalloc.start()
    try:
        with pytest.raises(StreamError):
            list(decoder.feed(data))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_blocks_that_unpack_to_more_than_they_announced_cost_no_memory() -> None:
    codec, decoder = Zstd1(), Decoder(make_store())
    blocks = []
    for _ in range(100):
        packed = codec.pack(bytes(1 << 20))  # no columns, and again no columns, and again ...
        blocks.append(HEADER.pack(1, 1, 0, COUNTS.size, len(packed)) + packed)
    tracemalloc.start()
    try:
        with pytest.raises(StreamError, match="does not unpack"):
            list(decoder.feed(b"".join(blocks)))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_block_that_unpacks_to_less_than_it_announced_is_refused() -> None:
    packed = Zstd1().pack(columns([]))
    with pytest.raises(StreamError, match="does not unpack"):
        list(Decoder(make_store()).feed(HEADER.pack(1, 1, 0, 5000, len(packed)) + packed))


def test_a_window_beyond_the_bound_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(columns([])) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(StreamError, match="too much memory"):
        list(Decoder(make_store()).feed(HEADER.pack(1, 1, 0, 24, len(packed)) + packed))


def test_what_the_last_epoch_had_costs_little_even_where_it_is_not_held() -> None:
    ends = Ends(pfn_limit=1)
    ends.carry(headers() + epoch({7: noise(1)[0]}))
    assert ends.wire_bytes > 4096
    assert ends.carry(epoch({7: noise(1)[0]})) == epoch({7: noise(1)[0]})
    assert ends.wire_bytes < SMALL


def test_an_epoch_that_ends_inside_a_block_is_truncated() -> None:
    ends = Ends()
    blocks = ends.encode(headers() + epoch({1: noise(1)[0]}))
    list(ends.decoder.feed(blocks[0][:-1]))
    with pytest.raises(StreamTruncated):
        ends.decoder.seal()


# -- a real guest


@pytest.mark.skipif(not CAPTURE.exists(), reason=f"no capture at {CAPTURE}")
def test_the_capture_of_a_real_guest_comes_out_bit_for_bit_and_60_times_smaller() -> None:
    from tests.bench.capture import epochs

    ends = Ends(1 << 10, pfn_limit=1 << 20)
    first, *later = epochs(CAPTURE)
    assert ends.carry(first) == first
    total = 0
    for each in later:
        assert ends.carry(each) == each
        total += ends.wire_bytes
    assert sum(map(len, later)) / total >= 60


def assert_equal_stores(one: PageStore, other: PageStore) -> None:
    pfns = np.arange(one.pfn_limit)
    slots = one.find(pfns)
    assert slots.tolist() == other.find(pfns).tolist()
    held = slots[slots >= 0]
    contents = [memory_pages(len(held)), memory_pages(len(held))]
    for store, out in zip((one, other), contents, strict=True):
        store.gather(held, out)
    assert np.array_equal(contents[0], contents[1])
    assert one.pages_held == len(held)
