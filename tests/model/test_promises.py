"""The promises hold in every world that a bounded number of accidents can reach."""

from __future__ import annotations

import pytest

from colod.failover.explorer import explore
from colod.failover.world import Bounds, Model
from tests.model.walks import SHORT, Case

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_every_promise_is_kept_and_a_good_end_stays_in_reach(case: Case) -> None:
    walk, _, took_s = case.walk()
    print(f"{case.what}: {walk.states} worlds, {walk.steps} steps, {took_s:.1f} s")
    assert not walk.violations, str(walk.violations[0])
    assert walk.states >= case.at_least


@pytest.mark.parametrize("cut", ["session", "xl", "net", "suspicion", "failover"])
def test_without_a_gate_two_copies_run_when_the_primarys_daemon_is_dead_too(cut: str) -> None:
    bounds = Bounds(faults=2, kinds=frozenset(["daemon", cut]), gated=False, prompt=True)
    violation = explore(Model(bounds)).violations[0]
    assert violation.what == "two copies run"
    assert any("colod dies" in step for step in violation.history)
    gated = Bounds(faults=2, kinds=frozenset(["daemon", cut]))
    if cut in ("suspicion", "failover"):
        assert not explore(Model(gated)).violations


def test_an_unknown_kind_of_accident_is_refused() -> None:
    with pytest.raises(ValueError, match="lightning"):
        Model(Bounds(faults=1, kinds=frozenset(["lightning"])))
