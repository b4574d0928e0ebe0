"""colod.witness.content: what a witness may hold, whoever wrote it there."""

from __future__ import annotations

import json

import pytest

from colod.errors import WitnessError
from colod.failover import record as records
from colod.model import Generation, HostName
from colod.witness.base import Stored
from colod.witness.content import pack, unpack

ALPHA, BETA = HostName("alpha"), HostName("beta")
HIGHEST = 2**62 - 2


def mark(generation: object) -> bytes:
    fields = {"deleted": True, "format": 1, "last_generation": generation}
    return json.dumps(fields, sort_keys=True).encode()


@pytest.mark.parametrize("generation", [0, 1, HIGHEST])
def test_after_each_mark_that_is_read_a_protection_can_begin_anew(generation: int) -> None:
    stored = unpack(mark(generation), 3)
    assert stored == Stored(None, 3, Generation(generation))
    assert pack(stored) == mark(generation)
    after = stored.last_generation
    new = records.create(ALPHA, BETA, attempt="a", after=after)
    records.check_transition(None, new, by=ALPHA, after=after)
    assert records.decode(records.encode(new)) == new


@pytest.mark.parametrize("generation", [-1, HIGHEST + 1, 10**30, True, 1.0, "1", None])
def test_a_mark_after_which_none_could_begin_is_refused(generation: object) -> None:
    """Taken for one, it would end the daemon as a defect at the next `protect`."""
    with pytest.raises(WitnessError):
        unpack(mark(generation), 3)


@pytest.mark.parametrize("generation", [-1, HIGHEST + 1])
def test_no_mark_is_written_that_could_not_be_read(generation: int) -> None:
    with pytest.raises(WitnessError):
        pack(Stored(None, 3, Generation(generation)))
