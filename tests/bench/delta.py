"""Deltas of the checkpoints of a real guest, where the capture is at hand, else of a made-up one.

For each epoch in turn: encoded, packed by zstd alone, decoded, unpacked by zstd alone; who is first
changes from epoch to epoch, so that neither always finds the epoch in the processor's cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import zstandard

from colod.stream import writer
from colod.stream.delta.decoder import Decoder
from colod.stream.delta.encoder import Encoder
from colod.stream.delta.store import PageStore, memory_pages
from colod.stream.delta.terms import NONE, ZSTD_1
from tests.bench.capture import CAPTURE, epochs
from tests.bench.table import Figure, Row, Section
from tests.unit.stream_samples import Sample

_CHUNK_BYTES = 1 << 20  # what a session reads at once
_PFN_LIMIT = 1 << 16
_WHOLE_GUEST = 1 << 15
_BOUNDED = 1 << 10
_MIB = 1 << 20
T = TypeVar("T")


def measure(rounds: int) -> Section:
    """Run all rounds."""
    has_capture = CAPTURE.exists()
    stream = epochs() if has_capture else made_up()
    first = stream[:1]
    run(stream, _WHOLE_GUEST, is_checked=True)
    whole = [run(stream, _WHOLE_GUEST) for _ in range(rounds)]
    bounded = [run(stream, _BOUNDED) for _ in range(rounds)]
    plain = [run(stream, _WHOLE_GUEST, codec=NONE) for _ in range(rounds)]
    copies = [run(first, _WHOLE_GUEST, skips_first=False) for _ in range(rounds)]
    origin = (
        "Checkpoints of a real PV guest, recorded under Xen 4.17"
        if has_capture
        else "MADE-UP pages, as the recorded guest is not at hand"
    )
    about = (
        f"{origin}: {len(stream) - 1} after the first copy, {sum(map(len, stream[1:])) / 1e6:.0f} "
        "MB. One thread; MB are of the stream, before encoding. In a round before "
        "the measured ones, all that was decoded is compared with the original."
    )
    rows = [
        *_rows("later checkpoints", whole, bars=has_capture),
        _long_window(stream, whole),
        *_rows(f"the same, store of {_BOUNDED * 4096 // _MIB} MiB", bounded),
        *_rows("the same, codec none", plain)[:2],
        *_rows("first copy", copies),
        Row("page store, the whole guest's", Figure([whole[0].store_bytes / _MIB], "MiB")),
        Row("page store, bounded", Figure([bounded[0].store_bytes / _MIB], "MiB")),
    ]
    return Section("Page deltas", about, rows)


@dataclass(slots=True)
class Round:
    """Sums over all epochs of one round; times in seconds."""

    bytes: int = 0
    wire_bytes: int = 0
    rival_bytes: int = 0
    store_bytes: int = 0
    times: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0

    def timed(self, what: str, work: Callable[[], T]) -> T:
        """Do `work`, and add its time to `what`."""
        cpu, begin = time.thread_time(), time.perf_counter()
        done = work()
        self.times[what] = self.times.get(what, 0.0) + time.perf_counter() - begin
        if what == "encode":
            self.cpu_s += time.thread_time() - cpu
        return done

    def speed(self, what: str) -> float:
        """Return MB of the stream per second."""
        return self.bytes / self.times[what] / 1e6


class Contest:
    """Encoder and decoder, and zstd, on the same epochs."""

    def __init__(self, max_pages: int, codec: str, *, is_checked: bool) -> None:
        """Begin a stream."""
        self._is_checked = is_checked
        stores = [PageStore(memory_pages(max_pages), pfn_limit=_PFN_LIMIT) for _ in range(2)]
        self.store = stores[0]
        self._encoder = Encoder(stores[0], codec=codec)
        self._decoder = Decoder(stores[1], codec=codec)
        self._pack = zstandard.ZstdCompressor(level=1)
        self._unpack = zstandard.ZstdDecompressor()

    def carry(self, epoch: bytes, result: Round, *, is_rival_first: bool) -> None:
        """Send one epoch both ways."""
        turns = (self._carry_by_zstd, self._carry_by_deltas)
        for turn in turns if is_rival_first else reversed(turns):
            turn(epoch, result)
        result.bytes += len(epoch)

    def _carry_by_deltas(self, epoch: bytes, result: Round) -> None:
        blocks = result.timed("encode", lambda: self._encode(memoryview(epoch)))
        result.wire_bytes += sum(map(len, blocks))
        parts = result.timed("decode", lambda: [p for b in blocks for p in self._decoder.feed(b)])
        if self._is_checked and b"".join(parts) != epoch:
            raise ValueError("what was decoded is not what was encoded")

    def _carry_by_zstd(self, epoch: bytes, result: Round) -> None:
        packed = result.timed("zstd", lambda: self._pack.compress(epoch))
        result.rival_bytes += len(packed)
        result.timed("unzstd", lambda: self._unpack.decompress(packed))

    def _encode(self, epoch: memoryview) -> list[bytes]:
        blocks = []
        for at in range(0, len(epoch), _CHUNK_BYTES):
            blocks += self._encoder.feed(epoch[at : at + _CHUNK_BYTES])
        return blocks + self._encoder.seal()


def run(
    stream: Sequence[bytes],
    max_pages: int,
    *,
    codec: str = ZSTD_1,
    skips_first: bool = True,
    is_checked: bool = False,
) -> Round:
    """Carry a stream, and sum up its epochs, with or without the first copy."""
    contest = Contest(max_pages, codec, is_checked=is_checked)
    result = Round()
    for number, epoch in enumerate(stream):
        if number == 1 and skips_first:
            result = Round()
        contest.carry(epoch, result, is_rival_first=number % 2 == 1)
    held = contest.store.pages_held
    result.store_bytes = held * 4096 + contest.store.pfn_limit * 4 + contest.store.max_pages * 8
    return result


def _rows(what: str, rounds: Sequence[Round], *, bars: bool = False) -> list[Row]:
    def figure(value: Callable[[Round], float], unit: str) -> Figure:
        return Figure([value(each) for each in rounds], unit)

    ratio = Row(
        f"{what}: compression",
        figure(lambda each: each.bytes / each.wire_bytes, ": 1"),
        figure(lambda each: each.bytes / each.rival_bytes, ": 1"),
        "zstd-1",
        least=60 if bars else None,
        by_ratio=False,
    )
    encode = Row(
        f"{what}: encoding",
        figure(lambda each: each.speed("encode"), "MB/s"),
        figure(lambda each: each.speed("zstd"), "MB/s"),
        "zstd-1",
        least=2 if bars else None,
    )
    decode = Row(
        f"{what}: decoding",
        figure(lambda each: each.speed("decode"), "MB/s"),
        figure(lambda each: each.speed("unzstd"), "MB/s"),
        "zstd-1",
    )
    cpu = Row(f"{what}: sender's CPU", figure(lambda each: each.cpu_s / each.bytes * 1e9, "s/GB"))
    return [ratio, encode, decode, cpu]


def _long_window(stream: Sequence[bytes], rounds: Sequence[Round]) -> Row:
    """Return the comparison with zstd over one endless stream, whose window holds the guest."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wire = [_flushed(packer, epoch) for epoch in stream]
    ratio = sum(map(len, stream[1:])) / sum(wire[1:])
    return Row(
        "later checkpoints: compression",
        Figure([each.bytes / each.wire_bytes for each in rounds], ": 1"),
        Figure([ratio] * len(rounds), ": 1"),
        "zstd-1 --long=27, one stream",
    )


def _flushed(packer: zstandard.ZstdCompressionObj, epoch: bytes) -> int:
    packed = packer.compress(epoch) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return len(packed)


def made_up(later: int = 20) -> list[bytes]:
    """Return epochs of a guest of 4096 pages, a tenth of which is written to between two."""
    chance = np.random.default_rng(1)
    memory = chance.integers(0, 1 << 20, (4096, 512)).astype(np.uint64)
    sample = Sample().headers()
    stream = []
    dirty = np.arange(len(memory))
    for _ in range(later + 1):
        for batch in np.array_split(dirty, -(-len(dirty) // 1024)):
            pages = [memory[pfn].tobytes() for pfn in batch]
            sample.libxc(writer.page_data(batch.tolist(), pages))
        stream.append(sample.state().seal().data)
        sample = Sample()
        dirty = np.sort(chance.choice(len(memory), len(memory) // 10, replace=False))
        written = dirty[: len(dirty) // 2]
        memory[written, chance.integers(0, 512, len(written))] += np.uint64(1)
    return stream
