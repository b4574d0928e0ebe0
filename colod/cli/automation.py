"""`colodctl pause` and `unpause`: whether the hosts take over and pair again by themselves."""

from __future__ import annotations

import click

from colod.cli.daemon import REASON, connect, json_option, operator, print_json
from colod.cli.exits import Exit
from colod.observe.json_types import PauseDocument

_here_only = click.option(
    "--here-only", is_flag=True, help="Leave the other host as it is; else both do the same."
)


@click.command()
@click.option(
    "--reason", type=REASON, required=True, help="Why, for whoever looks later; it is kept."
)
@_here_only
@json_option
@click.pass_context
def pause(context: click.Context, *, reason: str, here_only: bool, as_json: bool) -> None:
    """Have both hosts do nothing by themselves: no takeover and no new pairing until `unpause`.

    For work on the network or the witness. What is paired goes on, and a guest whose replica is
    lost runs on alone; so does handing a guest to its replica after a restart of its own host, when
    it runs nowhere. Operators may still ask for everything: failover, switchover, resume. It
    lasts until `unpause`, also over restarts of the daemon and of the host.
    """
    _set(context, paused=True, reason=reason, here_only=here_only, as_json=as_json)


@click.command()
@_here_only
@json_option
@click.pass_context
def unpause(context: click.Context, *, here_only: bool, as_json: bool) -> None:
    """Let both hosts take over and pair again by themselves, as their configurations say."""
    _set(context, paused=False, reason="", here_only=here_only, as_json=as_json)


def _set(
    context: click.Context, *, paused: bool, reason: str, here_only: bool, as_json: bool
) -> None:
    from colod.v1 import admin_pb2

    request = admin_pb2.SetAutomationRequest(
        paused=paused, operator=operator(), reason=reason, here_only=here_only
    )
    with connect(context) as client:
        error = client.set_automation(request).peer_error
    if as_json:
        print_json(PauseDocument(paused=paused, here_only=here_only, peer_error=error or None))
    else:
        where = "on this host" if here_only or error else "on both hosts"
        click.echo(f"automation {'is paused' if paused else 'goes on'} {where}")
    if not error:
        return
    if not as_json:
        word = "pause --reason TEXT" if paused else "unpause"
        click.echo(f"error: the other host was not told: {error}", err=True)
        click.echo(f"hint: run it there: colodctl {word} --here-only", err=True)
    context.exit(Exit.FAILED)
