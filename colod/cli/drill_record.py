"""What the commands of `colodctl drill` share: the question before, and how a record is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from colod.cli import layout
from colod.cli.daemon import print_json
from colod.cli.exits import Exit
from colod.errors import ColodError, NotFound, OutcomeUnknown

if TYPE_CHECKING:
    from colod.observe.json_types import DrillDocument
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import DrillRecord, DrillReply

_EXITS: Final[Mapping[str, Exit]] = {"passed": Exit.OK, "not checked": Exit.NOT_CHECKED}
_LIVE: Final = "live"
_SECONDARY: Final = "secondary"


def goes_on(
    context: click.Context,
    guest: str,
    plan: list[str],
    asking: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Show what would be done, and tell whether it is to be; exit where that is denied.

    Args:
        context: Of the command.
        guest: Whose drill it is.
        plan: What would be done, for people; empty where nobody wants to know.
        asking: What to ask first; "" for nothing.
        dry_run: Whether that was all.
        as_json: Whether a program reads it.
    """
    if plan and not as_json:
        layout.print_plan(plan)
    if dry_run:
        if as_json:
            _print_json(guest, plan, None)
        else:
            click.echo(f"{guest}: nothing was done")
        return False
    if asking and not click.confirm(asking, err=True):
        click.echo("nothing was done", err=True)
        context.exit(Exit.FAILED)
    return True


class Telling:
    """Tells the daemon what a check or a probe said, in whatever thread that ends."""

    def __init__(self, client: AdminClient) -> None:
        """Tell the daemon of `client`, which is closed where that cannot be done."""
        self._client = client
        self._error: ColodError | None = None

    def __call__(self, drill_id: str, status: int, said: str, outage_s: float = 0.0) -> None:
        """Tell it; why it could not be told, `heard` raises."""
        try:
            self._client.drill_checked(drill_id, status, said, outage_s)
        except NotFound:
            pass  # the daemon has given the drill up meanwhile, and says so
        except ColodError as error:
            self._error = error
            # Else the daemon would wait for it until the time of the drill is over.
            self._client.close()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Raise in place of what ends the block why the daemon could not be told."""
        try:
            yield
        except ColodError:
            if self._error is not None:
                raise self._error from None
            raise


def record_of(last: DrillReply | None, guest: str, advice: str) -> DrillRecord:
    """Return the record with which a drill's reports end.

    Raises:
        OutcomeUnknown: If they ended before, the daemon having gone away.
    """
    if last is None or last.step != "done":
        raise OutcomeUnknown(f"{guest}: the daemon ended its reports", advice=advice)
    return last.record


def show_result(
    context: click.Context, guest: str, plan: list[str], record: DrillRecord, *, as_json: bool
) -> None:
    """Show what a drill came to, and exit by its verdict."""
    if as_json:
        _print_json(guest, plan, record)
    else:
        for line in record_lines(record, layout.width()):
            click.echo(line)
    context.exit(_EXITS.get(record.verdict, Exit.FAILED))


def _print_json(guest: str, plan: list[str], record: DrillRecord | None) -> None:
    """Print a drill, or that one was only foretold."""
    from colod.observe.documents import drill_json

    content: DrillDocument = {
        "guest": guest,
        "dry_run": record is None,
        "plan": plan,
        "drill": None if record is None else drill_json(record),
    }
    print_json(content)


def verdict_text(record: DrillRecord) -> str:
    """Return what a drill came to, in a line without its time."""
    epoch = f"epoch {record.epoch}" if record.epoch else "no epoch"
    kind = f"{record.kind}, as if a host had died" if record.as_if_host_died else record.kind
    return f"{record.guest} on {record.host}: {kind}, {epoch}: {record.verdict.upper()}"


def record_lines(record: DrillRecord, columns: int) -> Iterator[str]:
    """Yield what a drill came to, for people."""
    yield from layout.pairs([(layout.instant(record.unix_s), verdict_text(record))], columns)
    for text in (record.detail, ", ".join(_parts(record)), _around(record), _left(record)):
        if text:
            yield from layout.pairs([(" " * 20, text)], columns)


def _parts(record: DrillRecord) -> Iterator[str]:
    """Yield what was measured, the whole before its parts."""
    from colod.observe.documents import measured_by

    of_live = record.kind == _LIVE
    back = (
        ("back", record.failback_s),
        ("then no answer for", record.failback_outage_s),
        ("PROTECTED after", record.failback_protect_s),
    )
    for label, value in (
        ("RPO", record.rpo_s),
        ("no answer for", measured_by(record, record.outage_s, _LIVE)),
        ("RTO", record.rto_s),
        ("image", record.image_s),
        ("restore", record.restore_s),
        ("decision", measured_by(record, record.decide_s, _LIVE)),
        ("start", record.start_s),
        ("check", record.check_s),
        ("unprotected", measured_by(record, record.unprotected_s, _SECONDARY, _LIVE)),
        ("old replica gone", measured_by(record, record.discard_s, _SECONDARY)),
        ("new one PROTECTED", measured_by(record, record.protect_s, _SECONDARY, _LIVE)),
        *(back if of_live else ()),
    ):
        if value is not None and value >= 0:
            yield f"{label} {layout.seconds(value)}"


def _around(record: DrillRecord) -> str:
    """Say where the drill was cut off, or where it has left the guest; and who asked for it."""
    if record.kind == _SECONDARY:
        return f"by {record.operator}"
    if record.kind != _LIVE:
        return f"network {record.network}, by {record.operator}"
    at = f" at generation {record.end_generation}" if record.end_generation else ""
    left = f"left on {record.end_owner}{at}, " if record.end_owner else ""
    return f"{left}by {record.operator}"


def _left(record: DrillRecord) -> str:
    return f"{record.guest}--drill was left running" if record.is_kept else ""
