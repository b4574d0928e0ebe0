"""The receiver's half: blocks in, libxl's stream out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from colod.errors import StreamError, StreamTruncated
from colod.stream.delta.block import HEADER, Block, BlockHeader, Octets, Op
from colod.stream.delta.codec import CODECS, Codec
from colod.stream.delta.pages import decode
from colod.stream.delta.store import BATCH_PAGES, PAGE_WORDS, Ints, PageStore, Words
from colod.stream.delta.terms import ZSTD_1
from colod.stream.delta.walk import MAX_PFNS, PAGE_BYTES, pfns_with_data
from colod.stream.libxc import PFN_BYTES

_BYTES: Final = {Op.LITERAL: 1, Op.PFNS: PFN_BYTES, Op.PAGES: PAGE_BYTES}


class Decoder:
    """Turns an `Encoder`'s blocks back into the stream that it was fed.

    Exhausting what `feed` returns is heavy: do it in a worker thread, one call at a time. The
    bulk of it lets other threads run. After an error it is of no more use.
    """

    def __init__(self, store: PageStore, *, codec: str = ZSTD_1) -> None:
        """Await the first block.

        Args:
            store: Empty, of the size that the encoder's has.
            codec: The name that the encoder was given.
        """
        self._store = store
        self._codec_name = codec
        self._codec: Codec = CODECS[codec]()
        self._pfns: Ints = np.empty(0, np.int64)
        self._held = bytearray()
        self._header: BlockHeader | None = None
        self._offset = 0

    @property
    def is_between_blocks(self) -> bool:
        """Whether no block is begun and unfinished."""
        return not self._held and self._header is None

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
        """Yield the bytes of the stream for each block that `data` completes.

        Exhaust it before the next call; until then `data` must not change. What is yielded is
        at most 16 MiB each and nobody else's, so that a caller who has a bound of memory may
        stop in time: few bytes can stand for very many.

        Raises:
            StreamError: The bytes are no blocks, or of pages that this side does not have. What
                was yielded before is not to be used either: it was not yet sealed.
        """
        rest = memoryview(data).cast("B")
        while rest:
            wanted = HEADER.size if self._header is None else self._header.packed_bytes
            taken = rest[: wanted - len(self._held)]
            rest = rest[len(taken) :]
            whole = self._collect(taken, wanted)
            if whole is None:
                return
            if self._header is None:
                self._header = BlockHeader.parse(bytes(whole), self._offset)
            else:
                yield self._decode(whole, self._header)
                self._offset += HEADER.size + wanted
                self._header = None

    def seal(self) -> None:
        """Say that an epoch ends here.

        Raises:
            StreamTruncated: A block is incomplete.
        """
        if not self.is_between_blocks:
            raise StreamTruncated("the epoch ends inside a block", offset=self._offset)
        self._store.seal()

    def commit(self) -> None:
        """Say that the oldest epoch that was sealed and not yet committed had the right digest."""
        self._store.commit()

    def rollback(self) -> None:
        """Forget all epochs that were not committed; only with the store's undo."""
        self._store.rollback()
        self._pfns = np.empty(0, np.int64)
        self._held = bytearray()
        self._header = None
        self._codec = CODECS[self._codec_name]()

    def _collect(self, taken: memoryview, wanted: int) -> memoryview | None:
        """Return `wanted` bytes, uncopied where they came in one piece."""
        if not self._held and len(taken) == wanted:
            return taken
        self._held += taken
        if len(self._held) < wanted:
            return None
        whole, self._held = memoryview(self._held), bytearray()
        return whole

    def _decode(self, packed: memoryview, header: BlockHeader) -> memoryview:
        if header.codec != self._codec.number:
            raise StreamError(f"codec {header.codec} was not agreed on", offset=self._offset)
        plain = self._codec.unpack(packed, header.plain_bytes, self._offset)
        return self._put_out(Block.parse(plain, self._offset))

    def _put_out(self, block: Block) -> memoryview:
        lead = -_bytes_before_pages(block) % PFN_BYTES  # numpy is slow where pages lie askew
        room = np.empty(lead + block.output_bytes, np.uint8)
        columns = _Columns(block)
        at = lead
        for kind, count in block.ops:
            end = at + count * _BYTES[kind]
            place = room[at:end]
            if kind is Op.LITERAL:
                place[:] = columns.literal(count)
            elif kind is Op.PFNS:
                self._list(columns.pfns(count), place)
            else:
                self._contents(columns, count, place)
            at = end
        return room.data[lead:]

    def _list(self, differences: Words, place: Octets) -> None:
        if len(differences) > MAX_PFNS:
            message = f"a list of {len(differences)} PFNs, the limit is {MAX_PFNS}"
            raise StreamError(message, offset=self._offset)
        entries = np.cumsum(differences, dtype=np.uint64)
        place[:] = entries.view(np.uint8)
        self._pfns = self._store.eligible(pfns_with_data(entries))

    def _contents(self, columns: _Columns, count: int, place: Octets) -> None:
        if count > min(len(self._pfns), BATCH_PAGES):
            message = f"{count} pages at once, {len(self._pfns)} have a PFN"
            raise StreamError(message, offset=self._offset)
        pages = place.view(np.uint64).reshape(-1, PAGE_WORDS)
        decode(self._store, self._pfns[:count], columns.pages(count), pages, self._offset)
        self._pfns = self._pfns[count:]


class _Columns:
    """Hands out the columns of a block, in order; their numbers were checked."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._literals = self._lists = self._classes = self._bitmaps = self._words = 0

    def literal(self, count: int) -> Octets:
        begin, self._literals = self._literals, self._literals + count
        return self._block.literal[begin : self._literals]

    def pfns(self, count: int) -> Words:
        begin, self._lists = self._lists, self._lists + count
        return self._block.pfns[begin : self._lists]

    def pages(self, count: int) -> tuple[Octets, Octets, Words]:
        block = self._block
        classes = block.classes[self._classes : self._classes + count]
        coded = int(np.count_nonzero(classes))
        bitmaps = block.bitmaps[self._bitmaps : self._bitmaps + coded]
        bits = int(np.bitwise_count(bitmaps).sum())
        words = block.words[self._words : self._words + bits]
        self._classes += count
        self._bitmaps += coded
        self._words += bits
        return classes, bitmaps, words


def _bytes_before_pages(block: Block) -> int:
    """Return where the first pages of a block's output begin."""
    at = 0
    for kind, count in block.ops:
        if kind is Op.PAGES:
            break
        at += count * _BYTES[kind]
    return at
