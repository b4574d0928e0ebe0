"""`colodctl lag`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, check_found, connect, json_option, known, print_json
from colod.errors import NotAllowedNow

if TYPE_CHECKING:
    from colod.observe.json_types import GuestLag, LagDocument
    from colod.v1.admin_pb2 import ProtectionStatus, StatusReply

_HEADS = ["GUEST", "LAG", "EPOCHS", "BYTES", "PAUSE", "COPY", "ACK", "HOLD", "WIRE"]


@click.command()
@click.argument("guest", type=GUEST, required=False)
@click.option("--watch", is_flag=True, help="Print a line for each guest again and again.")
@json_option
@click.pass_context
def lag(context: click.Context, guest: str | None, *, watch: bool, as_json: bool) -> None:
    """Show how far the replicas of this host's guests lag, and what the last epoch took.

    LAG is the age of the oldest guest state that the other host does not hold; EPOCHS and BYTES
    are what is on the way. PAUSE is how long the guest was suspended, COPY until its state was
    read, ACK until the other host had it, HOLD the longest that a packet waited, WIRE the bytes on
    the link. What was not measured is `unknown`, never 0.
    """
    with connect(context) as client:
        replies = client.watch_status(guest or "") if watch else [client.status(guest or "")]
        for number, reply in enumerate(replies):
            check_found(reply, guest, "lag")
            _check_primary(reply, guest)
            if as_json:
                print_json(_json(reply), on_one_line=watch)
            else:
                click.echo("\n".join(_lines(reply, with_heads=not number)))


def _check_primary(reply: StatusReply, guest: str | None) -> None:
    """Check that this host is the primary of the guest that was asked for, if one was.

    Raises:
        NotAllowedNow: If not: it does not know what there is to tell.
    """
    if guest is None or any(_primaries(reply)):
        return
    found = reply.protections[0]
    raise NotAllowedNow(
        found.state,
        f"{guest}: {reply.host} is not its primary",
        advice=f"run it on {found.peer}, or here: colodctl top {guest}",
    )


def _json(reply: StatusReply) -> LagDocument:
    return {
        "host": reply.host,
        "simulated": reply.simulated,
        "guests": [measured(each) for each in _primaries(reply)],
    }


def _primaries(reply: StatusReply) -> Iterable[ProtectionStatus]:
    from colod.v1 import types_pb2

    return (each for each in reply.protections if each.role == types_pb2.ROLE_PRIMARY)


def measured(status: ProtectionStatus) -> GuestLag:
    """Return what a host measured of a guest; None is not known.

    A receiver knows when an epoch came, not what it took.
    """
    from colod.observe.documents import lag_json, role_of

    is_primary = role_of(status) == "primary"
    progress = status.progress
    has_acked = is_primary and status.HasField("progress") and progress.acked_epoch > 0
    has_gate = is_primary and status.HasField("gate")
    return {
        "guest": status.guest,
        "state": status.state,
        **lag_json(status),
        "pause_s": known(progress.pause_s) if has_acked else None,
        "copy_s": known(progress.copy_s) if has_acked else None,
        "ack_wait_s": known(progress.ack_wait_s) if has_acked else None,
        "hold_s": known(status.gate.hold_s) if has_gate else None,
        "wire_bytes": progress.epoch_wire_bytes if has_acked else None,
    }


def _lines(reply: StatusReply, *, with_heads: bool) -> Iterator[str]:
    rows = [
        [_shown(name, value) for name, value in measured(each).items() if name != "state"]
        for each in _primaries(reply)
    ]
    if not rows:
        yield f"{reply.host} is the primary of no protected guest"
        return
    lines = list(layout.table(_HEADS, rows, layout.width(), names=(0,)))
    yield from lines if with_heads else lines[1:]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if name.endswith("_s"):
        return layout.seconds(value)
    return layout.size(value) if name.endswith("_bytes") else str(value)
