"""A switchover from the order to its outcome, whoever asks for it, and of all guests of a host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from colod.daemon.drill_health import until_healthy
from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.errors import ColodError, NotAllowedNow, OutcomeUnknown
from colod.model import GuestName, Role
from colod.v1 import peer_pb2

SWITCHED_S: Final = 150.0


async def switched_over(service: ProtectionService) -> None:
    """Have a guest given to the other host; return once it runs there.

    Raises:
        NotAllowedNow: If it cannot begin, or stays here.
        OutcomeUnknown: If neither is clear in time.
        JournalError: If the order could not be written.
    """
    await service.switch_over()
    if not await service.until(lambda: is_settled(service), timeout_s=SWITCHED_S):
        raise OutcomeUnknown(
            f"{service.guest}: {service.state}: {service.trouble}",
            advice="it goes on by itself; watch colodctl status on both hosts",
        )
    if service.journal.is_owner:
        raise NotAllowedNow(
            service.state,
            f"{service.guest} stays here: {service.facts.why_given_up()}",
            advice="roles are as they were; it can be asked for again",
        )


def is_settled(service: ProtectionService) -> bool:
    """Whether a switchover was given up, or the other host was seen running the guest."""
    journal = service.journal
    is_open = bool(journal.switchover) or journal.pending is not None
    return not is_open and (journal.is_owner or journal.is_activated)


def _is_away(service: ProtectionService) -> bool:
    """Whether the other host has the guest already; only what is left here of it goes yet."""
    return is_settled(service) and not service.journal.is_owner


async def give_all_away(services: Iterable[ProtectionService]) -> Sequence[GuestName]:
    """Give away every guest whose primary this host is; return which.

    All at once: each takes a checkpoint of its own. One that cannot go keeps none of the others.

    Raises:
        NotAllowedNow: If any stays here, or may; with the reason of each.
    """
    here = [each for each in services if each.journal.role is Role.PRIMARY and not _is_away(each)]
    ends = await asyncio.gather(*map(switched_over, here), return_exceptions=True)
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


async def give_back(host: Host, request: peer_pb2.GiveBackRequest) -> None:
    """Give a guest to the peer, which had it before a drill of its own; return once it runs there.

    It is a switchover like an operator's, refused for the same reasons and a few more. A peer that
    asks gains nothing by it that the witness would not give it for a takeover.

    Raises:
        PeerRefused: If this host would not replicate it from there.
        NotFound: If the guest is not protected here.
        NotAllowedNow: If the record is another one by now, not all is well, or the guest stays.
        OutcomeUnknown: If neither is clear in time.
    """
    host.check_joins_pairings()
    service = host.find(request.guest)
    if request.dry_run:
        return
    await until_healthy(host, service, stays=f"{service.guest} is not given back")
    generation = service.journal.generation
    if generation != request.generation:
        raise NotAllowedNow(
            service.state,
            f"{host.parts.peer} asks for {service.guest} by generation {request.generation} of its "
            f"record, which is at {generation}",
        )
    await switched_over(service)
