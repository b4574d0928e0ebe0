"""Mutants that nothing kills, and why that is right."""

from __future__ import annotations

SURVIVORS: dict[str, str] = {}
