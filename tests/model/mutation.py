"""Find, for every mutant of the table of decisions, the smallest walk that kills it.

`python -m tests.model.mutation` brings evidence.json up to date, in minutes after a change to the
table and in an hour from nothing; the test then repeats only the walks that are named there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from colod.errors import ColodError
from colod.failover.explorer import explore
from colod.failover.rules import RULES
from colod.failover.view import View
from colod.failover.world import KINDS, Bounds, Model
from tests.model.mutants import Mutant, differs, mutants
from tests.unit.failover_transcripts import first_deviation

EVIDENCE = Path(__file__).with_name("evidence.json")
TRANSCRIPTS = "transcripts"

_SMALL = 12_000
"""States; above it the transcripts are asked first."""

_MAX_STATES = 200_000

_MOST_LARGE = 3
"""How many large walks are tried before a mutant is called a survivor."""


Baseline = list[tuple[int, str, list[tuple[int, View]]]]
"""Of each walk: its states, its name, and what was decided in it, by row."""


def _walks() -> dict[str, Bounds]:
    """Return walks by name, all so small that a mutant can be walked in seconds."""
    walks = {
        kind: Bounds(faults=1, kinds=frozenset([kind]))
        for kind in sorted(KINDS - {"fence", "force", "restore"})
    }
    two = ("witness failover", "guest suspend", "effect failover")
    for pair in two:
        walks[pair] = Bounds(faults=2, kinds=frozenset(pair.split()))
    walks["unprotect twice"] = Bounds(faults=2, kinds=frozenset(["unprotect"]))
    for kind in ("net", "failover", "session"):
        kinds = frozenset([kind])
        walks[f"{kind}, no gate"] = Bounds(faults=1, kinds=kinds, gated=False, prompt=True)
    walks["failover, quarantine"] = Bounds(
        faults=1, kinds=frozenset(["failover"]), keep_quarantined=True
    )
    fencing = frozenset(["host", "fence", "suspicion"])
    walks["fencing"] = Bounds(faults=1, kinds=fencing, fencing=True)
    walks["host suspicion, fencing"] = Bounds(
        faults=2, kinds=frozenset(["host", "suspicion"]), fencing=True
    )
    return walks


WALKS = _walks()


def killed_by(mutant: Mutant, walk: str, max_states: int = _MAX_STATES) -> str:
    """Return what shows that `mutant` is damaged in the walk of that name, "" if nothing."""
    if walk == TRANSCRIPTS:
        return first_deviation(mutant.rules)
    try:
        found = explore(Model(WALKS[walk], mutant.rules), max_states=max_states)
    except (ColodError, AssertionError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:100]
    except MemoryError:
        return ""
    return found.violations[0].what if found.violations else ""


def _baseline() -> Iterator[tuple[int, str, list[tuple[int, View]]]]:
    rows = {rule.name: at for at, rule in enumerate(RULES)}
    for name, bounds in WALKS.items():
        model = Model(bounds)
        walk = explore(model)
        assert not walk.violations, f"{name}: {walk.violations[0]}"
        views = [(rows[decision.rule], view) for view, decision in model.decisions.items()]
        yield walk.states, name, views


def _tries(mutant: Mutant, baseline: Baseline) -> Iterator[str]:
    """Yield what may kill a mutant, the cheapest first."""
    small = [each for each in baseline if each[0] < _SMALL]
    large = [each for each in baseline if each[0] >= _SMALL]
    yield from (name for _, name, views in small if differs(mutant, views))
    yield TRANSCRIPTS
    yield from islice((name for _, name, views in large if differs(mutant, views)), _MOST_LARGE)


def _search(wanted: list[Mutant]) -> Iterator[tuple[str, str]]:
    """Yield each mutant's name and what kills it, "" for a survivor."""
    baseline = sorted(_baseline(), key=lambda each: each[0]) if wanted else []
    for mutant in wanted:
        began = time.monotonic()
        killer = next((name for name in _tries(mutant, baseline) if killed_by(mutant, name)), "")
        took_s = time.monotonic() - began
        print(f"{took_s:6.1f} s  {mutant.name}: {killer or 'SURVIVED'}", flush=True)
        yield mutant.name, killer


def evidence() -> dict[str, str]:
    """Return what is written down of the mutants: walk, transcripts, or "" for a survivor."""
    known: dict[str, str] = json.loads(EVIDENCE.read_text()) if EVIDENCE.exists() else {}
    return known


def main() -> None:
    """Look again at every survivor, and for what kills a mutant that nothing written down kills."""
    known, all_mutants = evidence(), list(mutants())
    sound = {
        mutant.name: known[mutant.name]
        for mutant in all_mutants
        if known.get(mutant.name) and killed_by(mutant, known[mutant.name])
    }
    print(f"{len(sound)} of {len(all_mutants)} are killed by what is written down", flush=True)
    found = dict(_search([each for each in all_mutants if each.name not in sound]))
    EVIDENCE.write_text(json.dumps(sound | found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
