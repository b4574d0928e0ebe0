"""Text for people: tables and paragraphs that fit the width, and numbers with units."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest

import click

NARROW_COLUMNS = 80
WIDE_COLUMNS = 120
_GAP = "  "
_COLUMN_MIN = 8


def width() -> int:
    """Return the columns to use: the terminal's up to 120, and 80 where there is none."""
    if not sys.stdout.isatty():
        return NARROW_COLUMNS
    return min(WIDE_COLUMNS, shutil.get_terminal_size((NARROW_COLUMNS, 24)).columns)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], columns: int, *, names: Sequence[int]
) -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        heads: Names of the columns.
        rows: Their cells.
        columns: Width to fit into.
        names: Which columns hold names; those are folded where the width does not suffice, so that
            words that people search for stay whole.
    """
    sizes = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    room = columns - len(_GAP) * (len(sizes) - 1)
    while sum(sizes) > room and max(sizes[name] for name in names) > _COLUMN_MIN:
        sizes[max(names, key=sizes.__getitem__)] -= 1
    for row in (heads, *rows):
        cells = [textwrap.wrap(cell, size) for cell, size in zip(row, sizes, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (part.ljust(size) for part, size in zip(parts, sizes, strict=True))
            yield _GAP.join(padded).rstrip()


def print_plan(lines: Iterable[str]) -> None:
    """Print what is about to be done, a paragraph for each step; paths are not broken."""
    columns = width()
    for line in lines:
        folded = textwrap.wrap(
            line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for part in folded:
            click.echo(part)


def paragraph(label: str, text: str, columns: int) -> Iterator[str]:
    """Yield `label: text`, continued under its beginning."""
    yield from textwrap.wrap(f"{label}: {text}", columns, subsequent_indent="  ")


def pairs(facts: Sequence[tuple[str, str]], columns: int) -> Iterator[str]:
    """Yield names and values in two columns; facts without a value are left out."""
    size = max(len(name) for name, _ in facts)
    indent = " " * (size + len(_GAP))
    for name, value in facts:
        if value:
            first = f"{name.ljust(size)}{_GAP}"
            yield from textwrap.wrap(value, columns, initial_indent=first, subsequent_indent=indent)


def seconds(duration_s: float) -> str:
    """Return a duration with a unit that suits it."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 100:
        return f"{duration_s:.1f} s"
    return f"{duration_s / 60:.0f} min" if duration_s < 7200 else f"{duration_s / 3600:.0f} h"


def size(size_bytes: float) -> str:
    """Return a number of bytes with a unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def instant(unix_s: float) -> str:
    """Return a time of day in UTC, to the second; nothing for 0."""
    if not unix_s:
        return ""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
