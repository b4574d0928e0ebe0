"""The codecs that a block may be packed with."""

from __future__ import annotations

from typing import Final, Protocol

import zstandard

from colod.errors import StreamError
from colod.stream.delta.terms import NONE, ZSTD_1


class Codec(Protocol):
    """Packs whole blocks, each on its own. One instance serves one thread at a time."""

    number: int
    """What stands for the codec in a block's header."""

    def pack(self, plain: bytes) -> bytes:
        """Return `plain` packed; it may be longer than before."""

    def unpack(self, packed: memoryview, plain_bytes: int, offset: int) -> memoryview:
        """Return the `plain_bytes` bytes that were packed, and never allocate more than those.

        Args:
            packed: What `pack` returned, or what someone hostile made.
            plain_bytes: The length that is wanted, which the caller has bounded.
            offset: Where the block begins, for the error.

        Raises:
            StreamError: It does not unpack to exactly that many bytes.
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
    """zstd at its fastest ordinary level."""

    number = 1

    def __init__(self) -> None:
        """Set up both directions."""
        self._pack = zstandard.ZstdCompressor(level=1)
        self._unpack = zstandard.ZstdDecompressor()

    def pack(self, plain: bytes) -> bytes:
        """Return one zstd frame that carries its content's size."""
        return self._pack.compress(plain)

    def unpack(self, packed: memoryview, plain_bytes: int, offset: int) -> memoryview:
        """Unpack one frame whose own header names the size that is wanted."""
        try:
            # zstandard allocates what the frame's header claims, so the claim is looked at first.
            if zstandard.get_frame_parameters(packed).content_size != plain_bytes:
                message = f"a zstd frame is not of the {plain_bytes} bytes that its block announced"
                raise StreamError(message, offset=offset)
            return memoryview(self._unpack.decompress(packed, allow_extra_data=False))
        except zstandard.ZstdError as error:
            raise StreamError(f"a block cannot be unpacked: {error}", offset=offset) from error


CODECS: Final[dict[str, type[NoCodec] | type[Zstd1]]] = {ZSTD_1: Zstd1, NONE: NoCodec}
"""By the name under which they are negotiated."""
