"""`colodctl history`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, connect, json_option, newest, print_json

if TYPE_CHECKING:
    from colod.v1.admin_pb2 import HistoryEntry


@click.command()
@click.argument("guest", type=GUEST, required=False)
@click.option(
    "--limit",
    type=click.IntRange(1, 10000),
    default=100,
    show_default=True,
    help="Most entries to show: the newest.",
)
@json_option
@click.pass_context
def history(context: click.Context, guest: str | None, *, limit: int, as_json: bool) -> None:
    """Show changes of state on this host, of GUEST or of all guests, newest last."""
    with connect(context) as client:
        reply = newest(lambda most: client.history(guest or "", most), limit)
    if as_json:
        from colod.observe.documents import history_json

        print_json(history_json(reply))
        return
    for entry in reply.entries:
        for line in _entry_lines(entry, layout.width()):
            click.echo(line)
    if not reply.entries:
        click.echo("no change of state is recorded")


def change_text(entry: HistoryEntry) -> str:
    """Return what changed, in a line without its time and its cause."""
    epoch = f", epoch {entry.epoch}" if entry.epoch else ""
    change = f"{entry.from_state} -> {entry.to_state}" if entry.from_state else entry.to_state
    return f"{entry.guest} on {entry.host}: {change} (generation {entry.generation}{epoch})"


def _entry_lines(entry: HistoryEntry, columns: int) -> Iterator[str]:
    yield from layout.pairs([(layout.instant(entry.unix_s), change_text(entry))], columns)
    if entry.cause:
        yield from layout.pairs([(" " * 20, entry.cause)], columns)
