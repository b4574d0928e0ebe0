"""`colod rescue`: decide for guests where the daemon itself cannot come back.

A guest that colod holds, or that its xl left suspended, would stay so for ever without a daemon;
and one in a pair would once the other host dies, since its output is held until somebody decides.
So the rescue takes each protection through the same decisions for as long as anything hangs on
them, and ends when nothing does. It begins no pairing, and leaves one that works as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.failover.effects import State
from colod.failover.rules.facts import is_restarting
from colod.failover.view import Ended

_AT_REST: Final = frozenset(
    {State.ALONE, State.SUSPENDED, State.GUEST_SHUTDOWN, State.STOPPED},
)


def is_free(service: ProtectionService) -> bool:
    """Tell whether nothing of this protection needs anybody who decides.

    Something does in a pair, even in one that works; while a write or an errand is under way; while
    the guest is held; and while it has ended and is to be cleared away or started again.
    """
    journal, decision, view = service.journal, service.decision, service.facts.view
    return service.erased.is_set() or (
        service.has_looked
        and service.state in _AT_REST
        and decision.effect is None
        and decision.journal is None
        and journal.pairing is None
        and journal.pending is None
        and not journal.held
        and view is not None
        and view.ended is Ended.NOTHING
        and not is_restarting(view)
    )


async def free_all(
    host: Host, *, limit_s: float | None, on_change: Callable[[Sequence[str]], None]
) -> Sequence[str]:
    """Wait until nothing hangs on this process; return what still does, in words.

    Args:
        host: Its protections decide meanwhile; it begins no pairing.
        limit_s: Longest wait; None for as long as it takes.
        on_change: Told which guests are left, at the beginning and whenever one is done.
    """
    services = list(host.services.values())

    def tell() -> None:
        on_change([each.guest for each in services if not is_free(each)])

    async def free(service: ProtectionService) -> None:
        await service.until(partial(is_free, service), timeout_s=None)
        tell()

    tell()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await asyncio.gather(*map(free, services))
    return [_described(each) for each in services if not is_free(each)]


def _described(service: ProtectionService) -> str:
    pairing = service.journal.pairing
    pair = f"in a pair with {service.journal.peer}" if pairing is not None else ""
    said = "; ".join(filter(None, (pair, service.trouble))) or "not settled"
    return f"{service.guest}: {service.state}: {said}"
