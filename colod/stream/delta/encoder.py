"""The sender's half: libxl's stream in, blocks out."""

from __future__ import annotations

from typing import Final

import numpy as np

from colod.stream.delta.block import BlockBuilder
from colod.stream.delta.codec import CODECS
from colod.stream.delta.pages import PageCounts, PageEncoder
from colod.stream.delta.store import BATCH_PAGES, PAGE_WORDS, Ints, PageStore
from colod.stream.delta.terms import ZSTD_1
from colod.stream.delta.walk import PAGE_BYTES, Part, RecordWalk, pfns_with_data

_LITERAL_BYTES: Final = 256 << 10


class Encoder:
    """Turns the bytes of a stream into blocks for a `Decoder`.

    `feed` and `flush` are heavy: run them in a worker thread, one call at a time. The bulk of
    them lets other threads run.
    """

    def __init__(self, store: PageStore, *, codec: str = ZSTD_1) -> None:
        """Stand at the stream's beginning, before xl's header.

        Args:
            store: Empty, of the size that the decoder's has.
            codec: A name in `CODECS` that the decoder was told too.
        """
        self._store = store
        self._pages = PageEncoder(store)
        self._codec = codec
        self._batch = np.empty((BATCH_PAGES, PAGE_WORDS), np.uint64)
        self._room = self._batch.data.cast("B")
        self._begin(RecordWalk())

    @property
    def counts(self) -> PageCounts:
        """How many pages were described in which way since the beginning."""
        return self._pages.counts

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[bytes]:
        """Return the blocks that the next bytes of the stream complete.

        `chunk` is not kept. Each block is below 1 MiB.
        """
        for part, piece in self._walk.feed(memoryview(chunk).cast("B")):
            if part is Part.LITERAL:
                self._literal(piece)
            elif part is Part.PFNS:
                self._list(piece)
            else:
                self._contents(piece)
        return self._taken()

    def flush(self) -> list[bytes]:
        """Return the blocks for everything fed so far; at an epoch's seal, and whenever needed.

        In the middle of a record it costs that record's deltas.
        """
        held = self._walk.interrupt(is_page_broken=self._filled % PAGE_BYTES > 0)
        self._encode_batch()
        self._literal(memoryview(held))
        self._finish_block()
        return self._taken()

    def seal(self) -> list[bytes]:
        """Return the blocks for the rest of an epoch, which ends here, between two records."""
        blocks = self.flush()
        self._store.seal()
        return blocks

    def commit(self) -> None:
        """Say that the receiver has the oldest epoch that was sealed and not yet committed."""
        self._store.commit()

    def rollback(self) -> None:
        """Forget all that was fed since the newest committed seal; only with the store's undo.

        The stream goes on behind that seal, with another version of the same epoch.
        """
        self._store.rollback()
        self._begin(RecordWalk(is_in_image=True))

    def _begin(self, walk: RecordWalk) -> None:
        self._walk = walk
        self._block = BlockBuilder(CODECS[self._codec]())
        self._ready: list[bytes] = []
        self._filled = 0
        self._pfns: Ints = np.empty(0, np.int64)

    def _taken(self) -> list[bytes]:
        blocks, self._ready = self._ready, []
        return blocks

    def _literal(self, piece: memoryview) -> None:
        for begin in range(0, len(piece), _LITERAL_BYTES):
            part = piece[begin : begin + _LITERAL_BYTES]
            self._make_room(len(part), len(part))
            self._block.add_literal(part)

    def _list(self, raw: memoryview) -> None:
        entries = np.frombuffer(raw, np.uint64)
        self._pfns = self._store.eligible(pfns_with_data(entries))
        self._make_room(len(raw), len(raw))
        self._block.add_pfns(entries)

    def _contents(self, piece: memoryview) -> None:
        while piece:
            end = min(len(self._pfns), BATCH_PAGES) * PAGE_BYTES
            part = piece[: end - self._filled]
            self._room[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            piece = piece[len(part) :]
            if self._filled == end:
                self._encode_batch()

    def _encode_batch(self) -> None:
        """Encode the whole pages of the batch, and put out a broken one as it is."""
        count, rest = divmod(self._filled, PAGE_BYTES)
        if count:
            columns = self._pages.encode(self._pfns[:count], self._batch[:count])
            self._make_room(sum(column.nbytes for column in columns), count * PAGE_BYTES)
            self._block.add_pages(*columns)
            self._pfns = self._pfns[count:]
        if rest:
            self._literal(self._room[self._filled - rest : self._filled])
        self._filled = 0

    def _make_room(self, plain_bytes: int, output_bytes: int) -> None:
        if not self._block.has_room(plain_bytes, output_bytes):
            self._finish_block()

    def _finish_block(self) -> None:
        if not self._block.is_empty:
            self._ready.append(self._block.build())
