"""Whether a protection is in order: only then may a drill take anything of it away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.errors import NotAllowedNow
from colod.failover.effects import State
from colod.failover.view import Answer, Contact, Replica, View, Wanted
from colod.model import Role

SEE_STATUS: Final = "colodctl status tells why"
_SETTLES_S: Final = 15.0
_POLL_S: Final = 0.5


async def check_healthy(
    host: Host, service: ProtectionService, *, stays: str, advice: str = "see to that first"
) -> None:
    """Check that nothing is wrong with a protection of which this host is the primary.

    Args:
        host: This host.
        service: The protection.
        stays: What is not done otherwise, in words.
        advice: What to do then.

    Raises:
        NotAllowedNow: If anything is, or this host would not pair again by itself.
        ToolstackError: If xl does not answer.
    """
    journal = service.journal
    if journal.role is not Role.PRIMARY:
        raise NotAllowedNow(
            service.state,
            f"{journal.peer} is the primary of {service.guest}",
            advice=f"run it on {journal.peer}",
        )
    check_protected(service)
    view = await service.look_now()  # what was read of the witness before may be out of date
    reasons = {
        **_reasons(host, service, view),
        f"{journal.peer} does not say that its replica follows": view.peer_replica
        is not Replica.FOLLOWING,
        "a switchover is under way": bool(journal.switchover),
        f"it stands still ({service.watch.cause})": bool(service.watch.cause),
    }
    refuse_over(service, reasons, stays=stays, advice=advice)


async def until_healthy(host: Host, service: ProtectionService, *, stays: str) -> None:
    """Wait a moment until nothing is wrong: the hosts do not hear at once how the other stands.

    Raises:
        NotAllowedNow: If anything still is.
        ToolstackError: If xl does not answer.
    """
    deadline = time.monotonic() + _SETTLES_S
    while True:
        try:
            return await check_healthy(host, service, stays=stays)
        except NotAllowedNow:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_POLL_S)


async def check_healthy_there(
    host: Host, service: ProtectionService, *, stays: str, advice: str = "see to that first"
) -> None:
    """Check that nothing is wrong with a protection whose replica is on this host.

    Raises:
        NotAllowedNow: If anything is, as far as can be seen from here, or this host, once it owns
            the guest, would not pair again by itself.
        ToolstackError: If xl does not answer.
    """
    check_protected(service)
    view = await service.look_now()
    reasons = {
        **_reasons(host, service, view),
        "the record does not promise it to this host": not view.is_replica_promised,
    }
    refuse_over(service, reasons, stays=stays, advice=advice)


def check_protected(service: ProtectionService) -> None:
    """Check that a guest is PROTECTED.

    Raises:
        NotAllowedNow: If not.
    """
    if service.state is not State.PROTECTED or service.facts.view is None:
        raise NotAllowedNow(
            service.state,
            f"{service.guest} is not PROTECTED: its replica may be needed",
            advice=SEE_STATUS,
        )


def refuse_over(
    service: ProtectionService, reasons: Mapping[str, bool], *, stays: str, advice: str
) -> None:
    """Refuse over each of the `reasons` that holds.

    Raises:
        NotAllowedNow: If any does.
    """
    if wrong := [text for text, holds in reasons.items() if holds]:
        raise NotAllowedNow(service.state, f"{stays}: {'; '.join(wrong)}", advice=advice)


def _reasons(host: Host, service: ProtectionService, view: View) -> Mapping[str, bool]:
    """Return what may be wrong on either side, in words, and whether it is."""
    return {
        f"{service.journal.peer} is not heard": view.contact is not Contact.UP,
        "the witness does not answer": view.answer is not Answer.READ,
        "it is about to be suspended or unprotected": (
            service.journal.wanted is not Wanted.PROTECTED
        ),
        "automation is paused, so an attempt to pair that fails is not repeated": (
            host.parts.automation.is_paused
        ),
        "policy.resync is manual, so an attempt to pair that fails is not repeated": (
            not host.parts.limits.resync_automatic
        ),
    }
