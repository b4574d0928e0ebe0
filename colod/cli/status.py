"""`colodctl status`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, check_found, connect, json_option, print_json

if TYPE_CHECKING:
    from colod.v1.admin_pb2 import StatusReply


@click.command()
@click.argument("guest", type=GUEST, required=False)
@click.option("--watch", is_flag=True, help="Show each change until interrupted.")
@json_option
@click.pass_context
def status(context: click.Context, guest: str | None, *, watch: bool, as_json: bool) -> None:
    """Show all protections of this host, or all that is known of GUEST.

    The lag is the age of the oldest guest state that the other host does not hold; `unknown` where
    it was not measured. With --watch --json, each report is one line.
    """
    with connect(context) as client:
        if watch:
            _watch(client.watch_status(guest or ""), guest, as_json=as_json)
            return
        reply = client.status(guest or "")
    if as_json:
        from colod.observe.documents import status_json

        check_found(reply, guest, "status")
        print_json(status_json(reply))
    else:
        click.echo(_text(reply, guest))


def _text(reply: StatusReply, guest: str | None) -> str:
    from colod.cli.report import protection_lines, status_lines

    check_found(reply, guest, "status")
    lines = status_lines if guest is None else protection_lines
    return "\n".join(lines(reply, layout.width()))


def _watch(replies: Iterable[StatusReply], guest: str | None, *, as_json: bool) -> None:
    if as_json:
        from colod.observe.documents import status_json

        for reply in replies:
            check_found(reply, guest, "status")
            print_json(status_json(reply), on_one_line=True)
    elif sys.stdout.isatty():
        _watch_screen(replies, guest)
    else:
        _watch_lines(replies, guest)


def _watch_screen(replies: Iterable[StatusReply], guest: str | None) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for reply in replies:
            live.update(Text(_text(reply, guest)), refresh=True)


def _watch_lines(replies: Iterable[StatusReply], guest: str | None) -> None:
    shown = ""
    for reply in replies:
        text = _text(reply, guest)
        if text != shown:
            click.echo(f"\n{text}" if shown else text)
            shown = text
