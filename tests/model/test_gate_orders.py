"""No order of events lets output of an unacknowledged epoch leave, and each rule is needed for it.

The walks are exhaustive within their limits; every mutant below leaves out one rule of the gate, or
of those who use it, and the same walk must find what then goes wrong.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from colod.output.gate import Do, Effect, Effects, Gate, Lock, Phase
from tests.model.gate_world import Limits, walk

pytestmark = pytest.mark.timeout(900)  # hundreds of thousands of states on a machine of any speed

CALM = Limits(epochs=3, failures=0, crashes=0)
LOSS = "is out, the secondary has"


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(CALM._replace(epochs=4), id="calm"),
        pytest.param(CALM._replace(packets=2), id="more_packets"),
        pytest.param(CALM._replace(failures=1), id="a_call_fails"),
        pytest.param(CALM._replace(crashes=1), id="the_session_dies"),
        pytest.param(CALM._replace(shorts=True), id="short_checkpoints"),
        pytest.param(CALM._replace(hot_plugs=1, is_claim_kept=False), id="hot_plug"),
    ],
)
def test_no_output_leaves_before_its_epoch_is_acknowledged(limits: Limits) -> None:
    found = walk(Gate, limits)
    assert not found.violation, "\n".join(found.history)
    assert found.released == limits.epochs, "the walk must also show output that does leave"


class WithoutLockStep(Gate):
    """Takes every window for certain."""

    def is_certain(self, epoch: int) -> bool:
        return epoch >= 2


class WithStaleLock(Gate):
    """Takes what was read before the shrink for read after it."""

    def done(self, effect: Effect) -> tuple[Gate, Effects]:
        gate, effects = Gate.done(self, effect)
        return (replace(gate, lock=Lock.LOCKED) if gate.lock is Lock.SHRUNK else gate), effects


class WithTwoBarriers(Gate):
    """Sets a barrier whether or not another one waits."""

    def _may_set_barrier(self) -> bool:
        return True


class WithEarlyRelease(Gate):
    """Takes any acknowledgement for the barrier's."""

    def _may_release(self, acked: int) -> bool:
        return self.barrier > 0


class WithReleaseAtSeal(Gate):
    """Releases when the epoch was written, as stock Remus does."""

    def sealed_whole(self, epoch: int) -> tuple[Gate, Effects]:
        gate, _ = Gate.sealed_whole(self, epoch)
        if 0 < gate.barrier <= epoch:
            return replace(gate, barrier=0), (Effect(Do.RELEASE_ONE, gate.barrier),)
        return gate, ()


class WithEarlyClaim(Gate):
    """Claims protection one epoch too early."""

    @property
    def is_protected(self) -> bool:
        return self.phase is Phase.HOLDING and 0 < self.sound_from <= self.acked + 1


class WithTrustInClosing(Gate):
    """Takes a closing of unknown outcome for one that was undone."""

    def failed(self, effect: Effect, why: str, *, undone: bool = False) -> tuple[Gate, Effects]:
        return Gate.failed(self, effect, why, undone=True)


class WithTrustInBarriers(Gate):
    """Takes a barrier of unknown outcome for one that was set in time."""

    def failed(self, effect: Effect, why: str, *, undone: bool = False) -> tuple[Gate, Effects]:
        if effect.do is Do.SET_BARRIER:
            return self.done(effect)
        return Gate.failed(self, effect, why, undone=undone)


class WithoutLength(Gate):
    """Does not look whether a checkpoint was long enough for lock-step."""

    def _after_short(self, epoch: int) -> Gate:
        del epoch
        return self


class WithBlindClaim(Gate):
    """Goes on to claim protection when an interface was added."""

    def interface_seen(self, name: str) -> tuple[Gate, Effects]:
        gate, effects = Gate.interface_seen(self, name)
        return replace(gate, sound_from=self.sound_from), effects


@pytest.mark.parametrize(
    ("mutant", "limits", "expected"),
    [
        (WithoutLockStep, CALM, LOSS),
        (WithStaleLock, CALM, LOSS),
        (WithTwoBarriers, CALM._replace(epochs=4), LOSS),
        (WithEarlyRelease, CALM, LOSS),
        (WithReleaseAtSeal, CALM, LOSS),
        (WithEarlyClaim, CALM, LOSS),
        (WithTrustInClosing, CALM._replace(failures=1), LOSS),
        (WithTrustInBarriers, CALM._replace(failures=1), LOSS),
        (WithoutLength, CALM._replace(shorts=True), LOSS),
        (
            WithBlindClaim,
            CALM._replace(hot_plugs=1, is_claim_kept=False),
            "protected with an open interface",
        ),
        (Gate, CALM._replace(reads_on=True), LOSS),
        (Gate, CALM._replace(crashes=1, opens_on_death=True), LOSS),
    ],
)
def test_without_one_rule_output_is_lost(mutant: type[Gate], limits: Limits, expected: str) -> None:
    found = walk(mutant, limits)
    assert expected in found.violation, f"{found.states} states and nothing wrong in them"


class WithoutRelease(Gate):
    """Never lets go."""

    def _may_release(self, acked: int) -> bool:
        del acked
        return False


class WithoutWay(Gate):
    """Does not open after a failure."""

    def owner_alone(self) -> tuple[Gate, Effects]:
        return (self, ()) if self.phase is Phase.LOST else Gate.owner_alone(self)


def test_a_gate_that_never_releases_is_told_from_a_good_one() -> None:
    assert walk(WithoutRelease, CALM).released == 0


def test_a_gate_that_stays_closed_for_ever_is_found() -> None:
    assert "no way" in walk(WithoutWay, CALM._replace(failures=1)).violation
