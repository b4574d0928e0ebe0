"""The fencer `manual`: a person makes sure that the other host is off, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from colod.errors import FenceError
from colod.fencing.base import Fenced, Unconfirmed, Verdict
from colod.fencing.options import NoOptions
from colod.model import HostName
from colod.options import parse_options


@dataclass(frozen=True, slots=True)
class Confirmation:
    """An operator's word that a host is off, as the journal records it.

    Attributes:
        host: The host that is off.
        reason: How the operator knows.
        operator: Who said it.
    """

    host: HostName
    reason: str
    operator: str


class ManualFencer:
    """Answers Unconfirmed until a recorded confirmation is passed in, and then once Fenced.

    A confirmation counts for one fence: the host may be switched on again after it. It is kept in
    memory only; the caller has it in its journal, and passes it in again after a restart if it was
    not used yet.
    """

    def __init__(self, host: HostName) -> None:
        """Fence for `host`, which is never fenced itself."""
        self._own = host
        self._confirmed: dict[HostName, Confirmation] = {}

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the fencer; its table holds nothing."""
        parse_options(NoOptions, options, "fencing")
        return cls(host)

    def confirm(self, confirmation: Confirmation) -> None:
        """Take the operator's word. Journal it, with fsync, before this call.

        Raises:
            FenceError: If it names this host, or gives no reason or no name.
        """
        if confirmation.host == self._own:
            raise FenceError(f"{self._own} is this host: it runs, so it is not off")
        if not confirmation.reason.strip() or not confirmation.operator.strip():
            raise FenceError(f"a confirmation for {confirmation.host} needs a reason and a name")
        self._confirmed[confirmation.host] = confirmation

    async def fence(self, host: HostName) -> Verdict:
        """Return Fenced if an operator confirmed it since the last fence, else Unconfirmed."""
        confirmation = self._confirmed.pop(host, None)
        if confirmation is None:
            return Unconfirmed(
                f"make sure that {host} is off, then run: colodctl fence-confirm GUEST"
            )
        return Fenced(f"confirmed by {confirmation.operator}: {confirmation.reason}")

    async def close(self) -> None:
        """Nothing is held."""
