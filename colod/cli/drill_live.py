"""`colodctl drill live`: a failover by choice, measured from the guest's clients as well."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from colod.cli.daemon import (
    GUEST,
    Seconds,
    check_may_ask,
    connect,
    json_option,
    operator,
    timeout_option,
)
from colod.cli.drill_record import Telling, goes_on, record_of, show_result
from colod.cli.probe import INTERVAL_S, LIMIT_S, SILENCE_S, Probe, Probed
from colod.cli.progress import ShowStep, steps

if TYPE_CHECKING:
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import DrillLiveRequest, DrillRecord, DrillReply

_TIMEOUT_S: Final = 1800.0
_ENDING_S: Final = 30.0
"""How much longer than the drill itself its record is waited for."""


@click.command()
@click.argument("guest", type=GUEST)
@click.option(
    "--as-if-host-died",
    is_flag=True,
    help="Take GUEST over without asking its primary; run it on the secondary. What GUEST has done "
    "since the newest acknowledged epoch is rolled back.",
)
@click.option(
    "--fence",
    is_flag=True,
    help="Agree that the other host is switched off, where a takeover has to fence it (shared "
    "disks).",
)
@click.option("--failback", is_flag=True, help="Bring GUEST back once it is PROTECTED again.")
@click.option(
    "--probe",
    default="",
    metavar="COMMAND",
    help="Shell command that is run here, as you, again and again: exit status 0 means that GUEST "
    f"answers. One begins each {INTERVAL_S * 1000:g} ms, or when the last one has ended. It finds "
    "COLOD_GUEST in its environment.",
)
@click.option(
    "--probe-limit",
    "probe_limit_s",
    type=Seconds(min=0, min_open=True),
    default=LIMIT_S,
    show_default=True,
    help="Longest run of the probe, in seconds; a longer one is killed, and is no answer.",
)
@timeout_option(
    SILENCE_S,
    "How long GUEST may give the probe no answer, in seconds, before the drill has failed.",
    of="probe",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@timeout_option(
    _TIMEOUT_S,
    "Longest drill, in seconds; a longer one is given up where it is, and GUEST is protected again "
    "all the same.",
)
@json_option
@click.pass_context
def live(
    context: click.Context,
    *,
    guest: str,
    as_if_host_died: bool,
    fence: bool,
    failback: bool,
    probe: str,
    probe_limit_s: float,
    probe_timeout_s: float,
    yes: bool,
    dry_run: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Fail GUEST over to the other host for real, and have it PROTECTED again.

    Run it on the primary: GUEST is given away after a final epoch, with nothing lost. With
    --as-if-host-died run it on the secondary, which takes GUEST over. It is refused unless GUEST is
    PROTECTED and nothing is wrong.

    When this command is interrupted nothing more is measured; what was not decided is taken back.

    Exit status: 0 PROTECTED again, and the probe had its answers; 1 it failed, or was not done in
    time; 9 there was no probe.
    """
    from colod.v1 import admin_pb2

    if fence and not as_if_host_died:
        raise click.UsageError("--fence goes with --as-if-host-died only", context)
    check_may_ask(context, yes=yes, dry_run=dry_run, as_json=as_json)
    request = admin_pb2.DrillLiveRequest(
        guest=guest,
        operator=operator(),
        timeout_s=timeout_s,
        as_if_host_died=as_if_host_died,
        fence=fence,
        failback=failback,
        probe=probe,
        dry_run=True,
    )
    with connect(context) as client:
        plan: list[str] = []
        if dry_run or not yes:
            replies = client.drill_live(request, timeout_s=timeout_s)
            plan = [line for reply in replies for line in reply.plan]
        asking = "" if yes else _question(guest, as_if_host_died=as_if_host_died)
        if not goes_on(context, guest, plan, asking, dry_run=dry_run, as_json=as_json):
            return
        request.dry_run = False
        with steps(quiet=as_json) as show:
            asks = None
            if probe:
                asks = Probe(probe, guest, silence_s=probe_timeout_s, limit_s=probe_limit_s)
            record = _carried_out(client, request, asks, show)
    show_result(context, guest, plan, record, as_json=as_json)


def _question(guest: str, *, as_if_host_died: bool) -> str:
    if as_if_host_died:
        return f"Take {guest} over, and roll back what it did since the newest acknowledged epoch?"
    return f"Fail {guest} over, for real?"


def _carried_out(
    client: AdminClient, request: DrillLiveRequest, probe: Probe | None, show: ShowStep
) -> DrillRecord:
    """Have the drill carried out, tell what the probe says when it is asked, return the record.

    Raises:
        OutcomeUnknown: If the daemon went away meanwhile.
    """
    last: DrillReply | None = None
    telling = Telling(client)

    def tell(drill_id: str, probed: Probed) -> None:
        telling(drill_id, probed.status, probed.said, probed.outage_s)

    with ExitStack() as under_way:
        if probe is not None:
            under_way.enter_context(probe)
        under_way.enter_context(telling.heard())
        for last in client.drill_live(request, timeout_s=request.timeout_s + _ENDING_S):
            show(f"{request.guest}: {last.step}", 0, 0)
            if last.step == "probing" and probe is not None:
                probe.ask(partial(tell, last.id))
    advice = "who owns the guest is settled all the same; see: colodctl status"
    return record_of(last, request.guest, advice)
