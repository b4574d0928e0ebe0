"""The fencer `manual`: nothing is switched off; a person makes sure of it, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from colod.fencing.base import Unconfirmed, Verdict
from colod.fencing.options import NoOptions
from colod.model import HostName
from colod.options import parse_options


class ManualFencer:
    """Proves nothing by itself: a takeover waits for an operator's word.

    The word is none of a fencer's business, whichever its kind: it is given for one takeover of one
    guest, and the daemon keeps it in its journal with the generation of that takeover
    (`colod.failover.view.FenceWord`). It is on disk before it counts, and ends with the takeover.
    """

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the fencer; its table holds nothing."""
        parse_options(NoOptions, options, "fencing")
        del host
        return cls()

    async def fence(self, host: HostName) -> Verdict:
        """Answer that only a person can know."""
        return Unconfirmed(f"only an operator can tell whether {host} is off", may_change=False)

    async def close(self) -> None:
        """Nothing is held."""
