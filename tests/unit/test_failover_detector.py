"""Independent signals tell whether the other host gives signs of life."""

from __future__ import annotations

import pytest

from colod.failover.detector import SESSION, Detector
from colod.failover.view import Contact

FIRST, SECOND = "192.0.2.2:7411", "198.51.100.2:7411"


@pytest.fixture
def detector() -> Detector:
    return Detector(silent_after_s=3.0, suspect_after_s=10.0, carrier_grace_s=4.0, now=100.0)


def test_a_daemon_that_has_just_begun_gives_its_peer_the_whole_time(detector: Detector) -> None:
    detector.expect(FIRST)
    assert detector.contact(100.0) is Contact.SILENT
    assert detector.contact(110.0) is Contact.SILENT
    assert detector.contact(110.1) is Contact.LOST


def test_without_any_signal_the_peer_has_the_whole_time_too(detector: Detector) -> None:
    assert detector.contact(110.0) is Contact.SILENT
    assert detector.contact(110.1) is Contact.LOST


def test_a_heartbeat_is_contact_until_it_is_too_old(detector: Detector) -> None:
    detector.heard(FIRST, 105.0)
    assert detector.contact(107.9) is Contact.UP
    assert detector.contact(108.0) is Contact.SILENT
    assert detector.contact(115.0) is Contact.SILENT
    assert detector.contact(115.1) is Contact.LOST


def test_a_host_whose_session_speaks_is_silent_and_not_lost(detector: Detector) -> None:
    detector.heard(FIRST, 101.0)
    detector.heard(SESSION, 150.0)
    assert detector.contact(150.0) is Contact.SILENT
    assert detector.contact(155.0) is Contact.SILENT
    assert detector.contact(160.1) is Contact.LOST


def test_a_host_that_is_heard_over_a_second_network_is_up(detector: Detector) -> None:
    detector.expect(FIRST)
    detector.heard(SECOND, 150.0)
    assert detector.contact(152.0) is Contact.UP
    assert [sign.is_silent for sign in detector.signs(152.0)] == [True, False]


def test_what_was_heard_earlier_does_not_undo_what_was_heard_later(detector: Detector) -> None:
    detector.heard(SESSION, 150.0)
    detector.heard(SESSION, 120.0)
    detector.heard(FIRST, 140.0)
    detector.heard(FIRST, 130.0)
    assert detector.contact(142.0) is Contact.UP
    assert detector.contact(159.0) is Contact.SILENT


def test_a_host_that_speaks_again_is_found_again(detector: Detector) -> None:
    assert detector.contact(200.0) is Contact.LOST
    detector.heard(FIRST, 201.0)
    assert detector.contact(201.0) is Contact.UP


def test_the_next_deadline_is_when_contact_changes(detector: Detector) -> None:
    detector.heard(FIRST, 105.0)
    assert detector.next_deadline(106.0) == 108.0
    assert detector.next_deadline(109.0) == 115.0
    assert detector.next_deadline(116.0) is None


def test_without_a_link_silence_counts_after_the_grace(detector: Detector) -> None:
    detector.heard(FIRST, 105.0)
    detector.carrier(FIRST, 105.5)
    assert detector.next_deadline(108.5) == 109.5
    assert detector.contact(109.5) is Contact.SILENT
    assert detector.contact(109.6) is Contact.LOST


def test_a_link_that_is_lost_late_in_a_silence_does_not_prolong_it(detector: Detector) -> None:
    detector.heard(FIRST, 105.0)
    detector.carrier(FIRST, 114.0)
    assert detector.contact(115.1) is Contact.LOST


def test_a_signal_that_still_has_its_link_keeps_the_peer_from_being_suspected(
    detector: Detector,
) -> None:
    detector.heard(FIRST, 105.0)
    detector.heard(SESSION, 105.0)
    detector.carrier(FIRST, 105.0)
    assert detector.contact(115.0) is Contact.SILENT
    assert detector.contact(115.1) is Contact.LOST


def test_what_is_heard_without_a_link_is_a_sign_of_life(detector: Detector) -> None:
    detector.carrier(FIRST, 105.0)
    detector.heard(FIRST, 108.0)
    assert detector.contact(112.0) is Contact.SILENT
    assert detector.contact(112.1) is Contact.LOST


def test_a_link_that_comes_back_within_the_grace_has_changed_nothing(detector: Detector) -> None:
    detector.heard(FIRST, 105.0)
    detector.carrier(FIRST, 105.0)
    assert detector.contact(108.9) is Contact.SILENT
    detector.carrier(FIRST, None)
    assert detector.contact(115.0) is Contact.SILENT
    detector.carrier(FIRST, 112.0)
    assert detector.contact(115.0) is Contact.SILENT


def test_a_peer_that_was_suspected_for_its_link_is_trusted_again_with_it(
    detector: Detector,
) -> None:
    detector.heard(FIRST, 105.0)
    detector.carrier(FIRST, 105.0)
    assert detector.contact(110.0) is Contact.LOST
    detector.carrier(FIRST, None)
    assert detector.contact(110.0) is Contact.SILENT


def test_a_sign_says_how_old_it_is_and_what_it_lacks(detector: Detector) -> None:
    detector.expect(FIRST)
    detector.heard(SESSION, 105.0)
    detector.carrier(SESSION, 106.0)
    never, session = detector.signs(108.0)
    assert (never.name, never.heard_age_s, never.no_carrier_s) == (FIRST, None, None)
    assert (session.name, session.heard_age_s, session.no_carrier_s) == (SESSION, 3.0, 2.0)
    assert not session.is_silent
