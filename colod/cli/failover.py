"""`colodctl failover`, `switchover`, `fence-confirm` and `drain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from colod.cli.daemon import (
    GUEST,
    REASON,
    check_may_ask,
    connect,
    json_option,
    operator,
    print_json,
    timeout_option,
)
from colod.cli.exits import Exit
from colod.cli.layout import print_plan
from colod.observe.json_types import DrainDocument, FenceConfirmDocument, HandoverDocument

if TYPE_CHECKING:
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import FailoverReply, SwitchoverReply

    Reply = TypeVar("Reply", FailoverReply, SwitchoverReply)

_Command = TypeVar("_Command", bound=Callable[..., Any])

_TIMEOUT_S = 120.0

_timeout_option = timeout_option(
    _TIMEOUT_S, "Longest wait for the outcome, in seconds; after it the outcome is unknown."
)


@click.command()
@click.argument("guest", type=GUEST)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--force-reason",
    type=REASON,
    help="Why the rules may be overridden; kept in the history. With a wrong reason the guest "
    "may run twice.",
)
@click.option(
    "--fence",
    is_flag=True,
    help="With shared disks: have the other host switched off, with all its guests, although it "
    "answers.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and lost.")
@_timeout_option
@json_option
@click.pass_context
def failover(
    context: click.Context,
    *,
    guest: str,
    yes: bool,
    force_reason: str | None,
    fence: bool,
    dry_run: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Make this host the owner of GUEST and run its copy here."""
    from colod.v1 import admin_pb2

    def ask(client: AdminClient, *, is_dry: bool) -> FailoverReply:
        request = admin_pb2.FailoverRequest(
            guest=guest, force_reason=force_reason or "", fence=fence, dry_run=is_dry
        )
        return client.failover(request, timeout_s=timeout_s)

    question = f"Make this host the owner of {guest}?"
    check_may_ask(context, yes=yes, dry_run=dry_run, as_json=as_json)
    with connect(context) as client:
        reply = _carried_out(
            context, client, ask, question, yes=yes, dry_run=dry_run, as_json=as_json
        )
    print_outcome(outcome(guest, reply, dry_run=dry_run), "owned by this host", as_json=as_json)


def switchover_options(command: _Command) -> _Command:
    """Give a command the options of a switchover."""
    for option in (
        json_option,
        _timeout_option,
        click.option("--dry-run", is_flag=True, help="Say what would be done."),
        click.option("--yes", is_flag=True, help="Do not ask."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("guest", type=GUEST)
@switchover_options
@click.pass_context
def switchover(
    context: click.Context, *, guest: str, yes: bool, dry_run: bool, timeout_s: float, as_json: bool
) -> None:
    """Give GUEST, which runs here, to the other host, with nothing lost.

    The guest is stopped at a checkpoint; once the other host has it all, it becomes the owner and
    runs it on. Until then a failure of any kind leaves the guest here.
    """
    check_may_ask(context, yes=yes, dry_run=dry_run, as_json=as_json)
    with connect(context) as client:
        reply = give_away(
            context,
            client,
            guest,
            "the other host",
            yes=yes,
            dry_run=dry_run,
            timeout_s=timeout_s,
            as_json=as_json,
        )
    done = "owned by the other host"
    print_outcome(outcome(guest, reply, dry_run=dry_run), done, as_json=as_json)


@click.command("fence-confirm")
@click.argument("guest", type=GUEST)
@click.option(
    "--reason",
    type=REASON,
    required=True,
    help="How you know that the other host is off; kept in the log. If it is not off, the guest "
    "may run twice and ruin its disks.",
)
@json_option
@click.pass_context
def fence_confirm(context: click.Context, *, guest: str, reason: str, as_json: bool) -> None:
    """Give your word that the other host of GUEST is off, and cannot come back by itself.

    It is asked for where no machine can prove it: fencing did not, or the witness is of kind
    `manual`. It counts for what GUEST waits for now, and is refused where that is something else.
    """
    from colod.v1 import admin_pb2

    request = admin_pb2.FenceConfirmRequest(guest=guest, reason=reason, operator=operator())
    with connect(context) as client:
        given_to = list(client.fence_confirm(request).given_to)
    if as_json:
        print_json(FenceConfirmDocument(guest=guest, given_to=given_to))
    else:
        click.echo(f"{guest}: confirmed to {' and '.join(given_to)}")


@click.command()
@click.option(
    "--switch-over",
    is_flag=True,
    help="First give the guests that run here to the other host; where one cannot go, no session "
    "is ended.",
)
@_timeout_option
@json_option
@click.pass_context
def drain(context: click.Context, *, switch_over: bool, timeout_s: float, as_json: bool) -> None:
    """End all sessions of this host in good order, as before a shutdown.

    What it owns goes on alone, here; replicas that it holds are given up.
    """
    with connect(context) as client:
        reply = client.drain(switch_over=switch_over, timeout_s=timeout_s)
    given, ended = list(reply.given_away), list(reply.ended)
    if as_json:
        print_json(DrainDocument(ended=ended, given_away=given))
        return
    for guest in given:
        click.echo(f"given to the other host: {guest}")
    for line in ended:
        click.echo(f"ended: {line}")
    if not (given or ended):
        click.echo("nothing to end")


def give_away(
    context: click.Context,
    client: AdminClient,
    guest: str,
    to: str,
    *,
    yes: bool,
    dry_run: bool,
    timeout_s: float,
    as_json: bool,
) -> SwitchoverReply:
    """Have `guest` given to the other host, called `to`, once its plan was shown and agreed to."""
    from colod.v1 import admin_pb2

    def ask(client: AdminClient, *, is_dry: bool) -> SwitchoverReply:
        request = admin_pb2.SwitchoverRequest(guest=guest, dry_run=is_dry)
        return client.switchover(request, timeout_s=timeout_s)

    question = f"Give {guest} to {to}?"
    return _carried_out(context, client, ask, question, yes=yes, dry_run=dry_run, as_json=as_json)


def _carried_out(
    context: click.Context,
    client: AdminClient,
    ask: Callable[..., Reply],
    question: str,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> Reply:
    """Have the daemon do it, after its plan was shown and agreed to; return its reply."""
    reply = ask(client, is_dry=dry_run or not yes)
    if not as_json:
        print_plan(reply.plan)
    if not (yes or dry_run):
        if not click.confirm(question, err=True):
            click.echo("nothing was changed", err=True)
            context.exit(Exit.FAILED)
        reply = ask(client, is_dry=False)
    return reply


def outcome(
    guest: str, reply: FailoverReply | SwitchoverReply, *, dry_run: bool
) -> HandoverDocument:
    """Return what came of it, for `--json` and for `print_outcome`."""
    return {
        "guest": guest,
        "dry_run": dry_run,
        "plan": list(reply.plan),
        "generation": None if dry_run else reply.generation,
    }


def print_outcome(content: HandoverDocument, done: str, *, as_json: bool) -> None:
    """Print what came of it; `done` says it in words."""
    if as_json:
        print_json(content)
    elif content["dry_run"]:
        click.echo(f"{content['guest']}: nothing was changed")
    else:
        click.echo(f"{content['guest']}: {done}, generation {content['generation']}")
