"""The blocks that an encoder sends: bounded, and what is alike in columns of its own.

A block is a header of 12 bytes and what the codec made of its plain content:

    version u8 | codec u8 | 0 u16 | plain bytes u32 | packed bytes u32

The plain content is six u32 with the number of entries of each column, and the columns:

    ops        u32   kind in the two highest bits, count in the others: what to put out, in order
    pfns       u64   each less the one before it: the lists of PFNs, one per PFNS op
    classes    u8    one per page of the PAGES ops
    bitmaps    64 B  one per page that is not SAME: which of its words follow
    words      u64   one per bit that is set
    literal    u8    what LITERAL ops put out

All integers are little-endian, as everything is in x86's streams.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from colod.errors import RecordTooLong, StreamError
from colod.stream.delta.codec import MAX_GROWTH_BYTES, Codec
from colod.stream.delta.store import PAGE_WORDS, Words

VERSION: Final = 1
HEADER: Final = struct.Struct("<BBHII")
COUNTS: Final = struct.Struct("<6I")
MAX_PLAIN_BYTES: Final = (1 << 20) - 4096
"""Longest plain content; the block with its header is below 1 MiB also where nothing packs."""
MAX_OUTPUT_BYTES: Final = 16 << 20
"""Most bytes of the stream that one block stands for."""
BITMAP_BYTES: Final = PAGE_WORDS // 8
_PAGE_BYTES: Final = PAGE_WORDS * 8
_OP_BYTES: Final = 4
_COUNT_MASK: Final = (1 << 30) - 1
_KIND_SHIFT: Final = 30

Octets = NDArray[np.uint8]


class Op(IntEnum):
    """What is to be put out next."""

    LITERAL = 0
    PFNS = 1
    PAGES = 2


class PageClass(IntEnum):
    """How a page is described."""

    SAME = 0
    """As it is held."""
    DELTA = 1
    """As it is held, but for some words."""
    RAW = 2
    """All words that are not zero; from now on it is held."""
    PASS = 3
    """All words that are not zero; it is not to be held."""


class BlockBuilder:
    """Collects the columns of one block after another."""

    def __init__(self, codec: Codec) -> None:
        """Begin an empty block."""
        self._codec = codec
        self._clear()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._ops

    def has_room(self, plain_bytes: int, output_bytes: int) -> bool:
        """Tell whether so much more still fits."""
        return (
            self._plain_bytes + plain_bytes + _OP_BYTES <= MAX_PLAIN_BYTES
            and self._output_bytes + output_bytes <= MAX_OUTPUT_BYTES
        )

    def add_literal(self, octets: memoryview) -> None:
        """Add bytes that go through as they are."""
        size = len(octets)
        self._count(size, size)
        self._literals.append(bytes(octets))
        if self._ops and self._ops[-1][0] is Op.LITERAL:
            self._ops[-1] = (Op.LITERAL, self._ops[-1][1] + size)
        else:
            self._op(Op.LITERAL, size)

    def add_pfns(self, entries: Words) -> None:
        """Add a list of PFNs."""
        self._count(entries.nbytes, entries.nbytes)
        differences = entries.copy()
        differences[1:] -= entries[:-1]
        self._pfns.append(differences)
        self._op(Op.PFNS, len(entries))

    def add_pages(self, classes: Octets, bitmaps: Octets, words: Words) -> None:
        """Add a batch of pages of the newest list."""
        plain = classes.nbytes + bitmaps.nbytes + words.nbytes
        self._count(plain, len(classes) * _PAGE_BYTES)
        self._classes.append(classes)
        self._bitmaps.append(bitmaps)
        self._words.append(words)
        self._op(Op.PAGES, len(classes))

    def build(self) -> bytes:
        """Return the block, and begin another one."""
        ops = struct.pack(
            f"<{len(self._ops)}I", *((kind << _KIND_SHIFT) | count for kind, count in self._ops)
        )
        columns = (self._pfns, self._classes, self._bitmaps, self._words)
        numbers = [sum(column.size for column in each) for each in columns]
        numbers[2] //= BITMAP_BYTES
        literal = b"".join(self._literals)
        counts = COUNTS.pack(len(self._ops), *numbers, len(literal))
        middle = b"".join(column.data for each in columns for column in each)
        plain = b"".join((counts, ops, middle, literal))
        self._clear()
        return _pack(self._codec, plain)

    def _clear(self) -> None:
        self._ops: list[tuple[Op, int]] = []
        self._pfns: list[Words] = []
        self._classes: list[Octets] = []
        self._bitmaps: list[Octets] = []
        self._words: list[Words] = []
        self._literals: list[bytes] = []
        self._plain_bytes = COUNTS.size
        self._output_bytes = 0

    def _count(self, plain_bytes: int, output_bytes: int) -> None:
        self._plain_bytes += plain_bytes
        self._output_bytes += output_bytes

    def _op(self, kind: Op, count: int) -> None:
        self._ops.append((kind, count))
        self._plain_bytes += _OP_BYTES


def _pack(codec: Codec, plain: bytes) -> bytes:
    packed = codec.pack(plain)
    assert len(packed) <= len(plain) + MAX_GROWTH_BYTES, (len(packed), len(plain))
    return HEADER.pack(VERSION, codec.number, 0, len(plain), len(packed)) + packed


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """A block's header, checked against all bounds."""

    codec: int
    plain_bytes: int
    packed_bytes: int

    @classmethod
    def parse(cls, raw: bytes | bytearray, offset: int) -> BlockHeader:
        """Read a header.

        Raises:
            StreamError: It is no header of this version, or beyond a bound.
        """
        version, codec, reserved, plain, packed = HEADER.unpack(raw)
        if version != VERSION or reserved:
            raise StreamError(f"not a block of version {VERSION}: {raw.hex()}", offset=offset)
        if not COUNTS.size <= plain <= MAX_PLAIN_BYTES:
            message = f"a block of {plain} bytes, the limit is {MAX_PLAIN_BYTES}"
            raise RecordTooLong(message, offset=offset)
        if not 0 < packed <= plain + MAX_GROWTH_BYTES:
            message = f"a block of {plain} bytes is packed in {packed}"
            raise StreamError(message, offset=offset)
        return cls(codec, plain, packed)


