"""The promises hold in every world that a bounded number of accidents can reach."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from colod.failover.world import KINDS, Bounds

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Case:
    """A walk, and how many worlds it must at least see to mean anything."""

    what: str
    bounds: Bounds
    at_least: int


def kinds(*names: str) -> frozenset[str]:
    """Return kinds of accidents."""
    return frozenset(names)


SLOW_KINDS = kinds("net", "restore")

CASES = (
    Case("one accident of any kind, two pairings", Bounds(faults=1, kinds=KINDS, pairings=2), 8e5),
)
