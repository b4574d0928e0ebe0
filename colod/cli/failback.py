"""`colodctl failback`: a switchover back to the host that owned the guest before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, check_found, check_may_ask, connect
from colod.cli.failover import give_away, outcome, print_outcome, switchover_options
from colod.errors import NotAllowedNow

if TYPE_CHECKING:
    from colod.observe.json_types import FailbackDocument
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import HistoryEntry, ProtectionStatus

_LOOKED_BACK: Final = 1000
"""How many changes of the guest's state are looked at."""

_TAKEN_OVER: Final = "PROMOTING"
_SETTLING: Final = frozenset({"ARBITRATING", "FENCING", "MANUAL_HOLD"})
_LOST: Final = "LOST_RACE"
_NOT_OWNED: Final = frozenset({_LOST, "QUARANTINED", "STOPPED"})
"""What no owner shows, except one whose protection has ended."""


@click.command()
@click.argument("guest", type=GUEST)
@switchover_options
@click.pass_context
def failback(
    context: click.Context, *, guest: str, yes: bool, dry_run: bool, timeout_s: float, as_json: bool
) -> None:
    """Give GUEST back to the host that owned it before this one, with nothing lost.

    It is a switchover, for when the former host has its replica again. Refused unless this host's
    history says that it has taken the guest over from that host.
    """
    check_may_ask(context, yes=yes, dry_run=dry_run, as_json=as_json)
    with connect(context) as client:
        protection = _protection(client, guest)
        former = protection.peer
        until_unix_s = taken_over_at(client.history(guest, _LOOKED_BACK).entries)
        if until_unix_s is None:
            raise NotAllowedNow(
                protection.state,
                f"{guest}: the history here does not say that {former} owned it before",
                advice=f"to give it to {former} all the same: colodctl switchover {guest}",
            )
        if not as_json:
            click.echo(f"{former} owned {guest} until {layout.instant(until_unix_s)}")
        reply = give_away(
            context,
            client,
            guest,
            f"{former} again",
            yes=yes,
            dry_run=dry_run,
            timeout_s=timeout_s,
            as_json=as_json,
        )
    content: FailbackDocument = {
        **outcome(guest, reply, dry_run=dry_run),
        "to": former,
        "owned_until_unix_s": until_unix_s,
    }
    print_outcome(content, f"owned by {former} again", as_json=as_json)


def _protection(client: AdminClient, guest: str) -> ProtectionStatus:
    """Return how `guest` stands on this host, which has to be its primary.

    Raises:
        NotFound: If it is not protected here.
        NotAllowedNow: If this host holds its replica.
    """
    from colod.v1 import types_pb2

    reply = client.status(guest)
    check_found(reply, guest, "status")
    found = next(each for each in reply.protections if each.guest == guest)
    if found.role != types_pb2.ROLE_PRIMARY:
        raise NotAllowedNow(
            found.state,
            f"{guest}: {reply.host} is not its primary",
            advice=f"run it on {found.peer}: colodctl failback {guest}",
        )
    return found


def taken_over_at(changes: Sequence[HistoryEntry]) -> float | None:
    """Return when the host that wrote `changes`, an owner, took the guest over from the other one.

    Args:
        changes: Of the guest's state on that host, oldest first.

    Returns:
        Unix time; None where they do not say that the other host owned it before. A guest that was
        given away and handed back without having run there was not taken over.
    """
    taken_over_s: float | None = None
    was_given_back = False
    for change in reversed(changes):
        state = change.to_state
        if state == _TAKEN_OVER:
            taken_over_s = change.unix_s
        elif state in _SETTLING:
            continue
        elif state == _LOST and (was_given_back or taken_over_s):
            taken_over_s, was_given_back = None, True
        elif taken_over_s or state in _NOT_OWNED:
            break
    return taken_over_s
