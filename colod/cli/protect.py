"""`colodctl protect` and `unprotect`."""

from __future__ import annotations

import click

from colod.cli.daemon import GUEST, HOST, connect, json_option, print_json
from colod.cli.layout import print_plan
from colod.cli.waiting import (
    print_reached,
    reach_replica,
    reached_json,
    wait_option,
    wait_timeout_option,
)
from colod.observe.json_types import ProtectDocument, UnprotectDocument


@click.command()
@click.argument("guest", type=GUEST)
@click.option("--to", type=HOST, required=True, help="Host that shall hold the replica.")
@click.option(
    "--disks",
    type=click.Choice(["none", "shared", "external"]),
    required=True,
    help="What holds of the guest's disks: it has none; both hosts reach the same (needs "
    "fencing); something else replicates them.",
)
@click.option(
    "--mode",
    type=click.Choice(["remus", "colo"]),
    help="Checkpoints by the clock, the replica paused; or both copies run, their output is "
    "compared, and checkpoints are made when it differs.  [default: remus]",
)
@click.option(
    "--interval-ms",
    type=click.IntRange(20, 60000),
    help="Time from one commit to the next checkpoint; in COLO the longest time between two.  "
    "[default: 200, in COLO 4000]",
)
@wait_option
@wait_timeout_option
@click.option("--dry-run", is_flag=True, help="Check, and say what would be done.")
@json_option
@click.pass_context
def protect(
    context: click.Context,
    *,
    guest: str,
    to: str,
    disks: str,
    mode: str | None,
    interval_ms: int | None,
    wait: bool,
    timeout_s: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Begin to replicate GUEST, which runs on this host, to another host."""
    from colod.v1 import admin_pb2

    request = admin_pb2.ProtectRequest(
        guest=guest,
        to=to,
        disks=disks,
        interval_ms=interval_ms or 0,
        dry_run=dry_run,
        mode=mode or "",
    )
    with connect(context) as client:
        plan = list(client.protect(request).plan)
        if not as_json:
            print_plan(plan)
        reached = None
        if wait and not dry_run:
            reached = reach_replica(client, guest, timeout_s, quiet=as_json)
    if as_json:
        status = reached_json(reached)
        print_json(ProtectDocument(guest=guest, dry_run=dry_run, plan=plan, status=status))
    elif dry_run:
        click.echo(f"{guest}: can be protected so; nothing was changed")
    else:
        print_reached(guest, reached)


@click.command()
@click.argument("guest", type=GUEST)
@json_option
@click.pass_context
def unprotect(context: click.Context, guest: str, *, as_json: bool) -> None:
    """End the protection of GUEST: it goes on running here, its replica is given up."""
    with connect(context) as client:
        client.unprotect(guest)
    if as_json:
        print_json(UnprotectDocument(guest=guest, protected=False))
    else:
        click.echo(f"{guest}: not protected any more")
