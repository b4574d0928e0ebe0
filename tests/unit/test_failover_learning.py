"""What a confirmed record changes in a journal, and what it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colod.failover.learning import contradicts, join, learn, unlearn
from colod.failover.record import OwnershipRecord, force, hand_back
from colod.failover.view import FenceWord, Journal, Pending, Wanted
from colod.model import Disks, Generation, PairingId, Role
from tests.unit.failover_transcripts.situation import (
    ALPHA,
    BETA,
    FIRST,
    GIVEN,
    LATER,
    PAIRED,
    TAKEN,
    TERMS,
    THEIRS,
)

ON_BETA = Journal(protection=TERMS, host=BETA, role=Role.SECONDARY, record=PAIRED, revision=2)
ON_ALPHA = replace(ON_BETA, host=ALPHA, role=Role.PRIMARY)
DELETES = Pending(new=None, record=LATER, revision=3)
GOES_ALONE = Pending(new=LATER, record=PAIRED, revision=2)


def test_a_new_grant_forgets_that_the_copy_was_started_under_an_older_one() -> None:
    learned = learn(replace(ON_BETA, started=True), TAKEN, 3)
    assert (learned.record, learned.revision, learned.started) == (TAKEN, 3, False)


def test_an_operators_force_does_not_outlive_the_grant_that_it_was_given_on() -> None:
    """It would take the guest over from a host that has long come back."""
    assert learn(replace(ON_BETA, force_reason="alpha burns"), LATER, 3).force_reason == ""


def test_an_operators_force_holds_while_the_grant_is_the_same() -> None:
    forced = replace(ON_BETA, force_reason="alpha burns")
    assert learn(forced, PAIRED, 3).force_reason == "alpha burns"
    assert learn(replace(forced, record=None), LATER, 3).force_reason == "alpha burns"


WORD = FenceWord(generation=TAKEN.generation, reason="pulled its plug", operator="jo")
ON_WAY = replace(ON_BETA, record=TAKEN, revision=3, fence_word=WORD)


def test_a_word_that_a_host_is_off_holds_while_its_takeover_is_under_way() -> None:
    assert learn(ON_WAY, TAKEN, 4).fence_word == WORD
    assert ON_WAY.valid_fence_word == WORD


@pytest.mark.parametrize(
    "record",
    [
        THEIRS,
        hand_back(TAKEN, attempt="x"),
        force(TAKEN, ALPHA, attempt="x", reason="I am at alpha"),
    ],
    ids=["done", "handed back", "taken back by force"],
)
def test_a_word_that_a_host_is_off_ends_with_its_takeover(record: OwnershipRecord) -> None:
    """The host may be on again when the next one comes."""
    assert learn(ON_WAY, record, 4).fence_word is None


def test_a_word_that_a_host_is_off_does_not_outlive_the_pairing_or_the_protection() -> None:
    assert join(ON_WAY, TERMS, PairingId("c" * 32), Generation(2)).fence_word is None
    assert unlearn(replace(ON_WAY, wanted=Wanted.UNPROTECTED), 5).fence_word is None


def test_a_word_counts_for_no_other_generation_whatever_became_of_it() -> None:
    later = replace(TAKEN, generation=Generation(TAKEN.generation + 4))
    assert replace(ON_WAY, record=later).valid_fence_word is None
    assert replace(ON_WAY, record=None).valid_fence_word is None


def test_an_activation_is_no_new_grant() -> None:
    journal = replace(ON_BETA, record=TAKEN, started=True, may_hand_back=True)
    learned = learn(journal, THEIRS, 4)
    assert (learned.started, learned.may_hand_back) == (True, True)


def test_what_is_learned_settles_what_was_pending() -> None:
    assert learn(replace(ON_ALPHA, pending=GOES_ALONE), TAKEN, 3).pending is None


def test_a_winner_straight_out_of_a_pair_may_hand_back() -> None:
    assert learn(ON_BETA, TAKEN, 3).may_hand_back


@pytest.mark.parametrize(
    ("journal", "record"),
    [
        (ON_ALPHA, TAKEN),
        (ON_BETA, LATER),
        (ON_BETA, THEIRS),
        (replace(ON_BETA, record=FIRST), TAKEN),
        (replace(ON_BETA, record=None), TAKEN),
        (replace(ON_ALPHA, record=TAKEN), GIVEN),
    ],
)
def test_nobody_else_may(journal: Journal, record: object) -> None:
    assert isinstance(record, type(TAKEN))
    assert not learn(journal, record, 3).may_hand_back


@pytest.mark.parametrize(
    ("record", "known"),
    [(FIRST, PAIRED), (PAIRED, LATER), (LATER, TAKEN), (TAKEN, LATER)],
)
def test_older_and_conflicting_records_contradict_what_is_known(
    record: object, known: object
) -> None:
    assert isinstance(record, type(TAKEN))
    assert isinstance(known, type(TAKEN))
    assert contradicts(record, known)
    journal = replace(ON_ALPHA, record=known, pending=GOES_ALONE)
    assert learn(journal, record, 9) == replace(journal, pending=None)


def test_newer_records_and_activations_do_not() -> None:
    assert not contradicts(PAIRED, FIRST)
    assert not contradicts(THEIRS, TAKEN)
    assert not contradicts(PAIRED, PAIRED)


def test_a_host_that_deleted_the_record_forgets_it() -> None:
    journal = replace(ON_ALPHA, record=LATER, pending=DELETES)
    assert unlearn(journal, 5) == replace(journal, record=None, revision=5, pending=None)


def test_so_does_one_whose_operator_wanted_it_gone() -> None:
    journal = replace(ON_ALPHA, pending=GOES_ALONE, wanted=Wanted.UNPROTECTED)
    assert unlearn(journal, 5).record is None


def test_a_host_whose_write_met_a_deleted_record_still_knows_that_there_was_one() -> None:
    journal = replace(ON_ALPHA, pending=GOES_ALONE)
    assert unlearn(journal, 5) == replace(journal, pending=None)


def test_a_new_pairing_brings_the_owners_terms_and_none_of_what_was_said_of_the_old_one() -> None:
    """With the old terms the other host would not be fenced; an old force would act on its own."""
    terms = replace(TERMS, disks=Disks.SHARED)
    old = replace(ON_BETA, force_reason="alpha burns", held=True)
    joined = join(old, terms, PairingId("c" * 32), Generation(2))
    assert (joined.protection, joined.pairing, joined.pairing_generation) == (terms, "c" * 32, 2)
    assert (joined.force_reason, joined.held) == ("", False)
