"""Changes of an input, by a source of chance that the caller seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

_ODD: Final = (0, 1, 2, 3, 7, 8, 0x0F, 0x10, 0x7F, 0x80, 0xFE, 0xFF)
_LENGTHS: Final = (0, 1, 255, 256, 4096, 65535, 1 << 20, 1 << 27, (1 << 31) - 1, (1 << 32) - 1)
_TEXTS: Final = (
    *(b'"', b"{", b"[", b"}", b"]", b":", b",", b"null", b"true", b"1e999", b"-1", b"NaN"),
    *(b"\\ud800", b"9" * 30, b"[" * 40, b"\n", b"\r\n\r\n", b"%00", b"\xff\xfe", b" "),
)

Change = Callable[[Random, bytearray, Sequence[bytes]], None]


def _at(chance: Random, octets: bytearray) -> int:
    return chance.randrange(len(octets) + 1)


def _flip(chance: Random, octets: bytearray, _: Sequence[bytes]) -> None:
    if octets:
        octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)


def _replace(chance: Random, octets: bytearray, _: Sequence[bytes]) -> None:
    if octets:
        octets[chance.randrange(len(octets))] = chance.choice((*_ODD, chance.randrange(256)))


def _number(chance: Random, octets: bytearray, _: Sequence[bytes]) -> None:
    width, order = chance.choice((2, 4, 8)), chance.choice(("little", "big"))
    value = chance.choice((*_LENGTHS, len(octets), len(octets) - 1, chance.getrandbits(16)))
    raw = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little" if order == "little" else "big")
    at = _at(chance, octets)
    octets[at : at + width] = raw


def _insert(chance: Random, octets: bytearray, _: Sequence[bytes]) -> None:
    at = _at(chance, octets)
    octets[at:at] = chance.choice((*_TEXTS, chance.randbytes(chance.randrange(1, 17))))


def _delete(chance: Random, octets: bytearray, _: Sequence[bytes]) -> None:
    at = _at(chance, octets)
    del octets[at : at + chance.choice((1, 2, 4, 8, 64))]


def _cut(chance: Random, octets: bytearray, _: Sequence[bytes]) -> None:
    del octets[_at(chance, octets) :]


def _double(chance: Random, octets: bytearray, _: Sequence[bytes]) -> None:
    at = _at(chance, octets)
    part = bytes(octets[at : at + chance.choice((1, 4, 8, 16, 64, 256))])
    octets[at:at] = part * chance.choice((1, 1, 2, 8))


def _splice(chance: Random, octets: bytearray, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    at = chance.randrange(len(other) + 1)
    octets[_at(chance, octets) :] = other[at:]


def _overwrite(chance: Random, octets: bytearray, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    begin, at = chance.randrange(len(other) + 1), _at(chance, octets)
    part = other[begin : begin + chance.choice((4, 8, 16, 64))]
    octets[at : at + len(part)] = part


_CHANGES: Final[Sequence[Change]] = (
    *(_flip, _replace, _number, _number, _insert, _delete, _cut, _double, _splice, _overwrite),
)


def mutate(chance: Random, octets: bytes, others: Sequence[bytes], *, max_bytes: int) -> bytes:
    """Return `octets` with a few changes, some of them taken from `others`."""
    made = bytearray(octets)
    for _ in range(chance.choice((1, 1, 2, 3, 5, 9))):
        chance.choice(_CHANGES)(chance, made, others)
    return bytes(made[:max_bytes])
