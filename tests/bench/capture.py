"""The recorded replication of a real guest, where it is at hand."""

from collections.abc import Iterator
from pathlib import Path

import zstandard

from colod.stream.events import EpochSealed
from colod.stream.parser import StreamParser

CAPTURE = Path(__file__).parents[2].parent / "shared/data/remus-pv-xen4.17.stream.zst"


def epochs(path: Path = CAPTURE) -> list[bytes]:
    """Return the whole epochs of a packed stream, the first copy first."""
    return list(_epochs(path))


def _epochs(path: Path) -> Iterator[bytes]:
    parser = StreamParser()
    epoch = bytearray()
    with path.open("rb") as packed:
        unpacked = zstandard.ZstdDecompressor().stream_reader(packed)
        while chunk := unpacked.read(1 << 20):
            base = parser.offset
            taken = 0
            for event in parser.feed(chunk):
                if isinstance(event, EpochSealed):
                    epoch += chunk[taken : event.offset - base]
                    taken = event.offset - base
                    yield bytes(epoch)
                    epoch.clear()
            epoch += chunk[taken:]
