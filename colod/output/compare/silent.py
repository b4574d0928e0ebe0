"""Make room among the connections: those that were silent longest go first, if they may go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

_Known = TypeVar("_Known")

_LOOKED_AT = 8
"""How many of the connections silent longest are looked at for one that may be forgotten."""


def forget_silent(
    known: OrderedDict[Hashable, _Known], is_dispensable: Callable[[_Known], bool]
) -> tuple[Hashable, _Known] | None:
    """Take out and return one of the connections silent longest; None if none of them may go.

    Args:
        known: All of them, the newest last; those that were looked at in vain become the newest.
        is_dispensable: Whether one may be forgotten.
    """
    for _ in range(min(_LOOKED_AT, len(known))):
        key, connection = next(iter(known.items()))
        if is_dispensable(connection):
            del known[key]
            return key, connection
        known.move_to_end(key)
    return None
