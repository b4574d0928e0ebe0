"""`colodctl drill`: try a replica out, and show what drills have shown."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from colod.cli import layout
from colod.cli.daemon import (
    GUEST,
    check_found,
    check_may_ask,
    connect,
    json_option,
    newest,
    operator,
    print_json,
    timeout_option,
)
from colod.cli.drill_live import live
from colod.cli.drill_record import Telling, goes_on, record_lines, record_of, show_result
from colod.cli.progress import ShowStep, steps

if TYPE_CHECKING:
    from colod.observe.json_types import DrillsDocument
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import DrillRecord, DrillReply, DrillRequest

_TIMEOUT_S: Final = 600.0
_SECONDARY_TIMEOUT_S: Final = 1800.0
_CHECK_TIMEOUT_S: Final = 120.0
_CLEARING_S: Final = 90.0
"""How much longer than the drill itself its end is waited for: it is cleared away first."""


@click.group()
def drill() -> None:
    """Try out what would be needed: a replica, cut off; its rebuilding; a failover, for real."""


drill.add_command(live)


@drill.command()
@click.argument("guest", type=GUEST)
@click.option(
    "--bridge",
    default="",
    metavar="BRIDGE",
    help="A bridge of this host that leads nowhere, for the drill's interfaces; never the guest's.",
)
@click.option("--no-network", is_flag=True, help="No interfaces at all; this is the default.")
@click.option(
    "--check",
    default="",
    metavar="COMMAND",
    help="Shell command that is run here, as you, once the copy runs: exit status 0 means that it "
    "works. It finds COLOD_GUEST, COLOD_DRILL_DOMAIN, COLOD_DRILL_DOMID, COLOD_DRILL_EPOCH and "
    "COLOD_DRILL_BRIDGE in its environment.",
)
@timeout_option(_CHECK_TIMEOUT_S, "Longest check, in seconds; a longer one has failed.", of="check")
@click.option(
    "--disk-override",
    "overrides",
    multiple=True,
    metavar="VDEV=PATH",
    help="A copy of a disk, which the drill may write to; needed for each of the guest's disks.",
)
@click.option("--keep", is_flag=True, help="Leave the copy running; it is yours to destroy.")
@click.option(
    "--if-secondary",
    is_flag=True,
    help="Do nothing, and succeed, where this host is the primary: for a timer on both hosts.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@timeout_option(_TIMEOUT_S, "Longest drill, in seconds; a longer one is given up and cleared away.")
@json_option
@click.pass_context
def isolated(
    context: click.Context,
    *,
    guest: str,
    bridge: str,
    no_network: bool,
    check: str,
    check_timeout_s: float,
    overrides: tuple[str, ...],
    keep: bool,
    if_secondary: bool,
    yes: bool,
    dry_run: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Restore GUEST's newest epoch beside its replica, cut off, and put it to the test.

    Run it on the secondary. The protection is not touched and goes on. The copy is named
    GUEST--drill, gets none of the guest's disks and no way out, and is destroyed at the end, also
    when this command is interrupted.

    Exit status: 0 the check passed; 1 it failed, or the copy did not come up; 9 there was no check.
    """
    from colod.v1 import admin_pb2

    if bridge and no_network:
        raise click.UsageError("--bridge and --no-network exclude each other", context)
    check_may_ask(context, yes=yes, dry_run=dry_run, as_json=as_json)
    request = admin_pb2.DrillRequest(
        guest=guest,
        bridge=bridge,
        check=check,
        keep=keep,
        operator=operator(),
        timeout_s=timeout_s,
        disks=[_override(each, context) for each in overrides],
    )
    with connect(context) as client:
        plan: list[str] = []
        if if_secondary and _is_primary(client, guest):
            plan, dry_run = [f"this host is the primary of {guest}: the drill is the other's"], True
        elif dry_run or not yes:
            plan = _foretold(client, request, timeout_s)
        asking = "" if yes else f"Drill {guest}?"
        if not goes_on(context, guest, plan, asking, dry_run=dry_run, as_json=as_json):
            return
        with steps(quiet=as_json) as show:
            record = _carried_out(client, request, check_timeout_s, show)
    show_result(context, guest, plan, record, as_json=as_json)


