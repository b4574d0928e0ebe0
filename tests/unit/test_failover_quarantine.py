"""A copy that lost its guest goes only where the owner is known to have the guest now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from colod.failover import record as records
from colod.failover.quarantine import MAY_GO, refusal
from colod.failover.view import Answer, Copy, Journal, Pending, View
from colod.model import (
    Disks,
    Epoch,
    Generation,
    GuestName,
    HostName,
    PairingId,
    Protection,
    Role,
    parse_quarantine_name,
    quarantine_name,
)

ALPHA, BETA = HostName("alpha"), HostName("beta")
GUEST = GuestName("g1")
TERMS = Protection(guest=GUEST, primary=ALPHA, secondary=BETA, disks=Disks.NONE)
PAIRING = PairingId("f" * 32)
PAIRED = records.pair(records.create(ALPHA, BETA, attempt="a"), PAIRING, Epoch(2), attempt="b")
TAKEN = records.take_over(PAIRED, PAIRING, attempt="c")
BETAS = records.activate(TAKEN, attempt="d")
ALPHAS = records.activate(
    records.hand_over(records.pair(BETAS, PAIRING, Epoch(2), attempt="e"), attempt="f"), attempt="g"
)
LOST_UNDER = TAKEN.generation


def view_of(record: records.OwnershipRecord | None, **changes: Any) -> View:
    """Return what alpha knows, with the witness's answer."""
    role = Role.PRIMARY if record is not None and record.owner == ALPHA else Role.SECONDARY
    journal = Journal(protection=TERMS, host=ALPHA, role=role, record=record, revision=1)
    view = View(journal=journal, boot="b", new_id="", answer=Answer.READ, record=record, revision=1)
    return replace(view, **changes)


def test_it_goes_once_the_other_host_says_that_it_has_the_guest() -> None:
    assert refusal(view_of(BETAS), LOST_UNDER, peer_has_guest=True) is MAY_GO


def test_it_goes_once_this_host_has_the_guest_again() -> None:
    mine = view_of(ALPHAS, guest=Copy.RUNNING)
    assert refusal(mine, LOST_UNDER, peer_has_guest=False) is MAY_GO


def pending(view: View) -> View:
    """Return the view with a write whose outcome is not known."""
    write = Pending(new=None, record=view.journal.record, revision=1)
    return replace(view, journal=replace(view.journal, pending=write))


@pytest.mark.parametrize(
    ("view", "generation", "peer_has_guest", "why"),
    [
        (view_of(BETAS), LOST_UNDER, False, "beta does not say now that it has g1"),
        (view_of(TAKEN), LOST_UNDER, True, "beta owns g1 and was not seen running it"),
        (view_of(ALPHAS), LOST_UNDER, True, "g1 is not on this host, which owns it"),
        (view_of(ALPHAS, guest=Copy.DOWN), LOST_UNDER, True, "g1 is not on this host"),
        (view_of(BETAS, answer=Answer.UNREACHABLE), LOST_UNDER, True, "the witness does not"),
        (view_of(BETAS, answer=Answer.STALE), LOST_UNDER, True, "the witness does not answer"),
        (replace(view_of(BETAS), record=None), LOST_UNDER, True, "not settled who owns"),
        (replace(view_of(BETAS), record=ALPHAS), LOST_UNDER, True, "not settled who owns"),
        (view_of(None), LOST_UNDER, True, "not settled who owns"),
        (pending(view_of(BETAS)), LOST_UNDER, True, "not settled who owns"),
        (view_of(BETAS), LOST_UNDER + 9, True, "the witness knows generation 3 of g1"),
    ],
)
def test_it_stays_wherever_it_may_be_the_last_copy(
    view: View, generation: int, peer_has_guest: bool, why: str
) -> None:
    found = refusal(view, Generation(generation), peer_has_guest=peer_has_guest)
    assert why in found.why
    assert found.advice


def test_a_copys_name_tells_the_guest_and_the_generation() -> None:
    name = quarantine_name(GUEST, Generation(3))
    assert parse_quarantine_name(name) == (GUEST, 3)
    twice = quarantine_name(GuestName(name), Generation(4))
    assert parse_quarantine_name(twice) == (name, 4)
    for other in (
        "g1",
        "g1--quarantine-",
        "g1--quarantine-x",
        "--quarantine-3",
        "g1--quarantine-0",
    ):
        assert parse_quarantine_name(other) is None
