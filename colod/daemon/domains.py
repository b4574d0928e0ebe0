"""One listing of Xen's domains, shared by all protections of this host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from colod.errors import GuestRenamed
from colod.failover.view import Copy
from colod.model import GuestName
from colod.toolstack.port import ENDED, Domain, DomainState, Toolstack

DOWN: Final = ENDED | {DomainState.DYING}
"""What a domain does that will never run again."""


class Domains:
    """Lists domains at most once per `max_age_s`, unless something was changed since."""

    def __init__(self, toolstack: Toolstack, *, max_age_s: float = 1.0) -> None:
        """Ask `toolstack`."""
        self._toolstack = toolstack
        self._max_age_s = max_age_s
        self._lock = asyncio.Lock()
        self._listed: Mapping[str, Domain] = {}
        self._asked_at = float("-inf")

    async def by_name(self, *, since: float = float("-inf")) -> Mapping[str, Domain]:
        """Return the domains as they were at `since` or later.

        Args:
            since: Monotonic time; a listing that was asked for before it is too old.

        Raises:
            ToolstackError: If xl does not answer.
        """
        async with self._lock:
            now = time.monotonic()
            if self._asked_at < max(since, now - self._max_age_s):
                self._listed = {each.name: each for each in await self._toolstack.domains()}
                self._asked_at = now
            return self._listed


class SentName:
    """Notices that somebody has renamed a guest that is replicated from this host."""

    def __init__(self, guest: GuestName) -> None:
        """Know of no domain yet."""
        self._guest = guest
        self._domid: int | None = None

    def check(self, domains: Mapping[str, Domain], *, is_sent: bool, is_owner: bool) -> None:
        """Refuse to take the guest for gone while its domain lives under another name.

        Args:
            domains: The domains of this host, by name.
            is_sent: Whether the domain of the guest's name is being replicated from here.
            is_owner: Whether this host owns the guest, as far as it knows. Where it does not, a
                copy may be renamed: that is how a person puts one out of the way.

        Raises:
            GuestRenamed: If it is.
        """
        if self._guest in domains:
            if is_sent:
                self._domid = domains[self._guest].domid
            return
        for each in domains.values() if is_owner else ():
            # Names of colod and xl begin so; of a domain without a name xl shows `(null)`.
            is_by_rule = each.name.startswith((f"{self._guest}--", "("))
            if each.domid == self._domid and each.state is not DomainState.DYING and not is_by_rule:
                raise GuestRenamed(self._guest, each.name)


def copy_of(domain: Domain | None) -> Copy:
    """Return what a domain is doing, for decisions."""
    if domain is None:
        return Copy.ABSENT
    if domain.state in DOWN:
        return Copy.DOWN
    if domain.paused:
        return Copy.PAUSED
    return Copy.SUSPENDED if domain.state is DomainState.SUSPENDED else Copy.RUNNING
