"""The digest over the raw stream of an epoch, by which both sides know that it arrived as it was.

It guards against faults of memory, of the link and of our own code. It is no proof against somebody
who can write to the link: whoever can forge frames can forge any digest that has no secret. So the
fastest one that misses no fault is preferred; which, the sessions agree on in their handshake.

Source: XXH3, https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md; SHA-256, FIPS 180-4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import xxhash


class Digest(Protocol):
    """What is fed bytes and gives a digest."""

    def update(self, data: memoryview | bytes | bytearray, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """Return the digest of all bytes so far, at most 32 bytes."""


_KINDS: Final[Mapping[str, Callable[[], Digest]]] = {
    "xxh3-128": xxhash.xxh3_128,
    "sha256": hashlib.sha256,
}

DIGESTS: Final = tuple(_KINDS)
"""All names, the preferred one first."""


def make_digest(name: str = DIGESTS[0]) -> Digest:
    """Return a digest of no bytes yet; KeyError for a name that is not in DIGESTS."""
    return _KINDS[name]()


def sealed(digest: Digest) -> bytes:
    """Return the digest as a SEAL carries it: 32 bytes, filled up with zeros."""
    return digest.digest().ljust(32, b"\0")
