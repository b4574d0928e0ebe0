"""Each row of the table is needed: every way to damage one is seen by a walk or a transcript."""

from __future__ import annotations

import pytest

from tests.model.mutants import mutants
from tests.model.mutation import evidence, killed_by
from tests.model.survivors import SURVIVORS

PARTS = 8
MUTANTS = {mutant.name: mutant for mutant in mutants()}
KILLERS = evidence()


def test_the_evidence_speaks_of_the_mutants_that_there_are() -> None:
    assert KILLERS.keys() == MUTANTS.keys(), "run: python -m tests.model.mutation"


def test_every_survivor_is_explained_and_no_other() -> None:
    assert {name for name, killer in KILLERS.items() if not killer} == SURVIVORS.keys()
    assert all(len(reason) > 20 for reason in SURVIVORS.values())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_other_mutant_is_killed(part: int) -> None:
    mine = [name for at, name in enumerate(MUTANTS) if at % PARTS == part and KILLERS.get(name)]
    alive = [name for name in mine if not killed_by(MUTANTS[name], KILLERS[name])]
    print(f"{len(mine) - len(alive)} of {len(mine)} mutants killed")
    assert not alive
