"""When COLO is left for Remus, and when it is tried again."""

from __future__ import annotations

import pytest

from colod.model import Mode
from colod.output.compare.decisions import Reason
from colod.output.compare.hybrid import Hybrid, HybridOptions

OPTIONS = HybridOptions(
    fall_back_per_s=4.0,
    fall_back_after_s=3.0,
    retry_after_s=100.0,
    retry_max_s=300.0,
    settled_after_s=50.0,
)


class Guest:
    """A guest in hybrid mode, with a clock that is moved by hand, in quarters of a second."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.hybrid = Hybrid(OPTIONS, self.now)

    def mode(self) -> Mode:
        return self.hybrid.mode

    def diverge(self, seconds: float, per_s: int, reason: Reason | None = Reason.PAYLOAD) -> bool:
        """Let checkpoints be made evenly; return whether Remus is wanted at the end or before."""
        for _ in range(round(seconds * per_s)):
            if self.hybrid.committed(reason, self.now) is Mode.REMUS:
                return True
            self.now += 1 / per_s
        return self.hybrid.on_deadline(self.now) is Mode.REMUS

    def fall_back(self) -> None:
        """Diverge until Remus is wanted, and switch."""
        assert self.diverge(3.0, 4)
        self.hybrid.switched(self.now)

    def wait(self) -> Mode | None:
        deadline = self.hybrid.next_deadline()
        assert deadline is not None
        self.now = deadline
        return self.hybrid.on_deadline(self.now)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"fall_back_per_s": 0.0}, "fall_back_per_s 0.0"),
        ({"retry_max_s": 1.0}, "want at least retry_after_s, 600.0"),
        ({"settled_after_s": 30.0}, "or no trial ever fails"),
    ],
)
def test_times_that_make_no_sense_together_are_refused(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        HybridOptions(**wrong)


def test_checkpoints_that_come_too_fast_for_long_enough_lead_to_remus() -> None:
    guest = Guest()
    guest.fall_back()
    assert guest.hybrid.mode is Mode.REMUS
    assert guest.hybrid.switches == {Mode.REMUS: 1}
    assert guest.now == 1003.0


def test_a_burst_is_borne() -> None:
    guest = Guest()
    assert not guest.diverge(2.0, 4)
    assert not guest.diverge(1.0, 2), "a second that is not bad begins the count anew"
    assert not guest.diverge(2.0, 4)
    guest.now += 1.5
    assert guest.hybrid.on_deadline(guest.now) is None
    assert guest.hybrid.bad_s == 0


def test_a_burst_of_any_size_in_one_second_is_one_bad_second() -> None:
    guest = Guest()
    assert not guest.diverge(1.0, 64)
    assert guest.hybrid.bad_s == 1


@pytest.mark.parametrize("reason", [None, Reason.PERIODIC, Reason.OPERATOR])
def test_checkpoints_that_no_divergence_caused_do_not_count(reason: Reason | None) -> None:
    assert not Guest().diverge(60.0, 16, reason)


def test_colo_is_tried_again_and_each_failed_trial_doubles_the_wait() -> None:
    guest = Guest()
    waits = []
    for _ in range(4):
        guest.fall_back()
        begin = guest.now
        assert guest.wait() is Mode.COLO
        waits.append(guest.now - begin)
        guest.hybrid.switched(guest.now)
    assert waits == [100.0, 200.0, 300.0, 300.0]
    assert guest.hybrid.switches == {Mode.REMUS: 4, Mode.COLO: 4}


def test_a_stay_that_lasted_lets_the_wait_begin_anew() -> None:
    guest = Guest()
    for _ in range(2):
        guest.fall_back()
        guest.wait()
        guest.hybrid.switched(guest.now)
    assert guest.hybrid.retry_s == 200.0
    guest.now += 50.0
    assert guest.hybrid.on_deadline(guest.now) is None
    guest.fall_back()
    assert guest.hybrid.retry_s == 100.0


def test_while_a_switch_is_made_no_other_is_wanted() -> None:
    guest = Guest()
    guest.diverge(3.0, 4)
    assert guest.hybrid.wanted is Mode.REMUS
    assert guest.hybrid.next_deadline() is None
    assert not guest.diverge(60.0, 16)


def test_a_switch_that_failed_is_wanted_again_only_when_its_reason_holds_as_long_again() -> None:
    guest = Guest()
    guest.diverge(3.0, 4)
    guest.hybrid.switch_failed(guest.now)
    assert guest.mode() is Mode.COLO
    assert guest.hybrid.failed == {Mode.REMUS: 1}
    assert not guest.diverge(2.0, 4)
    assert guest.diverge(1.0, 4)
    guest.hybrid.switched(guest.now)
    assert guest.wait() is Mode.COLO
    guest.hybrid.switch_failed(guest.now)
    assert guest.mode() is Mode.REMUS
    assert guest.hybrid.next_deadline() == guest.now + 200.0
