"""Read files of one JSON object per line; lines that cannot be read are passed over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

_T = TypeVar("_T")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file, none where it cannot be read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def parsed(lines: Sequence[str], kind: type[_T]) -> Iterator[_T]:
    """Yield each line's object as a dataclass, where its fields are of the right types.

    What a later version has added to them is passed over.
    """
    adapter = TypeAdapter(kind)
    for line in lines:
        with contextlib.suppress(ValueError):
            yield adapter.validate_json(line, strict=True)
