"""Two independent signals tell whether the other host gives signs of life."""

from __future__ import annotations

import pytest

from colod.failover.detector import Detector
from colod.failover.view import Contact


@pytest.fixture
def detector() -> Detector:
    return Detector(silent_after_s=3.0, suspect_after_s=10.0, now=100.0)


def test_a_daemon_that_has_just_begun_gives_its_peer_the_whole_time(detector: Detector) -> None:
    assert detector.contact(100.0) is Contact.SILENT
    assert detector.contact(110.0) is Contact.SILENT
    assert detector.contact(110.1) is Contact.LOST


def test_a_heartbeat_is_contact_until_it_is_too_old(detector: Detector) -> None:
    detector.control_heard(105.0)
    assert detector.contact(107.9) is Contact.UP
    assert detector.contact(108.0) is Contact.SILENT
    assert detector.contact(115.0) is Contact.SILENT
    assert detector.contact(115.1) is Contact.LOST


def test_a_host_whose_session_speaks_is_silent_and_not_lost(detector: Detector) -> None:
    detector.control_heard(101.0)
    detector.data_heard(150.0)
    assert detector.contact(155.0) is Contact.SILENT
    assert detector.contact(160.1) is Contact.LOST


def test_what_was_heard_earlier_does_not_undo_what_was_heard_later(detector: Detector) -> None:
    detector.data_heard(150.0)
    detector.data_heard(120.0)
    detector.control_heard(140.0)
    detector.control_heard(130.0)
    assert detector.contact(142.0) is Contact.UP
    assert detector.contact(159.0) is Contact.SILENT


def test_a_host_that_speaks_again_is_found_again(detector: Detector) -> None:
    assert detector.contact(200.0) is Contact.LOST
    detector.control_heard(201.0)
    assert detector.contact(201.0) is Contact.UP


def test_the_next_deadline_is_when_contact_changes(detector: Detector) -> None:
    detector.control_heard(105.0)
    assert detector.next_deadline(106.0) == 108.0
    assert detector.next_deadline(109.0) == 115.0
    assert detector.next_deadline(116.0) is None
