"""Numbers modulo 2**32, as TCP counts bytes, turned into positions that never wrap."""

from __future__ import annotations

MODULUS = 1 << 32
_HALF = 1 << 31
_MASK = MODULUS - 1


def unwrap(number: int, near: int) -> int:
    """Return the position next to `near` that TCP would write as `number`.

    Args:
        number: 0 to 2**32 - 1.
        near: A position less than 2**31 away from the one meant.

    Spec: RFC 9293 section 3.4.
    """
    return near + ((number - near + _HALF) & _MASK) - _HALF
