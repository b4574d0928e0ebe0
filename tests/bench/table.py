"""What benchmarks report: figures of interleaved rounds, beside a rival's of the same rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Measure = Callable[[int], "Section"]
"""A benchmark: takes the number of rounds, at least 1."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, once per round."""

    values: Sequence[float]
    unit: str = ""

    @property
    def median(self) -> float:
        """The median of all rounds."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Return median and range; one number where all rounds agree."""
        low, middle, high = map(_short, (min(self.values), self.median, max(self.values)))
        text = middle if low == high else f"{middle} ({low}–{high})"
        return f"{text} {self.unit}".strip()

    def over(self, other: Figure) -> Figure:
        """Return the ratio to another figure, round by round."""
        return Figure([a / b for a, b in zip(self.values, other.values, strict=True)])


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        what: The quantity.
        ours: Of colod.
        rival: The same of what it is compared with, from the same rounds; None for none.
        rival_name: Who that is.
        least: The bar for the median of `judged`; None for none.
        most: The same, where less is better.
        by_ratio: Whether the bar is for the ratio and not for our own figure.
    """

    what: str
    ours: Figure
    rival: Figure | None = None
    rival_name: str = ""
    least: float | None = None
    most: float | None = None
    by_ratio: bool = True

    @property
    def ratio(self) -> Figure | None:
        """Ours over the rival's."""
        return self.ours.over(self.rival) if self.rival else None

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is reached; None if there is none."""
        judged = (self.ratio if self.by_ratio else self.ours) or self.ours
        if self.least is not None:
            return judged.median >= self.least
        return None if self.most is None else judged.median <= self.most

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells."""
        rival = f"{self.rival} {self.rival_name}" if self.rival else "–"
        return (self.what, str(self.ours), rival, str(self.ratio or "–"), self._bar())

    def _bar(self) -> str:
        sign, limit = ("≥", self.least) if self.least is not None else ("≤", self.most)
        if limit is None:
            return "–"
        return f"{sign} {_short(limit)}: {'met' if self.is_met else 'MISSED'}"

    def to_json(self) -> dict[str, Any]:
        """Return all figures of all rounds."""
        return {
            "what": self.what,
            "unit": self.ours.unit,
            "ours": list(self.ours.values),
            "rival": list(self.rival.values) if self.rival else None,
            "rival_name": self.rival_name,
            "ratio": list(self.ratio.values) if self.ratio else None,
            "least": self.least,
            "most": self.most,
            "is_met": self.is_met,
        }


@dataclass(frozen=True, slots=True)
class Section:
    """What one benchmark found."""

    title: str
    about: str
    rows: Sequence[Row] = field(default_factory=tuple)

    def to_markdown(self) -> str:
        """Return a heading, what was done, and the table."""
        head = ("quantity", "colod", "rival, same rounds", "ratio", "bar")
        lines = [head, tuple("---" for _ in head), *(row.cells() for row in self.rows)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return "\n\n".join(part for part in (f"## {self.title}", self.about, table) if part)

    def to_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "title": self.title,
            "about": self.about,
            "rows": [row.to_json() for row in self.rows],
        }


def _short(value: float) -> str:
    """Return three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
