"""Encoders and decoders of deltas for tests, and streams whose pages change."""

from collections.abc import Iterable, Sequence

from colod.stream import writer
from colod.stream.delta.decoder import Decoder
from colod.stream.delta.encoder import Encoder
from colod.stream.delta.store import BATCH_PAGES, PageStore, memory_pages
from colod.stream.delta.terms import ZSTD_1
from tests.unit.stream_samples import Sample

PFN_LIMIT = 1 << 12


def make_store(
    max_pages: int = BATCH_PAGES, *, pfn_limit: int = PFN_LIMIT, keeps_undo: bool = False
) -> PageStore:
    """Return an empty store."""
    return PageStore(memory_pages(max_pages), pfn_limit=pfn_limit, keeps_undo=keeps_undo)


class Ends:
    """Both ends of a connection that carries deltas."""

    def __init__(
        self,
        max_pages: int = BATCH_PAGES,
        *,
        pfn_limit: int = PFN_LIMIT,
        keeps_undo: bool = False,
        codec: str = ZSTD_1,
    ) -> None:
        """Stand at the beginning of a stream."""
        stores = [make_store(max_pages, pfn_limit=pfn_limit, keeps_undo=keeps_undo) for _ in "ab"]
        self.sent, self.received = stores
        self.encoder = Encoder(self.sent, codec=codec)
        self.decoder = Decoder(self.received, codec=codec)
        self.wire_bytes = 0

    def encode(self, *chunks: bytes) -> list[bytes]:
        """Return the blocks of one epoch."""
        blocks = [block for chunk in chunks for block in self.encoder.feed(chunk)]
        blocks += self.encoder.seal()
        self.wire_bytes = sum(map(len, blocks))
        return blocks

    def decode(self, pieces: Iterable[bytes]) -> bytes:
        """Return the stream of one epoch."""
        out = b"".join(part for piece in pieces for part in self.decoder.feed(piece))
        self.decoder.seal()
        return out

    def carry(self, *chunks: bytes) -> bytes:
        """Encode and decode one epoch."""
        return self.decode(self.encode(*chunks))


def headers() -> bytes:
    """Return all that precedes the first pages."""
    return Sample().headers().data


def epoch(pages: dict[int, bytes]) -> bytes:
    """Return an epoch that brings `pages` by their PFNs."""
    sample = Sample()
    if pages:
        sample.libxc(page_record(list(pages), list(pages.values())))
    return sample.state().seal().data


def page_record(pfns: Sequence[int], pages: Sequence[bytes]) -> bytes:
    """Return a PAGE_DATA record."""
    return writer.page_data(pfns, pages)


def noise(seed: int, count: int = 1) -> list[bytes]:
    """Return pages that cannot be compressed."""
    import random

    source = random.Random(seed)
    return [source.randbytes(4096) for _ in range(count)]
