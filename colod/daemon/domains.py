"""One listing of Xen's domains, shared by all protections of this host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from colod.failover.view import Copy
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


def copy_of(domain: Domain | None) -> Copy:
    """Return what a domain is doing, for decisions."""
    if domain is None:
        return Copy.ABSENT
    if domain.state in DOWN:
        return Copy.DOWN
    if domain.paused:
        return Copy.PAUSED
    return Copy.SUSPENDED if domain.state is DomainState.SUSPENDED else Copy.RUNNING
