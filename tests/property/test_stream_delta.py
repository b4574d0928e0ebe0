"""Deltas of any stream, split in any way; spoilt blocks."""

import random
import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from colod.errors import StreamError
from colod.stream import writer
from colod.stream.delta.block import HEADER, MAX_OUTPUT_BYTES
from colod.stream.delta.store import BATCH_PAGES
from colod.stream.delta.terms import CODEC_NAMES, NONE
from colod.stream.libxc import DomainType, PageType
from colod.stream.record import ByteOrder
from colod.stream.writer import typed_pfn
from tests.unit.delta_samples import Ends
from tests.unit.stream_samples import Sample
from tests.unit.test_stream_delta import assert_equal_stores

PFN_LIMIT = 400
WITHOUT_DATA = (PageType.BROKEN, PageType.XALLOC, PageType.XTAB)


class Guest:
    """Memory that changes in all ways that matter to deltas."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._pages: dict[int, bytes] = {}

    def record(self) -> bytes:
        """Return a PAGE_DATA record of some pages, changed or not; of some PFNs more than once."""
        chance = self._chance
        pfns = chance.choices(range(PFN_LIMIT + 5), k=chance.choice((1, 3, BATCH_PAGES + 2)))
        if chance.random() < 0.7:
            pfns = sorted(set(pfns))
        entries, pages = [], []
        for pfn in pfns:
            kind = chance.choice(list(PageType))
            entries.append(typed_pfn(pfn, kind))
            if kind not in WITHOUT_DATA:
                pages.append(self._change(pfn))
        return writer.page_data(entries, pages)

    def _change(self, pfn: int) -> bytes:
        chance, page = self._chance, self._pages.get(pfn, bytes(4096))
        match chance.randrange(4):
            case 0:
                page = bytes(4096)
            case 1:
                page = chance.randbytes(4096)
            case 2:
                for at in chance.sample(range(4088), chance.choice((1, 200))):
                    page = page[:at] + chance.randbytes(1) + page[at + 1 :]
        self._pages[pfn] = page
        return page


@st.composite
def replications(draw: st.DrawFn) -> list[bytes]:
    """Draw a stream, cut into its epochs."""
    domain = draw(st.sampled_from(DomainType))
    order = draw(st.sampled_from([ByteOrder.LITTLE] * 5 + [ByteOrder.BIG]))
    config = draw(st.binary(max_size=20))
    guest = Guest(draw(st.integers(0, 1 << 32)))
    sample = Sample(order, domain=domain, config=config).headers()
    epochs = []
    for _ in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(0, 2))):
            if order is ByteOrder.LITTLE:
                sample.raw(guest.record())
            else:
                sample.pages(2)
        sample.state().seal()
        epochs.append(sample.data)
        sample = Sample(order, domain=domain)
        if domain is DomainType.X86_HVM and draw(st.booleans()):
            sample.libxl(writer.checkpoint_state(0, order=order))
    return epochs


def split(data: bytes, seed: int, pieces: int) -> list[bytes]:
    chance = random.Random(seed)
    cuts = sorted(chance.choices(range(len(data) + 1), k=pieces - 1))
    return [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]


pieces = st.sampled_from([1, 2, 7, 100])


@settings(max_examples=60, deadline=None)
@given(replications(), st.sampled_from(CODEC_NAMES), st.integers(0, 99), pieces, pieces)
def test_any_split_on_either_side_gives_the_stream_bit_for_bit(
    epochs: list[bytes], codec: str, seed: int, fed: int, received: int
) -> None:
    ends = Ends(pfn_limit=PFN_LIMIT, codec=codec)
    for epoch in epochs:
        wire = b"".join(ends.encode(*split(epoch, seed, fed)))
        assert ends.decode(split(wire, seed, received)) == epoch
        assert_equal_stores(ends.sent, ends.received)


@settings(max_examples=40, deadline=None)
@given(replications(), st.integers(0, 99), st.integers(1, 30))
def test_a_flush_may_come_anywhere(epochs: list[bytes], seed: int, flushes: int) -> None:
    ends = Ends(pfn_limit=PFN_LIMIT, codec=NONE)
    for epoch in epochs:
        for piece in split(epoch, seed, flushes):
            blocks = ends.encoder.feed(piece) + ends.encoder.flush()
            assert ends.decode(blocks) == piece


@settings(max_examples=20, deadline=None)
@given(replications(), st.integers(0, 99))
def test_byte_by_byte_is_no_different(epochs: list[bytes], seed: int) -> None:
    whole, bytewise = Ends(pfn_limit=PFN_LIMIT), Ends(pfn_limit=PFN_LIMIT)
    for epoch in epochs:
        tail = epoch[:3000]
        blocks = bytewise.encode(*(tail[at : at + 1] for at in range(len(tail))), epoch[3000:])
        assert blocks == whole.encode(epoch)


@settings(max_examples=40, deadline=None)
@given(replications(), replications(), st.integers(0, 99))
def test_after_a_rollback_another_version_of_the_epoch_comes_out(
    epochs: list[bytes], others: list[bytes], seed: int
) -> None:
    ends = Ends(pfn_limit=PFN_LIMIT, keeps_undo=True)
    ends.carry(epochs[0])
    ends.encoder.commit()
    ends.decoder.commit()
    for discarded in epochs[1:]:
        for block in ends.encode(discarded)[:-1]:
            list(ends.decoder.feed(block))
    ends.encoder.rollback()
    ends.decoder.rollback()
    assert_equal_stores(ends.sent, ends.received)
    for other in others[1:]:
        assert ends.carry(other) == other
        assert_equal_stores(ends.sent, ends.received)


@settings(max_examples=200, deadline=None)
@given(replications(), st.integers(0, 1 << 32), st.integers(1, 4))
def test_spoilt_blocks_raise_nothing_but_stream_errors(
    epochs: list[bytes], seed: int, spots: int
) -> None:
    ends = Ends(pfn_limit=PFN_LIMIT, codec=NONE)
    chance = random.Random(seed)
    wire = bytearray(b"".join(ends.encode(epochs[0])))
    for _ in range(spots):
        at = chance.choice((chance.randrange(len(wire)), chance.randrange(min(len(wire), 200))))
        wire[at] = chance.randrange(256)
    try:
        for part in ends.decoder.feed(wire):
            assert len(part) <= MAX_OUTPUT_BYTES
        ends.decoder.seal()
    except StreamError:
        return


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([0, 1]))
def test_any_bytes_as_a_block_raise_nothing_but_stream_errors(data: bytes, codec: int) -> None:
    size = struct.pack("<I", len(data))
    block = HEADER.pack(1, codec, 0, *struct.unpack("<I", size) * 2) + data
    try:
        name = CODEC_NAMES[1 - codec]
        assert sum(map(len, Ends(codec=name).decoder.feed(block))) <= MAX_OUTPUT_BYTES
    except StreamError:
        return
