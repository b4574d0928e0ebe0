"""Give guests of this host to the other one, on request: one, or all of them before a shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from colod.daemon.protection import ProtectionService
from colod.errors import ColodError, NotAllowedNow, OutcomeUnknown
from colod.model import GuestName, Role

_SWITCHOVER_S: Final = 150.0


async def give_away(service: ProtectionService) -> None:
    """Give a guest to the other host; return once it was seen running there.

    Raises:
        NotAllowedNow: If that cannot begin now, or was given up: roles are as they were.
        JournalError: If it could not be written.
        OutcomeUnknown: If it takes too long.
    """
    await service.switch_over()
    if not await service.until(lambda: _is_settled(service), timeout_s=_SWITCHOVER_S):
        raise OutcomeUnknown(
            f"{service.guest}: {service.state}: {service.trouble}",
            advice="it goes on by itself; watch colodctl status on both hosts",
        )
    if service.journal.is_owner:
        raise NotAllowedNow(
            service.state,
            f"{service.guest} stays here: {service.facts.switchover_error}",
            advice="roles are as they were; it can be asked for again",
        )


async def give_all_away(services: Iterable[ProtectionService]) -> Sequence[GuestName]:
    """Give away every guest whose primary this host is; return which.

    All at once: each takes a checkpoint of its own. One that cannot go keeps none of the others.

    Raises:
        NotAllowedNow: If any stays here, or may; with the reason of each.
    """
    here = [each for each in services if each.journal.role is Role.PRIMARY]
    ends = await asyncio.gather(*map(give_away, here), return_exceptions=True)
    stay = []
    for service, end in zip(here, ends, strict=True):
        if isinstance(end, ColodError):
            stay.append((service, str(end)))
        elif end is not None:
            raise end
    if stay:
        service, _ = stay[0]
        raise NotAllowedNow(
            service.state,
            "; ".join(text for _, text in stay),
            advice="no pairing was ended; see to that, or without it: colodctl drain",
        )
    return [each.guest for each in here]


def _is_settled(service: ProtectionService) -> bool:
    """Whether a switchover was given up, or the other host was seen running the guest."""
    journal = service.journal
    is_open = bool(journal.switchover) or journal.pending is not None
    return not is_open and (journal.is_owner or journal.is_activated)
