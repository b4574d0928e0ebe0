"""What is fuzzed: a parser behind one function of bytes, and what it must not do with them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

MIB: Final = 1 << 20
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+|'.*'|\".*\"", re.DOTALL)


class Finding(Exception):
    """A parser did what it must not do: this is a fault of it, or of the target's idea of it."""


def usual_bound(size: int) -> int:
    """Return what a parser may hold of `size` bytes that keeps nothing on purpose."""
    return MIB + 64 * size


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser, or several that belong together.

    Attributes:
        run: Gives it one input, and returns what became of that in few words: inputs for which it
            says something new are worth mutating. Whatever it raises is a finding.
        seeds: Sound inputs to begin with.
        held_bytes: Most memory that one run may take at a time, from the input's length; None where
            it is not measured: other threads allocate meanwhile.
        cpu_s: Processor time after which one run counts as a hang: thousands of times what it
            takes, for a hang is for ever.
        max_bytes: Longest input worth trying.
    """

    run: Callable[[bytes], Hashable]
    seeds: Callable[[], Iterable[bytes]]
    held_bytes: Callable[[int], int] | None = field(default=usual_bound)
    cpu_s: float = 20.0
    max_bytes: int = 1 << 12


class Reader:
    """Takes decisions out of an input's bytes, and zeros where those are used up."""

    def __init__(self, octets: bytes) -> None:
        """Begin with the first byte."""
        self._octets = octets
        self._at = 0

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def number(self, octets: int) -> int:
        """Return the next `octets` bytes as a number, little-endian."""
        return int.from_bytes(self.take(octets), "little")

    def flag(self) -> bool:
        """Return one bit of the next byte."""
        return bool(self.byte() & 1)

    def take(self, count: int) -> bytes:
        """Return so many bytes."""
        taken = self._octets[self._at : self._at + count]
        self._at += count
        return taken.ljust(count, b"\0")

    def rest(self) -> bytes:
        """Return all that is left."""
        taken = self._octets[self._at :]
        self._at = len(self._octets)
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return self._at >= len(self._octets)


def pieces(octets: bytes, step: int) -> Iterator[bytes]:
    """Yield `octets` in pieces of about `step` bytes, all in one for 0.

    Their lengths vary, so that edges fall everywhere.
    """
    if not step:
        yield octets
        return
    places = [0]
    while places[-1] < len(octets):
        places.append(min(places[-1] + 1 + (step * len(places)) % (2 * step), len(octets)))
    for begin, end in pairwise(places):
        yield octets[begin:end]


def gist(error: BaseException) -> str:
    """Return an error without what differs from one input to the next."""
    return f"{type(error).__name__}: {_NUMBERS.sub('#', str(error))[:120]}"


def same(what: str, found: object, wanted: object) -> None:
    """Check that two ways give the same.

    Raises:
        Finding: If they do not.
    """
    if found != wanted:
        raise Finding(f"{what}: {str(found)[:300]} and {str(wanted)[:300]}")


def demand(is_so: bool, what: str) -> None:
    """Check a promise.

    Raises:
        Finding: If it is not kept; `what` says which.
    """
    if not is_so:
        raise Finding(what)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a target is found, before anything of it is imported.

    Attributes:
        module: Of `tests.fuzz.targets`.
        variable: That holds it there.
        parsers: Modules whose coverage counts, and which are instrumented.
    """

    module: str
    variable: str
    parsers: Sequence[str]

    def load(self) -> Target:
        """Import it."""
        target = getattr(
            importlib.import_module(f"tests.fuzz.targets.{self.module}"), self.variable
        )
        assert isinstance(target, Target)
        return target
