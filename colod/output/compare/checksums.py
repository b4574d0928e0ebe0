"""Change bytes under an Internet checksum, and the checksum with them."""

from __future__ import annotations

import struct

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
    (total,) = struct.unpack_from(">H", octets, checksum_at)
    total = (~total & _MASK) + (~_sum(before) & _MASK) + _sum(after)
    struct.pack_into(">H", octets, checksum_at, ~_fold(total) & _MASK)


def _sum(octets: bytes) -> int:
    padded = octets + b"\0" * (len(octets) % 2)
    return _fold(sum(struct.unpack(f">{len(padded) // 2}H", padded)))


def _fold(total: int) -> int:
    while total >> 16:
        total = (total & _MASK) + (total >> 16)
    return total
