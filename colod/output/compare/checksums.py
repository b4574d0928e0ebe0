"""Change bytes under an Internet checksum, and the checksum with them."""

from __future__ import annotations

import struct

from colod.output.frames import internet_checksum

_MASK = 0xFFFF


def replace(octets: bytearray, at: int, new: bytes, begin: int, checksum_at: int) -> None:
    """Write `new` into `octets` and adjust the checksum by the difference only.

    A checksum that was wrong stays wrong, so a frame damaged on its way does not become valid.

    Args:
        octets: What is changed.
        at: Where `new` goes.
        new: As many bytes as it replaces.
        begin: Where the checksummed part begins; 16-bit words are counted from there.
        checksum_at: Where the checksum is.

    Spec: RFC 1624, equation 3.
    """
    low = at - (at - begin) % 2
    high = at + len(new) + (at + len(new) - begin) % 2
    before = bytes(octets[low:high])
    octets[at : at + len(new)] = new
    after = bytes(octets[low:high])
    (old,) = struct.unpack_from(">H", octets, checksum_at)
    words = (old ^ _MASK, internet_checksum(before), internet_checksum(after) ^ _MASK)
    struct.pack_into(">H", octets, checksum_at, internet_checksum(struct.pack(">3H", *words)))
