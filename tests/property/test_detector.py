"""Whatever is heard and whichever links come and go, suspicion keeps its promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from colod.failover.detector import SESSION, Detector
from colod.failover.view import Contact

SILENT_S, SUSPECT_S, GRACE_S = 3.0, 10.0, 4.0
SIGNALS = (SESSION, "a", "b")

Step = tuple[str, str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(SIGNALS),
        st.sampled_from(("heard", "lost", "back", "nothing")),
        st.integers(0, 12),
    ),
    max_size=30,
)


@dataclass
class Known:
    """What was said of one signal, kept simply."""

    heard_at: float = 0.0
    has_link: bool = True


def fresh() -> Detector:
    """Return a detector that expects all signals from instant 0 on."""
    detector = Detector(SILENT_S, SUSPECT_S, GRACE_S, now=0.0)
    for signal in SIGNALS:
        detector.expect(signal)
    return detector


def tell(detector: Detector, step: Step, now: float, *, links: bool = True) -> None:
    """Tell the detector what happened."""
    signal, what, _ = step
    if what == "heard":
        detector.heard(signal, now)
    elif links and what in ("lost", "back"):
        detector.carrier(signal, now if what == "lost" else None)


@given(STEPS)
def test_no_peer_is_suspected_that_was_heard_lately(steps: Sequence[Step]) -> None:
    detector, now = fresh(), 0.0
    known = {signal: Known() for signal in SIGNALS}
    for step in steps:
        signal, what, later_s = step
        now += later_s
        tell(detector, step, now)
        if what == "heard":
            known[signal].heard_at = now
        elif what != "nothing":
            known[signal].has_link = what == "back"
        if detector.contact(now) is Contact.LOST:
            for each in known.values():
                limit_s = SUSPECT_S if each.has_link else GRACE_S
                assert now - each.heard_at > limit_s


@given(STEPS)
def test_a_link_can_only_make_suspicion_earlier_and_never_contact(steps: Sequence[Step]) -> None:
    detector, without, now = fresh(), fresh(), 0.0
    for step in steps:
        now += step[2]
        tell(detector, step, now)
        tell(without, step, now, links=False)
        by_silence = without.contact(now)
        assert (detector.contact(now) is Contact.UP) == (by_silence is Contact.UP)
        if by_silence is Contact.LOST:
            assert detector.contact(now) is Contact.LOST


@given(STEPS)
def test_links_that_are_back_leave_nothing_behind(steps: Sequence[Step]) -> None:
    detector, without, now = fresh(), fresh(), 0.0
    for step in steps:
        now += step[2]
        tell(detector, step, now)
        tell(without, step, now, links=False)
    for signal in SIGNALS:
        detector.carrier(signal, None)
    for later_s in (0.0, 1.0, SILENT_S, GRACE_S, SUSPECT_S, SUSPECT_S + 1):
        assert detector.contact(now + later_s) is without.contact(now + later_s)


@given(STEPS)
def test_contact_stays_as_it_is_until_the_next_deadline(steps: Sequence[Step]) -> None:
    detector, now = fresh(), 0.0
    for step in steps:
        now += step[2]
        tell(detector, step, now)
        before, deadline = detector.contact(now), detector.next_deadline(now)
        end = now + 100.0 if deadline is None else deadline
        for part in (0.25, 0.5, 0.75):
            between = now + part * (end - now)
            if deadline is None or between < deadline:
                assert detector.contact(between) is before
        if deadline is not None:
            assert detector.contact(deadline + 0.001) is not before
