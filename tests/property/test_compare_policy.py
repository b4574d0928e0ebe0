"""The checkpoint policy and the choice of a mode, under any course of events."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from colod.model import Mode
from colod.output.compare.checkpoints import CheckpointOptions, Checkpoints, Step
from colod.output.compare.decisions import DIVERGENCE, Reason
from colod.output.compare.hybrid import Hybrid, HybridOptions

OPTIONS = CheckpointOptions(spacing_min_s=0.5, interval_max_s=4.0, overdue_s=2.0)
HYBRID = HybridOptions(
    fall_back_per_s=2.0,
    fall_back_after_s=3.0,
    retry_after_s=20.0,
    retry_max_s=60.0,
    settled_after_s=10.0,
)
_steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.125, 0.375, 1.0, 3.0]), st.sampled_from([*Reason, None])),
    max_size=80,
)


def play(steps: list[tuple[float, Reason | None]], kind: type[Checkpoints]) -> list[str]:
    """Play wishes, and checkpoints where there is no reason; return which rules were broken."""
    now = made_at = 100.0
    checkpoints = kind(OPTIONS, now)
    broken: list[str] = []
    is_outstanding = False

    def judge(step: Step | None) -> None:
        nonlocal is_outstanding
        if step is Step.REQUEST:
            reason = checkpoints.outstanding
            if is_outstanding:
                broken.append("two at a time")
            urgent = reason in (Reason.SPACE, Reason.OPERATOR)
            if not urgent and now < made_at + OPTIONS.spacing_min_s:
                broken.append("too soon")
            is_outstanding = True

    for wait_s, reason in steps:
        end = now + wait_s
        while (deadline := checkpoints.next_deadline()) is not None and deadline <= end:
            now = max(now, deadline)
            judge(checkpoints.on_deadline(now))
            if checkpoints.next_deadline() == deadline:
                broken.append("a deadline that nothing came of")
                break
        now = end
        if reason is not None:
            judge(checkpoints.ask(reason, now))
        else:
            checkpoints.committed(now)
            made_at, is_outstanding = now, False
        if not is_outstanding and now > made_at + OPTIONS.interval_max_s:
            broken.append("too late")
    asked, made = checkpoints.requested.total(), checkpoints.made.total()
    if asked - made != is_outstanding:
        broken.append("miscounted")
    return broken


@given(steps=_steps)
def test_one_at_a_time_and_neither_too_soon_nor_too_late(
    steps: list[tuple[float, Reason | None]],
) -> None:
    assert play(steps, Checkpoints) == []


class Hasty(Checkpoints):
    """One that does not space."""

    def _earliest(self) -> float:
        return float("-inf")


class Forgetful(Checkpoints):
    """One that forgets what it has asked for."""

    @property
    def outstanding(self) -> Reason | None:
        return self._outstanding

    def ask(self, reason: Reason, now: float) -> Step | None:
        self._outstanding = None
        return super().ask(reason, now)


def test_policies_without_a_rule_are_caught() -> None:
    assert "too soon" in play([(0.125, Reason.PAYLOAD)], Hasty)
    twice = [(1.0, Reason.PAYLOAD), (0.0, Reason.SPACE)]
    assert "two at a time" in play([*twice], Forgetful)


_gaps = st.lists(st.floats(0.01, 30.0), max_size=200)


@given(gaps=_gaps, reasons=st.lists(st.sampled_from(sorted(DIVERGENCE)), min_size=1, max_size=5))
def test_a_switch_costs_its_time_whatever_comes(gaps: list[float], reasons: list[Reason]) -> None:
    """So there are never more of them than these times allow."""
    now = changed_at = 0.0
    hybrid = Hybrid(HYBRID, now)
    for number, gap in enumerate(gaps):
        now += gap
        mode = hybrid.mode
        wanted = hybrid.committed(reasons[number % len(reasons)], now)
        if wanted is None:
            continue
        assert wanted is not mode
        least = HYBRID.fall_back_after_s if mode is Mode.COLO else HYBRID.retry_after_s
        assert now - changed_at >= least
        hybrid.switched(now)
        changed_at = now
    assert abs(hybrid.switches[Mode.REMUS] - hybrid.switches[Mode.COLO]) <= 1
    assert hybrid.retry_s <= HYBRID.retry_max_s


@given(gaps=st.lists(st.floats(1.001, 30.0), max_size=100))
def test_a_guest_that_diverges_rarely_stays_in_colo(gaps: list[float]) -> None:
    now = 0.0
    hybrid = Hybrid(HYBRID, now)
    for gap in gaps:
        now += gap
        assert hybrid.committed(Reason.PAYLOAD, now) is None


@given(gaps=st.lists(st.floats(0.01, 0.3), min_size=1, max_size=50))
def test_a_guest_that_diverges_all_the_time_is_soon_in_remus(gaps: list[float]) -> None:
    now = 0.0
    hybrid = Hybrid(HYBRID, now)
    for gap in itertools.islice(itertools.cycle(gaps), 500):
        now += gap
        if hybrid.committed(Reason.PAYLOAD, now) is Mode.REMUS:
            break
    assert hybrid.wanted is Mode.REMUS
    assert now <= HYBRID.fall_back_after_s + 0.3
