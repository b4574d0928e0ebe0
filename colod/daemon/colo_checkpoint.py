"""A checkpoint that an operator asks for, of a guest in COLO."""

from __future__ import annotations

from typing import Final

from colod.daemon.colo import is_colo
from colod.daemon.protection import ProtectionService
from colod.daemon.sessions import SessionHandle
from colod.errors import NotAllowedNow, OutcomeUnknown
from colod.model import Role
from colod.v1 import session_pb2

COMMAND_S: Final = 5.0
MADE_S: Final = 25.0


async def make_checkpoint(service: ProtectionService) -> int:
    """Have both copies made equal now; return how many checkpoints the pairing has had by then.

    Raises:
        NotAllowedNow: If the guest's copies are not compared from this host.
        SessionError: If the session refuses, or cannot be asked.
        OutcomeUnknown: If none is made in time; it may be made later.
    """
    session = service.session
    if not is_colo(service.journal.protection):
        raise NotAllowedNow(
            service.state,
            f"{service.guest} is replicated by Remus, which makes checkpoints by the clock",
            advice="nothing needs to be done",
        )
    if service.journal.role is Role.SECONDARY or session is None:
        raise NotAllowedNow(
            service.state,
            f"the copies of {service.guest} are not compared here",
            advice=f"run it on {service.journal.peer}, once it is PROTECTED",
        )
    before = _made(session)
    order = session_pb2.SessionCommand(generation=service.journal.generation)
    order.make_checkpoint.SetInParent()
    await session.command(order, timeout_s=COMMAND_S)
    if not await session.until(lambda: _made(session) > before, timeout_s=MADE_S):
        raise OutcomeUnknown(
            f"{service.guest}: no checkpoint was made within {MADE_S:g} s",
            advice="colodctl status tells whether one is made later",
        )
    return _made(session)


def _made(session: SessionHandle) -> int:
    """Return how many checkpoints there were, whatever for: one that is under way serves all."""
    status = session.status
    return 0 if status is None else status.comparison.checkpoints
