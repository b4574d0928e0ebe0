"""The table of decisions: for any view, the first rule that fits says what to show and do.

The order is the argument. What keeps a second copy from running comes first and needs nobody's
answer; then what is known of ownership is brought up to date; only then do roles act on it. A rule
that destroys, runs or gives away anything demands a confirmed record that says so.
"""

from __future__ import annotations

from dataclasses import replace

from colod.errors import InvariantBroken
from colod.failover.effects import Decision
from colod.failover.rules.alone import OWNER_ALONE
from colod.failover.rules.knowledge import CREATION, KNOWLEDGE, SAFETY
from colod.failover.rules.loser import LOSER
from colod.failover.rules.paired import OWNER_PAIRED
from colod.failover.rules.promotion import OWNER_UNACTIVATED
from colod.failover.rules.secondary import SECONDARY
from colod.failover.rules.table import Rule
from colod.failover.view import View

__all__ = ["CHAPTERS", "RULES", "Rule", "decide"]

CHAPTERS: dict[str, tuple[Rule, ...]] = {
    "Whoever owns": SAFETY,
    "What is known of ownership": KNOWLEDGE,
    "A new protection": CREATION,
    "The owner of a pair": OWNER_PAIRED,
    "An owner whose copy does not run yet": OWNER_UNACTIVATED,
    "An owner alone": OWNER_ALONE,
    "A primary that lost the guest": LOSER,
    "A secondary": SECONDARY,
}
"""The table in its order, by the part of the argument that each rule belongs to."""

RULES: tuple[Rule, ...] = tuple(rule for chapter in CHAPTERS.values() for rule in chapter)


def decide(view: View, rules: tuple[Rule, ...] = RULES) -> Decision:
    """Return what follows from `view`.

    Args:
        view: The facts.
        rules: The table; another one than colod's only to judge it.

    Raises:
        InvariantBroken: If no rule fits; the table is defective.
    """
    for rule in rules:
        if rule.fits(view):
            return replace(rule.then(view), rule=rule.name)
    raise InvariantBroken(f"no rule fits {view}")
