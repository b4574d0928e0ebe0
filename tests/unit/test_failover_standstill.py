"""For how long a guest stands still, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colod.failover import record as records
from colod.failover.effects import State
from colod.failover.standstill import Checkpoint, Standstill, is_at_home, why
from colod.failover.view import Copy, Journal, Link, View
from colod.model import Disks, Epoch, GuestName, HostName, PairingId, Protection, Role

ALPHA, BETA = HostName("alpha"), HostName("beta")
TERMS = Protection(guest=GuestName("g1"), primary=ALPHA, secondary=BETA, disks=Disks.NONE)
OWNED = records.create(ALPHA, BETA, attempt="a")
PAIRED = records.pair(OWNED, PairingId("f" * 32), Epoch(2), attempt="b")
LOST = records.take_over(PAIRED, PairingId("f" * 32), attempt="c")
JOURNAL = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY, record=PAIRED)


def view(guest: Copy, **facts: object) -> View:
    seen = View(journal=JOURNAL, boot="b", new_id="", guest=guest, link=Link.FOLLOWING)
    return replace(seen, **facts)  # type: ignore[arg-type]


def epoch(sealed: int, suspended_s: float | None = None, waits_for: str = "") -> Checkpoint:
    return Checkpoint(
        sealed_epoch=sealed,
        acked_epoch=sealed - 2,
        suspended_s=suspended_s,
        waits_for=waits_for,
        last_ack_age_s=4.0,
        staging_bytes=64 << 20,
    )


def test_a_guest_that_is_found_suspended_in_one_checkpoint_after_another_does_not_stand_still() -> (
    None
):
    standstill = Standstill()
    for second in range(10):
        standstill.look(view(Copy.SUSPENDED), epoch(10 + second), float(second))
        assert standstill.lasts_s == 0.0


def test_a_guest_that_is_found_suspended_in_the_same_checkpoint_stands_still() -> None:
    standstill = Standstill()
    for second in range(10):
        standstill.look(view(Copy.SUSPENDED), epoch(10), 100.0 + second)
    assert standstill.lasts_s == 9.0
    standstill.look(view(Copy.RUNNING), epoch(10), 110.0)
    assert standstill.lasts_s == 0.0


def test_a_paused_guest_stands_still_although_its_last_epoch_is_completed_meanwhile() -> None:
    standstill = Standstill()
    standstill.look(view(Copy.PAUSED), epoch(10), 100.0)
    standstill.look(view(Copy.PAUSED), epoch(11), 103.0)
    assert standstill.lasts_s == 3.0


def test_what_the_session_says_of_its_checkpoint_counts_at_once() -> None:
    standstill = Standstill()
    standstill.look(view(Copy.RUNNING), epoch(10), 100.0)
    standstill.told(epoch(10, suspended_s=7.0))
    assert standstill.lasts_s == 7.0
    standstill.told(epoch(11))
    assert standstill.lasts_s == 0.0


@pytest.mark.parametrize("guest", [Copy.ABSENT, Copy.DOWN])
def test_of_a_guest_that_is_not_there_nothing_is_known(guest: Copy) -> None:
    standstill = Standstill()
    standstill.look(view(guest), epoch(10, suspended_s=9.0), 100.0)
    assert standstill.lasts_s is None


@pytest.mark.parametrize(
    ("journal", "at_home"),
    [
        (JOURNAL, True),
        (replace(JOURNAL, record=None), True),
        (replace(JOURNAL, record=LOST), False),
        (replace(JOURNAL, host=BETA, role=Role.SECONDARY), False),
        (replace(JOURNAL, host=BETA, role=Role.SECONDARY, record=None), False),
        (replace(JOURNAL, host=BETA, role=Role.SECONDARY, record=LOST), True),
    ],
)
def test_a_copy_stands_still_only_where_the_guest_should_run(
    journal: Journal, at_home: bool
) -> None:
    seen = view(Copy.PAUSED, journal=journal)
    assert is_at_home(seen) is at_home
    standstill = Standstill()
    standstill.look(seen, epoch(10), 100.0)
    assert (standstill.lasts_s is not None) is at_home


@pytest.mark.parametrize(
    ("waits_for", "words"),
    [
        ("link", "the 64 MiB of session.staging_mib are full"),
        ("link", "2 whole epochs are not acknowledged, the last acknowledgement is 4.0 s old"),
        ("gate", "the output gate has not set its barrier"),
        ("switchover", "kept open for a switchover"),
        ("xl", "xl or its save helper stands still"),
        ("", "nobody knows"),
        ("what a later version says", "nobody knows"),
    ],
)
def test_the_cause_is_what_the_session_waits_for(waits_for: str, words: str) -> None:
    checkpoint = epoch(10, 9.0, waits_for)
    assert words in why(view(Copy.SUSPENDED), checkpoint, State.PROTECTED, "")


def test_the_cause_is_the_decision_where_colod_holds_the_guest() -> None:
    held = view(Copy.PAUSED, journal=replace(JOURNAL, held=True), link=Link.BROKEN)
    said = why(held, epoch(10), State.MANUAL_HOLD, "the witness does not answer")
    assert said == "colod holds it, MANUAL_HOLD: the witness does not answer"


def test_a_pause_that_is_not_colods_is_told_from_one_that_is() -> None:
    assert "not by colod" in why(view(Copy.PAUSED), epoch(10), State.PROTECTED, "")
    assert "colod holds it" in why(view(Copy.PAUSED), epoch(10), State.FENCING, "")


def test_a_checkpoint_whose_session_has_ended_did_not_end() -> None:
    broken = view(Copy.SUSPENDED, link=Link.BROKEN, link_error="xl has ended")
    assert why(broken, epoch(10), State.ARBITRATING, "asks").startswith(
        "its checkpoint did not end (xl has ended), ARBITRATING: asks"
    )
