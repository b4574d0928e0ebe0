"""What both sessions say of mending their link: a word among the capabilities of hello and welcome.

`resume-1` offers it, and takes it; a peer that does not know the word passes over it, and the link
ends at its first break. `resume-1:NUMBER:RECEIVED` is of a later connection: its number, counted by
the sender, and how many bytes that side has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

RESUME: Final = "resume-1"
_DIGITS: Final = 19  # below 2 ** 63


@dataclass(frozen=True, slots=True)
class Standing:
    """What one side says in the hello or welcome of a later connection.

    Attributes:
        number: Of the connection, from 1 on.
        received: How many bytes this side has.
    """

    number: int
    received: int

    def __str__(self) -> str:
        """Return the word for it."""
        return f"{RESUME}:{self.number}:{self.received}"

    @classmethod
    def of(cls, capabilities: Sequence[str]) -> Self | None:
        """Return what `capabilities` say, None if they are not those of a later connection."""
        for word in capabilities:
            name, *fields = word.split(":")
            if name == RESUME and len(fields) == 2 and all(map(_is_number, fields)):
                number, received = map(int, fields)
                return cls(number, received) if number else None
        return None


def offer(resume_bytes: int) -> tuple[str, ...]:
    """Return what a hello, or the welcome that takes it, says where there is memory for it."""
    return (RESUME,) if resume_bytes else ()


def answer(resume_bytes: int, offered: Sequence[str]) -> tuple[str, ...]:
    """Return what a welcome says to what was offered."""
    return offer(resume_bytes) if RESUME in offered else ()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < _DIGITS
