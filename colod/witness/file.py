"""The witness `file`: records in a directory on one file system that both daemons share.

Meant for one machine (demo, tests, the nested lab). Two hosts may use it only over a file system
whose `flock` excludes across hosts and whose `rename` is atomic; it is then as available, and as
safe, as that file system. A hung or full one answers Unknown, never Lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from colod.errors import WitnessUnreachable
from colod.failover.record import OwnershipRecord, check_transition
from colod.model import GuestName, HostName
from colod.options import parse_options
from colod.witness.base import Outcome, Stored, Unknown
from colod.witness.blocking import BlockingCalls, TooManyHanging
from colod.witness.recordfile import RecordFile

_Result = TypeVar("_Result")


class FileOptions(BaseModel):
    """The table `[witness]` of kind `file`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path = Field(
        description="Absolute path of an existing directory, best below a mount point and not the "
        "mount point itself: when it is not mounted, records must be unreachable, not absent."
    )
    timeout_s: float = Field(
        default=2.0,
        ge=0.05,
        le=60,
        description="Longest wait for lock and disk. Too short: a busy disk looks like a lost "
        "witness. Too long: a decision waits that long before it is known to be open.",
    )


class FileWitness:
    """Keeps each record in a file of its own, replaced whole under a lock."""

    def __init__(self, directory: Path, *, host: HostName, timeout_s: float = 2.0) -> None:
        """Keep records in `directory`, in the name of `host`, waiting `timeout_s` at most."""
        self._directory = directory
        self._host = host
        self._timeout_s = timeout_s
        self._calls = BlockingCalls()

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the witness from its table; see `FileOptions`."""
        parsed = parse_options(FileOptions, options, "witness")
        return cls(parsed.directory, host=host, timeout_s=parsed.timeout_s)

    async def read(self, guest: GuestName) -> Stored:
        """Return what is held for `guest`; see `Witness.read`."""
        try:
            return await self._run(
                partial(RecordFile(self._directory, guest).read, self._timeout_s)
            )
        except (OSError, TooManyHanging) as error:
            raise WitnessUnreachable(f"{self._directory}: {str(error) or 'timed out'}") from error

    async def compare_and_swap(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        """Replace `expected` by `new`; see `Witness.compare_and_swap`."""
        check_transition(expected.record, new, by=self._host, after=expected.last_generation)
        file = RecordFile(self._directory, guest)
        try:
            return await self._run(partial(file.swap, expected, new, self._timeout_s))
        except (OSError, TooManyHanging) as error:
            return Unknown(f"{self._directory}: {str(error) or 'timed out'}")

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _run(self, call: Callable[[], _Result]) -> _Result:
        # The call stops by itself at its deadline; the margin lets its own message through.
        return await self._calls.run(call, timeout_s=self._timeout_s * 1.25)
