"""The fencer `none`: for guests whose storage the other host cannot write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from colod.fencing.base import Unconfirmed, Verdict
from colod.fencing.options import NoOptions
from colod.model import HostName
from colod.options import parse_options


class NoFencer:
    """Fences nobody, and never says that it did.

    A guest without shared storage needs no fence: its ownership alone decides, and nobody asks
    this fencer. One with shared storage is refused where this is the fencer; should it be asked
    nevertheless, the answer keeps the promotion waiting.
    """

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the fencer; its table holds nothing."""
        parse_options(NoOptions, options, "fencing")
        del host
        return cls()

    async def fence(self, host: HostName) -> Verdict:
        """Answer that nothing is known of `host`."""
        return Unconfirmed(
            f"no fencing is configured: whether {host} still writes is not known", may_change=False
        )

    async def close(self) -> None:
        """Nothing is held."""
