"""What a session in COLO is told besides what every session is: the table `colo` of `spec.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

INTERVAL_S: Final = (0.1, 4.5)
"""Longest time between checkpoints; libxl makes one by itself after 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoSpec:
    """How a session in COLO reaches the guest's filters, and when it makes checkpoints.

    Attributes:
        filters_argv: `colod-simxl sim colo`: puts filters in and takes them away.
        rename_argv: Gives the incoming copy the guest's own name; receiver only.
        interval_max_s: Longest time from one checkpoint to the next, 0.1 to 4.5 s.
        compare_timeout_s: How long a frame waits for its equal before a checkpoint is asked for.
    """

    filters_argv: tuple[str, ...] = ()
    rename_argv: tuple[str, ...] = ()
    interval_max_s: float = 4.0
    compare_timeout_s: float = 0.2


def parse_colo(given: Any) -> ColoSpec:
    """Return the specification that a JSON value holds.

    Raises:
        ValueError: With the first thing that is wrong with it.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{given!r} is no table")
    if unknown := given.keys() - _READERS.keys():
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    spec = ColoSpec(**{name: _READERS[name](name, value) for name, value in given.items()})
    if not spec.filters_argv:
        raise ValueError("filters_argv: needed, or nobody holds the guest's output")
    return spec


def _words(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f"{name}: {value!r} is no list of words")
    return tuple(value)


def _seconds(low: float, high: float) -> Callable[[str, Any], float]:
    def read(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name}: {value!r} is no number")
        if not low <= value <= high:
            raise ValueError(f"{name}: {value!r} is not within {low:g} to {high:g}")
        return float(value)

    return read


_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "filters_argv": _words,
    "rename_argv": _words,
    "interval_max_s": _seconds(*INTERVAL_S),
    "compare_timeout_s": _seconds(0.001, 60.0),
}
