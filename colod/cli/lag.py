"""`colodctl lag`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, connect, json_option, print_json
from colod.errors import NotFound

if TYPE_CHECKING:
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
            if guest is not None and not any(one.guest == guest for one in reply.protections):
                raise NotFound(f"{guest} is not protected on {reply.host}")
            if as_json:
                print_json(_json(reply), on_one_line=watch)
            else:
                click.echo("\n".join(_lines(reply, with_heads=not number)))


def _json(reply: StatusReply) -> dict[str, Any]:
    return {
        "host": reply.host,
        "simulated": reply.simulated,
        "guests": [dict(measured(each)) for each in _primaries(reply)],
    }


def _primaries(reply: StatusReply) -> Iterable[ProtectionStatus]:
    from colod.v1 import types_pb2

    return (each for each in reply.protections if each.role == types_pb2.ROLE_PRIMARY)


def measured(status: ProtectionStatus) -> Iterator[tuple[str, Any]]:
    """Yield what a primary measured of a guest, by its name in JSON; None is not known."""
    from colod.observe.documents import lag_json

    progress = status.progress
    has_acked = status.HasField("progress") and progress.acked_epoch > 0
    yield "guest", status.guest
    yield "state", status.state
    yield from lag_json(status).items()
    for name in ("pause_s", "copy_s", "ack_wait_s"):
        value = getattr(progress, name)
        yield name, value if has_acked and value >= 0 else None
    is_held = status.HasField("gate") and status.gate.hold_s >= 0
    yield "hold_s", status.gate.hold_s if is_held else None
    yield "wire_bytes", progress.epoch_wire_bytes if has_acked else None


def _lines(reply: StatusReply, *, with_heads: bool) -> Iterator[str]:
    rows = [
        [_shown(name, value) for name, value in measured(each) if name != "state"]
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
