"""`colodctl checkpoint`: images of the replicas that this host holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, connect, json_option, known, print_json, timeout_option
from colod.cli.progress import steps
from colod.errors import OutcomeUnknown

if TYPE_CHECKING:
    from colod.observe import json_types
    from colod.observe.json_types import CheckpointsDocument, ExportDocument
    from colod.v1.admin_pb2 import CheckpointsReply, ExportedImage, ImageSchedule, KeptImage

_TIMEOUT_S = 3600.0


@click.group()
def checkpoint() -> None:
    """List and write images of replicas, on the secondary; or make a checkpoint now, in COLO.

    An image is what `xl save` would have written of the guest at its newest acknowledged epoch:
    `xl restore` takes it. It needs `checkpoints.keep`.
    """


@checkpoint.command()
@click.argument("guest", type=GUEST)
@json_option
@click.pass_context
def now(context: click.Context, guest: str, *, as_json: bool) -> None:
    """Make both copies of GUEST, which is replicated in COLO, equal now; run it on the primary."""
    with connect(context) as client:
        checkpoints = client.make_checkpoint(guest)
    if as_json:
        print_json({"guest": guest, "checkpoints": checkpoints})
    else:
        click.echo(f"{guest}: both copies are equal as of checkpoint {checkpoints}")


@checkpoint.command("list")
@click.argument("guest", type=GUEST, required=False)
@json_option
@click.pass_context
def list_(context: click.Context, guest: str | None, *, as_json: bool) -> None:
    """Show of which replicas an image can be written now, and which images there are."""
    with connect(context) as client:
        reply = client.checkpoints(guest or "")
    if as_json:
        print_json(_listing_json(reply))
        return
    for line in _lines(reply, layout.width()):
        click.echo(line)


@checkpoint.command()
@click.argument("guest", type=GUEST)
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help="Of the file in checkpoints.directory [default: the guest's name and the time].",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written.")
@timeout_option(_TIMEOUT_S, "Longest wait, in seconds; it goes on after that.")
@json_option
@click.pass_context
def export(
    context: click.Context, guest: str, *, name: str, dry_run: bool, timeout_s: float, as_json: bool
) -> None:
    """Write GUEST's newest acknowledged epoch to a file that `xl restore` takes.

    Replication goes on meanwhile. The image is of one moment, and is under its name only once all
    of it is on the disk. It holds everything that is in the guest's memory.
    """
    from colod.v1 import admin_pb2

    request = admin_pb2.ExportCheckpointRequest(guest=guest, name=name, dry_run=dry_run)
    last = admin_pb2.ExportCheckpointReply()
    plan: list[str] = []
    with connect(context) as client, steps(quiet=as_json) as show:
        for reply in client.export_checkpoint(request, timeout_s=timeout_s):
            plan += reply.plan
            last = reply
            if not reply.plan:
                show(f"{guest}: writing", reply.written_bytes, reply.total_bytes)
    if not (dry_run or last.is_done):
        raise OutcomeUnknown(f"{guest}: the daemon ended its reports", advice="checkpoint list")
    if as_json:
        content: ExportDocument = {
            "guest": guest,
            "dry_run": dry_run,
            "plan": plan,
            "path": last.path,
            "epoch": last.epoch,
            "epoch_age_s": known(last.epoch_age_s) if last.is_done else None,
            "bytes": last.written_bytes if last.is_done else None,
        }
        print_json(content)
    elif dry_run:
        layout.print_plan(plan)
        click.echo(f"{guest}: nothing was written")
    else:
        click.echo(
            f"{guest}: epoch {last.epoch} is in {last.path}, {layout.size(last.written_bytes)}"
        )


def _lines(reply: CheckpointsReply, columns: int) -> Iterator[str]:
    for kept in reply.kept:
        yield from layout.paragraph(kept.guest, _kept_text(kept), columns)
        if kept.advice:
            yield from layout.paragraph("hint", kept.advice, columns)
    if not reply.kept:
        yield "this host holds no replica"
    if reply.exported:
        yield ""
        yield reply.directory
        yield from _table(reply.exported, "WRITTEN", columns)
    if reply.HasField("schedule"):
        yield ""
        yield from _schedule_lines(reply.schedule, columns)


def _table(images: Sequence[ExportedImage], when: str, columns: int) -> Iterator[str]:
    rows = [
        [each.name, layout.size(each.size_bytes), layout.instant(each.unix_s)] for each in images
    ]
    yield from layout.table(["IMAGE", "SIZE", when], rows, columns, names=(0,))


def _schedule_lines(schedule: ImageSchedule, columns: int) -> Iterator[str]:
    terms = (
        f"the last {schedule.keep_images} of each guest, one every "
        f"{layout.seconds(schedule.every_s)}; {layout.size(schedule.used_bytes)} of "
        f"{layout.size(schedule.limit_bytes)} taken"
    )
    yield from layout.paragraph(schedule.directory, terms, columns)
    for each in schedule.guests:
        if each.trouble:
            yield from layout.paragraph(each.guest, f"no new image: {each.trouble}", columns)
    if schedule.images:
        yield from _table(schedule.images, "BEGUN", columns)


def _kept_text(kept: KeptImage) -> str:
    if not kept.is_kept:
        return kept.trouble
    age = f", {layout.seconds(kept.epoch_age_s)} old" if kept.epoch_age_s >= 0 else ""
    return f"epoch {kept.epoch}{age}, {layout.size(kept.image_bytes)}"


def _listing_json(reply: CheckpointsReply) -> CheckpointsDocument:
    return {
        "directory": reply.directory or None,
        "kept": [
            {
                "guest": each.guest,
                "is_kept": each.is_kept,
                "trouble": each.trouble,
                "advice": each.advice,
                "epoch": each.epoch or None,
                "epoch_age_s": known(each.epoch_age_s),
                "image_bytes": each.image_bytes if each.is_kept else None,
            }
            for each in reply.kept
        ],
        "exported": _images_json(reply.exported),
        "schedule": _schedule_json(reply.schedule) if reply.HasField("schedule") else None,
    }


def _images_json(images: Iterable[ExportedImage]) -> list[json_types.ExportedImage]:
    return [
        {"name": each.name, "size_bytes": each.size_bytes, "unix_s": each.unix_s} for each in images
    ]


def _schedule_json(schedule: ImageSchedule) -> json_types.ImageSchedule:
    return {
        "every_s": schedule.every_s,
        "keep_images": schedule.keep_images,
        "limit_bytes": schedule.limit_bytes,
        "used_bytes": schedule.used_bytes,
        "directory": schedule.directory,
        "guests": [
            {
                "guest": each.guest,
                "trouble": each.trouble,
                "last_unix_s": each.last_unix_s or None,
            }
            for each in schedule.guests
        ],
        "images": _images_json(schedule.images),
    }
