"""The contract of a fencer: it proves that a host can no longer run a guest or write to storage.

A kind of fencer is a class found by the entry-point group `colod.fencers`. What it cannot prove it
answers `Unconfirmed`; no caller may take that for success, and time that passed is no proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from colod.model import HostName


@dataclass(frozen=True, slots=True)
class Fenced:
    """The host is certainly off, or certainly cut off from all shared storage.

    Attributes:
        evidence: What proves it, for the journal and the log.
    """

    evidence: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The host was certainly not fenced."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Nothing is known: the host may be fenced, or not, or may yet be.

    Attributes:
        reason: Why, for people.
        may_change: Whether another answer is to be expected if it is asked again later.
    """

    reason: str
    may_change: bool = True


Verdict = Fenced | Failed | Unconfirmed


class Fencer(Protocol):
    """Cuts a host off, or learns that it is."""

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the fencer from its configuration table.

        Args:
            options: The table `[fencing]` less its `kind`.
            host: This host, which never fences itself.

        Raises:
            ConfigError: With every problem of `options`.
        """
        ...

    async def fence(self, host: HostName) -> Verdict:
        """Fence `host` and return what became of it; never raises for what a host or agent does.

        To ask again is safe. Cancelled, its outcome is unknown.
        """
        ...

    async def close(self) -> None:
        """Let go of what is held."""
        ...
