"""Find, for every mutant of the table of decisions, the smallest walk that kills it.

`python -m tests.model.mutation` walks for an hour and writes evidence.json; the test then repeats
only the walk that is named there.
"""

from __future__ import annotations

import json
import sys
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
    except (ColodError, AssertionError) as error:
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


def _evidence(part: int, parts: int) -> dict[str, str]:
    baseline = sorted(_baseline(), key=lambda each: each[0])
    print([(states, name) for states, name, _ in baseline], flush=True)
    found: dict[str, str] = {}
    for at, mutant in enumerate(mutants()):
        if at % parts != part:
            continue
        began = time.monotonic()
        killer = next((name for name in _tries(mutant, baseline) if killed_by(mutant, name)), "")
        found[mutant.name] = killer
        took = time.monotonic() - began
        print(f"{took:6.1f} s  {mutant.name}: {killer or 'SURVIVED'}", flush=True)
    return found


def main(argv: list[str]) -> None:
    """Search; with PART and PARTS only that part, printed and not written."""
    part, parts = (int(word) for word in argv) if argv else (0, 1)
    found = _evidence(part, parts)
    target = EVIDENCE if parts == 1 else EVIDENCE.with_suffix(f".{part}")
    target.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
