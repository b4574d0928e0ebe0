"""What two sessions have to agree on before one sends deltas to the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

NONE: Final = "none"
ZSTD_1: Final = "zstd-1"
CODEC_NAMES: Final = (ZSTD_1, NONE)
"""Best first."""
MIN_PAGES: Final = 240
"""Least room of a page store."""
_WORD: Final = "delta-1"
_MAX: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How one side would have it, or how both do.

    Attributes:
        codec: One of CODEC_NAMES.
        max_pages: Room of the page stores, in pages of 4096 bytes; both have the same.
        pfn_limit: PFNs from here on are not kept. At most 4 bytes of memory for each below.
    """

    codec: str = ZSTD_1
    max_pages: int
    pfn_limit: int

    def __str__(self) -> str:
        """Return the word for it in a hello's or welcome's `capabilities`."""
        return f"{_WORD}:{self.codec}:{self.max_pages}:{self.pfn_limit}"

    @classmethod
    def parse(cls, capability: str) -> Terms | None:
        """Read a capability; None if it is about something else, or cannot be met."""
        word, *fields = capability.split(":")
        if word != _WORD or len(fields) != 3 or fields[0] not in CODEC_NAMES:
            return None
        if not all(
            field.isascii() and field.isdecimal() and len(field) < 14 for field in fields[1:]
        ):
            return None
        max_pages, pfn_limit = map(int, fields[1:])
        if not MIN_PAGES <= max_pages <= _MAX or not 0 < pfn_limit <= _MAX:
            return None
        return cls(codec=fields[0], max_pages=max_pages, pfn_limit=pfn_limit)


def choose(offered: Iterable[str], own: Terms) -> Terms | None:
    """Return the terms that both sides can meet: the offered codec, the smaller bounds.

    Args:
        offered: The capabilities of the sender's hello, the one it likes best first.
        own: What the receiver has; its codec is the best one it allows. NONE is always allowed.
    """
    for terms in filter(None, map(Terms.parse, offered)):
        if terms.codec in (own.codec, NONE):
            return replace(
                terms,
                max_pages=min(terms.max_pages, own.max_pages),
                pfn_limit=min(terms.pfn_limit, own.pfn_limit),
            )
    return None


def is_within(chosen: Terms, offered: Terms) -> bool:
    """Tell a sender whether the welcome's terms keep to what its hello offered."""
    return (
        chosen.codec in (offered.codec, NONE)
        and chosen.max_pages <= offered.max_pages
        and chosen.pfn_limit <= offered.pfn_limit
    )
