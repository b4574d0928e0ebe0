"""`colod rescue`: settle ownership once, where the daemon itself cannot come back.

A guest that colod holds, or that its xl left suspended, would stay so for ever without a daemon.
The rescue takes each protection through the same decisions until nothing of it waits any more. It
begins no pairing, and leaves one that works as it is.
"""

from __future__ import annotations

import asyncio
import time
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
    watch_s = host.parts.limits.suspect_after_s
    done = await asyncio.gather(
        *(_settle(each, watch_s=watch_s, timeout_s=timeout_s) for each in services)
    )
    return [
        f"{service.guest}: {service.state}: {service.trouble}"
        for service, is_done in zip(services, done, strict=True)
        if not is_done
    ]


async def _settle(service: ProtectionService, *, watch_s: float, timeout_s: float) -> bool:
    """Wait until `service` is settled and, where it has a pairing, stays so.

    A peer that died just now is not missed yet, and nobody would miss it after the rescue.
    """
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        if not await service.until(partial(is_settled, service), timeout_s=left_s):
            return False
        if service.journal.pairing is None:
            return True
        if not await service.until(lambda: not is_settled(service), timeout_s=watch_s):
            return True
    return False