@dataclass(frozen=True, slots=True)
class Block:
    """The columns of a block; they agree with each other, whoever made them."""

    ops: tuple[tuple[Op, int], ...]
    pfns: Words
    classes: Octets
    bitmaps: Octets
    words: Words
    literal: Octets
    output_bytes: int

    @classmethod
    def parse(cls, plain: memoryview, offset: int) -> Block:
        """Read a block's plain content.

        Raises:
            StreamError: The columns do not fit, into the block or to each other.
        """
        counts = COUNTS.unpack_from(plain)
        widths = (_OP_BYTES, 8, 1, BITMAP_BYTES, 8, 1)
        columns = []
        at = COUNTS.size
        for count, width in zip(counts, widths, strict=True):
            columns.append(plain[at : at + count * width])
            at += count * width
        if at != len(plain):
            message = f"a block of {len(plain)} bytes has columns of {at}"
            raise StreamError(message, offset=offset)
        ops, pfns, classes, bitmaps, words, literal = columns
        return cls(
            _decode_ops(np.frombuffer(ops, np.uint32), offset),
            np.frombuffer(pfns, np.uint64),
            np.frombuffer(classes, np.uint8),
            np.frombuffer(bitmaps, np.uint8).reshape(-1, BITMAP_BYTES),
            np.frombuffer(words, np.uint64),
            np.frombuffer(literal, np.uint8),
            len(literal) + len(pfns) + _PAGE_BYTES * len(classes),
        )._checked(offset)

    def _checked(self, offset: int) -> Block:
        described = dict.fromkeys(Op, 0)
        for kind, count in self.ops:
            described[kind] += count
        found = {
            Op.LITERAL: len(self.literal),
            Op.PFNS: len(self.pfns),
            Op.PAGES: len(self.classes),
        }
        if described != found:
            raise StreamError(f"a block has {found}, its ops {described}", offset=offset)
        if self.output_bytes > MAX_OUTPUT_BYTES:
            message = f"a block for {self.output_bytes} bytes, the limit is {MAX_OUTPUT_BYTES}"
            raise RecordTooLong(message, offset=offset)
        self._check_pages(offset)
        return self

    def _check_pages(self, offset: int) -> None:
        if np.any(self.classes > max(PageClass)):
            raise StreamError("a block has pages of an unknown class", offset=offset)
        coded = int(np.count_nonzero(self.classes))
        if coded != len(self.bitmaps):
            message = f"a block has {len(self.bitmaps)} bitmaps for {coded} pages"
            raise StreamError(message, offset=offset)
        bits = int(np.bitwise_count(self.bitmaps).sum())
        if bits != len(self.words):
            message = f"a block has {len(self.words)} words, its bitmaps {bits}"
            raise StreamError(message, offset=offset)


def _decode_ops(raw: NDArray[np.uint32], offset: int) -> tuple[tuple[Op, int], ...]:
    ops = raw.tolist()
    if any(op >> _KIND_SHIFT > max(Op) for op in ops):
        raise StreamError("a block has an unknown op", offset=offset)
    return tuple((Op(op >> _KIND_SHIFT), op & _COUNT_MASK) for op in ops)
