"""Long random histories of the gate, beyond what the exhaustive walk can reach."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from colod.output.gate import Gate
from tests.model.gate_world import Limits, World, broken, steps

LONG = Limits(epochs=12, packets=3, failures=1, crashes=1, shorts=True)
_CALM = 29  # one step in so many may be an accident: else no history would get far
CHOICES = st.lists(st.integers(0, 1 << 16), min_size=50, max_size=400)


def run(limits: Limits, choices: list[int]) -> World:
    """Take one of the possible steps for each choice, and check the promises after each."""
    world = World(Gate(), limits)
    history = []
    for choice in choices:
        ways = list(steps(world))
        if not ways:
            break
        calm = [way for way in ways if not way[2]]
        ways = calm if calm and choice % _CALM else ways
        name, world, _ = ways[choice // _CALM % len(ways)]
        history.append(name)
        assert not broken(world), "\n".join(history)
    return world


@settings(max_examples=150)
@given(CHOICES)
def test_no_history_lets_output_of_an_unacknowledged_epoch_leave(choices: list[int]) -> None:
    run(LONG, choices)


@settings(max_examples=100)
@given(CHOICES)
def test_no_history_with_hot_plugging_claims_protection_in_vain(choices: list[int]) -> None:
    run(LONG._replace(hot_plugs=3, is_claim_kept=False), choices)


@settings(max_examples=100)
@given(CHOICES)
def test_without_accidents_a_plug_never_holds_more_than_was_made(choices: list[int]) -> None:
    world = run(LONG._replace(failures=0, crashes=0), choices)
    assert len(world.plug.queue) <= LONG.packets * (LONG.epochs + 1)
    assert world.plug.saved + world.plug.may_leave <= len(world.plug.queue)
