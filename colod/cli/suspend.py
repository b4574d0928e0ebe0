"""`colodctl suspend` and `resume`."""

from __future__ import annotations

import click

from colod.cli.daemon import GUEST, connect, json_option, print_json
from colod.cli.waiting import (
    print_reached,
    reach_replica,
    reached_json,
    wait_option,
    wait_timeout_option,
)
from colod.observe.json_types import ResumeDocument, SuspendDocument


@click.command()
@click.argument("guest", type=GUEST)
@json_option
@click.pass_context
def suspend(context: click.Context, guest: str, *, as_json: bool) -> None:
    """Replicate GUEST no more until `resume`: it runs on here, unprotected, and stays known."""
    with connect(context) as client:
        client.suspend(guest)
    if as_json:
        print_json(SuspendDocument(guest=guest, suspended=True))
    else:
        click.echo(f"{guest}: not replicated until: colodctl resume {guest}")


@click.command()
@click.argument("guest", type=GUEST)
@wait_option
@wait_timeout_option
@json_option
@click.pass_context
def resume(
    context: click.Context, *, guest: str, wait: bool, timeout_s: float, as_json: bool
) -> None:
    """Replicate GUEST again, at once: after `suspend`, or before the next attempt is due."""
    reached = None
    with connect(context) as client:
        client.resume(guest)
        if wait:
            reached = reach_replica(client, guest, timeout_s, quiet=as_json)
    if as_json:
        print_json(ResumeDocument(guest=guest, suspended=False, status=reached_json(reached)))
    else:
        print_reached(guest, reached)
