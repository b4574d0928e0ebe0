"""The codecs that a block may be packed with."""

from __future__ import annotations

from typing import IO, Final, Protocol, cast

import zstandard

from colod.errors import StreamError
from colod.stream.delta.terms import NONE, ZSTD_1

MAX_GROWTH_BYTES: Final = 1 << 10
"""By how much packing can make a block longer, at most."""
_WHOLE_BLOCK_BYTES: Final = 4 << 20
_WINDOW_LOG: Final = 21
_HASH_LOG: Final = 14


class Codec(Protocol):
    """Packs one block after another, of one stream. An instance serves one direction."""

    number: int
    """What stands for the codec in a block's header."""

    def pack(self, plain: bytes) -> bytes:
        """Return `plain` packed; at most MAX_GROWTH_BYTES more than it was."""

    def unpack(self, packed: memoryview, plain_bytes: int, offset: int) -> memoryview:
        """Return the `plain_bytes` bytes that were packed, and never allocate much more.

        Args:
            packed: What `pack` returned, or what someone hostile made.
            plain_bytes: The length that is wanted, which the caller has bounded.
            offset: Where the block begins, for the error.

        Raises:
            StreamError: It does not unpack to so many bytes.
        """


class NoCodec:
    """Leaves bytes as they are."""

    number = 0

    def pack(self, plain: bytes) -> bytes:
        """Return `plain`."""
        return plain

    def unpack(self, packed: memoryview, plain_bytes: int, offset: int) -> memoryview:
        """Return `packed` if it has the right length."""
        if len(packed) != plain_bytes:
            message = f"a block of {plain_bytes} bytes is packed in {len(packed)} by no codec"
            raise StreamError(message, offset=offset)
        return packed


class Zstd1:
    """zstd at its fastest ordinary level, one endless frame that is flushed after each block.

    So a block can refer to those before it, as far as the window reaches: one epoch's changes
    resemble the last one's. On a real guest that nearly halves what is sent.
    """

    number = 1

    def __init__(self) -> None:
        """Begin a frame in both directions."""
        parameters = zstandard.ZstdCompressionParameters.from_level(
            1, window_log=_WINDOW_LOG, hash_log=_HASH_LOG
        )
        self._pack = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._packed = _Source()
        unpacker = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
        # Unlike a decompression object, a reader gives out no more than it is asked for.
        source = cast("IO[bytes]", self._packed)
        self._unpack = unpacker.stream_reader(source, read_size=_WHOLE_BLOCK_BYTES)

    def pack(self, plain: bytes) -> bytes:
        """Return the next blocks of the frame."""
        return self._pack.compress(plain) + self._pack.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def unpack(self, packed: memoryview, plain_bytes: int, offset: int) -> memoryview:
        """Read on in the frame."""
        self._packed.rest = packed
        try:
            plain = self._unpack.read(plain_bytes)
        except zstandard.ZstdError as error:
            raise StreamError(f"a block cannot be unpacked: {error}", offset=offset) from error
        if len(plain) != plain_bytes or self._packed.rest:
            message = f"a block does not unpack to the {plain_bytes} bytes that it announced"
            raise StreamError(message, offset=offset)
        return memoryview(plain)


class _Source:
    """What zstandard's reader reads from: one packed block at a time."""

    def __init__(self) -> None:
        self.rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return what is left of the block, and nothing where the reader wants more than that."""
        taken, self.rest = self.rest[:size], self.rest[size:]
        return bytes(taken)


CODECS: Final[dict[str, type[NoCodec] | type[Zstd1]]] = {ZSTD_1: Zstd1, NONE: NoCodec}
"""By the name under which they are negotiated."""
