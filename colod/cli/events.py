"""`colodctl events`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, connector, json_option, print_json

if TYPE_CHECKING:
    from colod.cli.eventlog import Event
    from colod.observe.json_types import EventDocument

    _InstantParameter = click.ParamType[float]
else:  # older releases of click cannot be subscripted
    _InstantParameter = click.ParamType

_LIMIT: Final = 100
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class SinceParameter(_InstantParameter):
    """A time of day, or how long ago that is; seconds since 1970 for the command."""

    name = "since"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the instant, or fail with what is understood."""
        if found := _DURATION.fullmatch(value):
            return time.time() - float(found[1]) * _UNIT_S[found[2]]
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value}: want 90s, 10m, 2h, 7d or 2030-01-31T12:00:00Z", param, ctx)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


@click.command()
@click.argument("guest", type=GUEST, required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option(
    "--since",
    "since_unix_s",
    type=SinceParameter(),
    metavar="WHEN",
    help="Begin there: 90s, 10m, 2h or 7d ago, or at 2030-01-31T12:00:00Z (UTC unless it says "
    "otherwise).",
)
@click.option(
    "--limit",
    type=click.IntRange(0, 10_000),
    help=f"Most events of the past to show: the newest.  [default: {_LIMIT}; all with --since]",
)
@json_option
@click.pass_context
def events(
    context: click.Context,
    *,
    guest: str | None,
    follow: bool,
    since_unix_s: float | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show what happened on this host, to GUEST or to all guests: one line each, oldest first.

    That is changes of state, drills that have ended (with the time of their begin), and when
    automation was paused. With --follow it goes on: it says when the daemon goes away and when it
    is back, and then tells all that was recorded meanwhile, each event once. A pause that began
    and ended between two looks (a second) is not seen. Lines are not folded, for grep.
    """
    from colod.cli.eventlog import EventLog

    if limit is None and since_unix_s is None:
        limit = _LIMIT
    show = _print_json if as_json else _print_line
    log = EventLog(guest or "")
    connect = connector(context)
    with connect() as client:
        past = log.past(client, since_unix_s=since_unix_s, limit=limit)
    for event in past:
        show(event)
    if follow:
        for event in log.follow(connect):
            show(event)
    elif not (past or as_json):
        click.echo("no event is recorded")


def _print_line(event: Event) -> None:
    text = ": ".join(part for part in _parts(event) if part)
    # A cause may quote what a program wrote, in several lines.
    click.echo(f"{layout.instant(event.unix_s)}  {' '.join(text.split())}")


def _parts(event: Event) -> Iterator[str]:
    """Yield what happened, from the general to the particular."""
    if event.change:
        from colod.cli.history import change_text

        yield change_text(event.change)
        yield event.change.cause
    elif event.drill:
        from colod.cli.drill_record import verdict_text

        yield "drill"
        yield verdict_text(event.drill)
        yield event.drill.detail
    elif event.automation:
        from colod.cli.report import paused_by

        paused = event.automation.paused
        yield f"automation on {event.host}"
        yield paused_by(event.automation) if paused else "goes on"
        yield event.automation.reason
    else:
        yield f"daemon on {event.host}"
        yield "answers again" if event.reachable else "went away; waiting for it"


def _print_json(event: Event) -> None:
    from colod.observe.documents import automation_json, drill_json, entry_json

    content: EventDocument = {
        "unix_s": event.unix_s,
        "host": event.host,
        "guest": event.guest or None,
        "change": entry_json(event.change) if event.change else None,
        "drill": drill_json(event.drill) if event.drill else None,
        "automation": automation_json(event.automation) if event.automation else None,
        "daemon_reachable": event.reachable,
    }
    print_json(content, on_one_line=True)
