"""Read files of one JSON object per line; lines that cannot be read are passed over."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file, none where it cannot be read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def parsed(lines: Sequence[str], make: Callable[..., _T]) -> Iterator[_T]:
    """Yield what `make` makes of each line's object, whose keys are its arguments."""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            yield make(**json.loads(line))
