"""Page deltas: blocks that anybody may have made, and streams of any kind into blocks and back."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable

import zstandard

from colod.errors import StreamError
from colod.session.ending import Ending
from colod.session.unfolding import Unfolding
from colod.stream import writer
from colod.stream.delta.block import COUNTS, HEADER, MAX_OUTPUT_BYTES, MAX_PLAIN_BYTES, VERSION
from colod.stream.delta.decoder import Decoder
from colod.stream.delta.encoder import Encoder
from colod.stream.delta.store import BATCH_PAGES, PageStore, memory_pages
from colod.stream.delta.terms import NONE, ZSTD_1
from colod.stream.frames import MAX_DATA_BYTES
from colod.stream.libxc import DomainType
from colod.stream.record import ByteOrder
from tests.fuzz.target import MIB, Reader, Target, demand, gist, pieces, same
from tests.fuzz.targets.loop import finish
from tests.fuzz.targets.stream import compact

_PFN_LIMIT = 1 << 10
_CODECS = (NONE, ZSTD_1)
_WIDTHS = (4, 8, 1, 64, 8, 1)
_PAGE = bytes(range(256)) * 16


def _store() -> PageStore:
    return PageStore(memory_pages(BATCH_PAGES), pfn_limit=_PFN_LIMIT)


def _block(plain: bytes, codec: int, packer: zstandard.ZstdCompressionObj) -> bytes:
    packed = plain
    if codec:
        packed = packer.compress(plain) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return HEADER.pack(VERSION, codec, 0, len(plain), len(packed)) + packed


def _plain(reader: Reader) -> bytes:
    """Return content whose columns fit together, where the input does not say otherwise."""
    how = reader.byte()
    ops, numbers = [], [0] * 6
    bitmaps = bytearray()
    for _ in range(1 + reader.byte() % 6):
        kind, count = reader.byte() % 3, reader.byte() % 8
        ops.append(kind << 30 | count)
        numbers[(5, 1, 2)[kind]] += count
    numbers[0] = len(ops)
    classes = bytes(octet % (5 if how & 1 else 4) for octet in reader.take(numbers[2]))
    coded = len(classes) - classes.count(0)
    bits = 0
    for _ in range(coded):
        bitmap = reader.take(2).ljust(64, b"\0")
        bits += bitmap[0].bit_count() + bitmap[1].bit_count()
        bitmaps += bitmap
    numbers[3], numbers[4] = coded, bits
    if how & 2:  # wrong by a little
        numbers[reader.byte() % 6] += 1
    sizes = [number * width for number, width in zip(numbers, _WIDTHS, strict=True)]
    pfns = b"".join(struct.pack("<Q", reader.number(2)) for _ in range(numbers[1]))
    columns = (struct.pack(f"<{len(ops)}I", *ops), pfns, classes, bytes(bitmaps))
    head = b"".join(column.ljust(size, b"\1") for column, size in zip(columns, sizes, strict=False))
    return COUNTS.pack(*numbers) + head + reader.take(sizes[4]) + reader.take(sizes[5])


def _blocks(reader: Reader, how: int, codec: int) -> bytes:
    """Return what the decoder is given: bytes as they are, content as it is, or whole blocks."""
    if how % 3 == 0:
        return reader.rest()
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    made = bytearray()
    while not reader.is_empty and len(made) < MAX_PLAIN_BYTES:
        plain = _plain(reader) if how % 3 == 1 else reader.take(1 + reader.number(2))
        made += _block(plain[:MAX_PLAIN_BYTES], codec, packer)
    return bytes(made)


def _decode(octets: bytes, step: int, codec: str) -> tuple[bytes, str]:
    decoder = Decoder(_store(), codec=codec)
    got = bytearray()
    try:
        for piece in pieces(octets, step):
            for part in decoder.feed(piece):
                demand(len(part) <= MAX_OUTPUT_BYTES, f"a block of {len(part)} bytes")
                got += part[:4096]
        decoder.seal()
    except StreamError as error:
        return bytes(got), gist(error)
    return bytes(got), ""


async def _unfold(octets: bytes, codec: str) -> str:
    unfolding = Unfolding(Decoder(_store(), codec=codec))
    try:
        async for part in unfolding.parts(octets):
            demand(0 < len(part) <= MAX_DATA_BYTES, f"a part of {len(part)} bytes")
        unfolding.seal()
    except Ending as error:
        return gist(error).partition(": ")[2]
    finally:
        unfolding._worker.shutdown()
    return ""


def _run_decoder(octets: bytes) -> Hashable:
    reader = Reader(octets)
    how, step = reader.byte(), reader.byte()
    codec = how >> 2 & 1
    blocks = _blocks(reader, how & 3, codec)
    whole = _decode(blocks, 0, _CODECS[codec])
    if step:
        same("two splits", _decode(blocks, step * 8, _CODECS[codec]), whole)
    elif not how & 0xF0:
        same("unfolded", finish(_unfold(blocks, _CODECS[codec])), whole[1].partition(": ")[2])
    return how & 7, bool(whole[0]), whole[1]


def _run_encoder(octets: bytes) -> Hashable:
    """Whatever xl writes reaches the other side as it was: what the walk does not know goes by."""
    reader = Reader(octets)
    codec, step = _CODECS[reader.byte() & 1], reader.byte()
    stream = reader.rest()
    encoder, decoder = Encoder(_store(), codec=codec), Decoder(_store(), codec=codec)
    got = bytearray()
    for number, piece in enumerate(pieces(stream, step * 16)):
        blocks = encoder.feed(piece)
        if number % 5 == 4:
            blocks += encoder.flush()
        got += b"".join(b"".join(decoder.feed(block)) for block in blocks)
    got += b"".join(b"".join(decoder.feed(block)) for block in encoder.seal())
    decoder.seal()
    same("a stream that was carried", bytes(got), stream)
    counts = encoder.counts
    return codec, bool(counts.same), bool(counts.delta), bool(counts.raw)


def _streams() -> Iterable[bytes]:
    head = compact(ByteOrder.LITTLE, 3, DomainType.X86_PV, epochs=0)
    changed = bytearray(_PAGE)
    changed[100:108] = b"changed!"
    first = writer.page_data([1, 2], [_PAGE, bytes(4096)])
    second = writer.page_data([1, 2], [bytes(changed), bytes(4096)])
    yield head + first + writer.checkpoint() + writer.checkpoint_end() + second
    yield head + writer.page_data([3, 3, _PFN_LIMIT + 1], [_PAGE] * 3)
    yield compact(ByteOrder.BIG, 3, DomainType.X86_PV)


def _decoder_seeds() -> Iterable[bytes]:
    for stream in _streams():
        for number, codec in enumerate(_CODECS):
            encoder = Encoder(_store(), codec=codec)
            blocks = b"".join(encoder.feed(stream) + encoder.seal())
            yield bytes((number << 2, 0)) + blocks
            yield bytes((number << 2, 5)) + blocks
    yield b"\x01\x03" + bytes(range(200))
    yield b"\x05\x00" + b"\0\x05\0\4\1\4\2\4\2\2\1\1" + bytes(range(1, 200))


def _encoder_seeds() -> Iterable[bytes]:
    for stream in _streams():
        for codec in range(2):
            yield bytes((codec, 0)) + stream
            yield bytes((codec, 9)) + stream


def _held(size: int) -> int:
    """Two stores, one block's output, and what its pages take while they are put together."""
    return 2 * MAX_OUTPUT_BYTES + 8 * MIB + 64 * size


DECODER = Target(run=_run_decoder, seeds=_decoder_seeds, held_bytes=_held, max_bytes=1 << 14)
ENCODER = Target(run=_run_encoder, seeds=_encoder_seeds, held_bytes=_held, max_bytes=1 << 14)
