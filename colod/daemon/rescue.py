"""`colod rescue`: settle ownership once, where the daemon itself cannot come back.

A guest that colod holds, or that its xl left suspended, would stay so for ever without a daemon.
The rescue takes each protection through the same decisions until nothing of it waits any more. It
begins no pairing, and leaves one that works as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.failover.effects import State

RESCUE_S: Final = 240.0
"""Longest attempt; the unit allows 300 s."""

_AT_REST: Final = frozenset(
    {
        State.ALONE,
        State.REPLICATING,
        State.PROTECTED,
        State.SUSPENDED,
        State.GUEST_SHUTDOWN,
        State.STOPPED,
    }
)


def is_settled(service: ProtectionService) -> bool:
    """Tell whether no guest waits for a decision of this protection any more."""
    journal = service.journal
    return service.erased.is_set() or (
        service.has_looked
        and service.state in _AT_REST
        and journal.pending is None
        and not journal.held
    )


async def settle_all(host: Host, *, timeout_s: float = RESCUE_S) -> Sequence[str]:
    """Wait until every protection is settled; return what is left over, in words."""
    services = list(host.services.values())
    done = await asyncio.gather(
        *(each.until(partial(is_settled, each), timeout_s=timeout_s) for each in services)
    )
    return [
        f"{service.guest}: {service.state}: {service.trouble}"
        for service, is_done in zip(services, done, strict=True)
        if not is_done
    ]