@drill.command()
@click.argument("guest", type=GUEST)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@timeout_option(
    _SECONDARY_TIMEOUT_S,
    "Longest drill, in seconds; a longer one is given up, and the replica is rebuilt all the same.",
)
@json_option
@click.pass_context
def secondary(
    context: click.Context, *, guest: str, yes: bool, dry_run: bool, timeout_s: float, as_json: bool
) -> None:
    """Throw GUEST's replica away and rebuild it: what the loss of the secondary would cost.

    Run it on the primary; it is refused unless GUEST is PROTECTED and nothing is wrong. Until the
    replica is rebuilt GUEST is not protected. When this command is interrupted nothing more is
    measured, and the replica is rebuilt all the same.

    Exit status: 0 PROTECTED again; 1 it failed, or was not done in time.
    """
    from colod.v1 import admin_pb2

    check_may_ask(context, yes=yes, dry_run=dry_run, as_json=as_json)
    request = admin_pb2.DrillSecondaryRequest(
        guest=guest, operator=operator(), timeout_s=timeout_s, dry_run=True
    )
    with connect(context) as client:
        plan: list[str] = []
        if dry_run or not yes:
            replies = client.drill_secondary(request, timeout_s=timeout_s)
            plan = [line for reply in replies for line in reply.plan]
        asking = "" if yes else f"Throw the replica of {guest} away?"
        if not goes_on(context, guest, plan, asking, dry_run=dry_run, as_json=as_json):
            return
        request.dry_run = False
        last: DrillReply | None = None
        with steps(quiet=as_json) as show:
            for last in client.drill_secondary(request, timeout_s=timeout_s + _CLEARING_S):
                show(f"{guest}: {last.step}", 0, 0)
    record = record_of(last, guest, "the replica is rebuilt all the same; see: colodctl status")
    show_result(context, guest, plan, record, as_json=as_json)


@drill.command()
@click.argument("guest", type=GUEST, required=False)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Most drills to show: the newest.",
)
@json_option
@click.pass_context
def report(context: click.Context, guest: str | None, *, limit: int, as_json: bool) -> None:
    """Show the drills on this host, of GUEST or of all guests, newest last."""
    with connect(context) as client:
        drills = list(newest(lambda most: client.drills(guest or "", most), limit).drills)
    if as_json:
        from colod.observe.documents import drill_json

        listed: DrillsDocument = {"drills": [drill_json(each) for each in drills]}
        print_json(listed)
        return
    for each in drills:
        for line in record_lines(each, layout.width()):
            click.echo(line)
    if not drills:
        click.echo("no drill is recorded on this host")


def _override(text: str, context: click.Context) -> Any:
    from colod.v1 import admin_pb2

    vdev, equals, target = text.partition("=")
    if not (vdev and equals and target):
        raise click.UsageError(f"--disk-override {text}: want VDEV=PATH", context)
    return admin_pb2.DiskOverride(vdev=vdev, target=target)


def _is_primary(client: AdminClient, guest: str) -> bool:
    """Return whether this host is the guest's primary; NotFound if it is not protected here."""
    from colod.v1 import types_pb2

    reply = client.status(guest)
    check_found(reply, guest, "drill isolated")
    return any(each.role == types_pb2.ROLE_PRIMARY for each in reply.protections)


def _foretold(client: AdminClient, request: DrillRequest, timeout_s: float) -> list[str]:
    """Return what would be done; nothing is."""
    dry = type(request)()
    dry.CopyFrom(request)
    dry.dry_run = True
    return [line for reply in client.drill(dry, timeout_s=timeout_s) for line in reply.plan]


def _carried_out(
    client: AdminClient, request: DrillRequest, check_timeout_s: float, show: ShowStep
) -> DrillRecord:
    """Have the drill carried out, run the check when it is its turn, and return the record.

    Raises:
        OutcomeUnknown: If the daemon went away meanwhile.
    """
    from colod.cli.check import Check, Ended, checking

    last: DrillReply | None = None
    telling = Telling(client)

    def tell(drill_id: str, ended: Ended) -> None:
        telling(drill_id, ended.status, ended.said)

    with telling.heard(), ExitStack() as under_way:
        for reply in client.drill(request, timeout_s=request.timeout_s + _CLEARING_S):
            last = reply
            under_way.close()  # a check that has not ended by now is not waited for
            show(f"{request.guest}: {reply.step}", reply.written_bytes, reply.total_bytes)
            if reply.step == "checking":
                check = Check(request, reply, check_timeout_s)
                under_way.enter_context(checking(check, partial(tell, reply.id)))
    return record_of(last, request.guest, "it clears the drill away; see: colodctl drill report")
