"""Situations, and what colod says and does in them: one decision each."""

from __future__ import annotations

from colod.failover.rules import Rule
from tests.unit.failover_transcripts.alone import ALONE
from tests.unit.failover_transcripts.knowledge import KNOWLEDGE, SAFETY
from tests.unit.failover_transcripts.pair import PAIR, PROMOTION
from tests.unit.failover_transcripts.secondary import LOSER, SECONDARY

TRANSCRIPTS = (*SAFETY, *KNOWLEDGE, *PAIR, *PROMOTION, *ALONE, *LOSER, *SECONDARY)


def first_deviation(rules: tuple[Rule, ...]) -> str:
    """Return how a table departs from the first transcript that it does not follow, or ""."""
    return next((text for each in TRANSCRIPTS if (text := each.deviation(rules))), "")
