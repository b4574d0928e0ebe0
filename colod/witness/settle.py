"""Find out what became of a write whose outcome is unknown."""

from __future__ import annotations

from colod.errors import WitnessUnreachable
from colod.failover.record import OwnershipRecord
from colod.model import GuestName
from colod.witness.base import Outcome, Stored, Unknown, Witness


async def settle(
    witness: Witness, guest: GuestName, expected: Stored, new: OwnershipRecord | None
) -> Outcome:
    """Read back a write that ended Unknown, and send it again if it has not arrived.

    Sending it again is no second write: both copies are conditional on the same `expected`, so at
    most one of them can ever take effect, and both carry the same attempt id, so whichever lands is
    recognised as this write. A copy that arrives late finds a newer revision and does nothing.

    The caller passes exactly what it passed to `compare_and_swap`, attempt id included, and calls
    again while the answer is Unknown. The answer Unknown also stands for a witness that shows an
    *older* state than `expected` (restored from a backup): reading then shows a record older than
    the journal's, which is the caller's to hold for an operator.

    Returns:
        Won if the write is in force, Lost if another change is, else Unknown.

    Raises:
        IllegalTransition: As `compare_and_swap`.
        WitnessError: If what the witness holds cannot be understood.
    """
    try:
        # The failing compare reads in the same step, so this is both the reading back and the
        # sending again: its answer is Won by attempt id, or Lost by a newer revision.
        return await witness.compare_and_swap(guest, expected, new)
    except WitnessUnreachable as error:
        return Unknown(str(error))
