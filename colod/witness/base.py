"""The contract of a witness: it keeps one ownership record per protection and compares and swaps.

A kind of witness is a class found by the entry-point group `colod.witnesses`; it is constructed by
`from_config` and used from one asyncio loop. Its implementation must call `check_transition` before
it writes and must never answer `Lost` for a write whose fate it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from colod.failover.record import OwnershipRecord
from colod.model import Generation, GuestName, HostName


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as the witness holds it.

    Attributes:
        record: The record, or None where the witness has none for the guest.
        revision: Position in the witness's own order of changes; grows with every change of this
            record, also over its deletion, and is 0 when the witness never had one.
        last_generation: Generation of the record that was deleted here, where `record` is None;
            the next one goes on counting from it (`create(after=...)`). 0 where none was: a host
            whose journal knows a record then sees that the witness lost it.
    """

    record: OwnershipRecord | None
    revision: int
    last_generation: Generation = Generation(0)


@dataclass(frozen=True, slots=True)
class Won:
    """The write took effect."""

    stored: Stored


@dataclass(frozen=True, slots=True)
class Lost:
    """The write is not in force and never will be: `stored`, with a newer revision, is."""

    stored: Stored


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing is known of the write: it may have happened, and it may still happen.

    Only reading back settles it: the attempt id confirms, only a newer revision denies.
    """

    reason: str


Outcome = Won | Lost | Unknown


class Witness(Protocol):
    """Keeper of the ownership records."""

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the witness from its configuration table.

        Args:
            options: The table `[witness]` less its `kind`.
            host: This host, in whose name every change is made.

        Raises:
            ConfigError: With every problem of `options`.
        """
        ...

    async def read(self, guest: GuestName) -> Stored:
        """Return what the witness holds for `guest`, as of now (linearizable).

        Raises:
            WitnessUnreachable: If it does not answer in time.
            WitnessError: If what it holds cannot be understood.
        """
        ...

    async def compare_and_swap(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        """Replace `expected` by `new` (None deletes) if nothing changed since it was read.

        If the task is cancelled, or the process dies, before this returns, the outcome is unknown.
        To send the very same change again is safe at any time (`colod.witness.settle`): whichever
        copy arrives first is the write, and every later one finds it in place and answers Won.

        Raises:
            IllegalTransition: If the rules do not allow the change; nothing was sent.
            WitnessError: If what the witness holds cannot be understood, or `new` could not be
                read back; nothing was written.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...
