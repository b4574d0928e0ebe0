"""Which host owned a guest before, by the history of its present owner."""

from __future__ import annotations

import pytest

from colod.cli.failback import taken_over_at
from colod.v1.admin_pb2 import HistoryEntry

PROTECTED = "PAIRING SYNCING PROTECTED"
TAKEN = "SYNCING PROTECTED DEGRADED ARBITRATING FENCING PROMOTING ALONE"
LOST = "SWITCHOVER LOST_RACE QUARANTINED STOPPED"


def former_at(states: str) -> int | None:
    """Return which of the states, counted from 1, is that in which the guest was taken over."""
    found = taken_over_at(
        [HistoryEntry(unix_s=at, to_state=state) for at, state in enumerate(states.split(), 1)]
    )
    return None if found is None else int(found)


@pytest.mark.parametrize(
    ("states", "at"),
    [
        (TAKEN, 6),
        (f"{TAKEN} {PROTECTED}", 6),
        ("SYNCING PROTECTED PROMOTING ALONE", 3),
        ("SYNCING DEGRADED MANUAL_HOLD ARBITRATING PROMOTING MANUAL_HOLD PROMOTING ALONE", 5),
        ("STOPPED ARBITRATING PROMOTING ALONE", 3),
        ("PROMOTING ALONE", 1),
        # Given away, handed back without having run there: the takeover before that counts.
        (f"{TAKEN} {PROTECTED} ARBITRATING LOST_RACE PROMOTING ALONE", 6),
        (f"{TAKEN} ARBITRATING LOST_RACE MANUAL_HOLD LOST_RACE ARBITRATING PROMOTING ALONE", 6),
        # It has changed hands three times.
        (f"{PROTECTED} {LOST} SYNCING PROTECTED PROMOTING ALONE", 10),
    ],
)
def test_who_took_the_guest_over_has_a_former_owner(states: str, at: int) -> None:
    assert former_at(states) == at


@pytest.mark.parametrize(
    "states",
    [
        "",
        PROTECTED,
        f"{PROTECTED} ARBITRATING ALONE {PROTECTED}",
        f"{PROTECTED} ARBITRATING LOST_RACE PROMOTING ALONE",
        f"{PROTECTED} SWITCHOVER LOST_RACE MANUAL_HOLD LOST_RACE PROMOTING ALONE {PROTECTED}",
        # That protection has ended; this one was begun here.
        f"{TAKEN} STOPPED {PROTECTED}",
        f"{TAKEN} {LOST}",
    ],
)
def test_who_has_always_owned_the_guest_has_none(states: str) -> None:
    assert former_at(states) is None
