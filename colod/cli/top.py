"""`colodctl top`."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, check_found, connect, json_option, print_json

if TYPE_CHECKING:
    from colod.cli.trend import Trend
    from colod.observe.json_types import GuestLook, TopDocument
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import ProtectionStatus, StatusReply

_HEADS: Final = ("GUEST", "ROLE", "STATE", "LAG", "PAUSE", "HOLD", "WIRE/S", "HELD")
_CURVE_HEAD: Final = "LAGS"
_CURVE_MIN: Final = 8
_GUEST_MIN: Final = 8
_GAP: Final = 2
_MARK: Final = "*"
_MARK_MEANS: Final = f"{_MARK} output not held: clients may have seen what a failover takes back"
_ROLES: Final = {"primary": "pri", "secondary": "sec", None: "-"}


class Look(NamedTuple):
    """One look at the guests of a host.

    Attributes:
        reply: What the daemon said.
        unix_s: When, by the wall clock.
        rows: What was measured of each guest, by its name in JSON.
        trends: Each guest over time.
    """

    reply: StatusReply
    unix_s: float
    rows: Sequence[GuestLook]
    trends: Mapping[str, Trend]


@click.command()
@click.argument("guest", type=GUEST, required=False)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds from look to look.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many looks.")
@json_option
@click.pass_context
def top(
    context: click.Context,
    guest: str | None,
    *,
    interval_s: float,
    count: int | None,
    as_json: bool,
) -> None:
    """Show this host's guests live: lag, pauses, held output and traffic; an interrupt ends it.

    LAG is the age of the oldest guest state that the other host does not hold, LAGS its curve from
    0 to the greatest one shown. PAUSE is how long the guest was suspended for the last epoch, HOLD
    the longest that a packet waited for it, WIRE/S the traffic on the link of acknowledged epochs,
    HELD the packets that wait. What was not measured is `unknown`, never 0; `-` is what a host in
    that role, or a guest without a replica, does not have.
    """
    with connect(context) as client:
        looks = _looks(client, guest or "", interval_s, count)
        if as_json:
            for look in looks:
                print_json(_json(look, interval_s), on_one_line=True)
        else:
            _draw(looks)


def _looks(client: AdminClient, guest: str, interval_s: float, count: int | None) -> Iterator[Look]:
    from colod.cli.trend import Trend
    from colod.observe.documents import lag_json

    trends: dict[str, Trend] = {}
    number = 0
    while number != count:
        began = time.monotonic()
        reply = client.status(guest)
        check_found(reply, guest, "top")
        now = time.monotonic()
        for status in reply.protections:
            trend = trends.setdefault(status.guest, Trend())
            trend.add(status, lag_json(status)["lag_s"], now)
        rows = [_row(status, trends[status.guest]) for status in reply.protections]
        yield Look(reply, time.time(), rows, trends)
        number += 1
        if number != count:
            time.sleep(max(0.0, began + interval_s - time.monotonic()))


def _row(status: ProtectionStatus, trend: Trend) -> GuestLook:
    from colod.cli.lag import measured
    from colod.observe.documents import role_of

    has_gate = status.HasField("gate")
    return {
        **measured(status),
        "role": role_of(status),
        "wire_bytes_per_s": trend.wire_bytes_per_s,
        "held_packets": status.gate.held_packets if has_gate else None,
        "held_bytes": status.gate.held_bytes if has_gate else None,
    }


def _json(look: Look, interval_s: float) -> TopDocument:
    return {
        "host": look.reply.host,
        "simulated": look.reply.simulated,
        "unix_s": look.unix_s,
        "interval_s": interval_s,
        "guests": list(look.rows),
    }


def _draw(looks: Iterator[Look]) -> None:
    """Redraw the screen with each look, or print one table after the other where there is none."""
    from rich.live import Live
    from rich.text import Text

    plain = not _can_draw_bars()  # rich replaces stdout by one that has no encoding
    with Live(auto_refresh=False) if sys.stdout.isatty() else nullcontext() as live:
        for number, look in enumerate(looks):
            text = "\n".join(lines(look, layout.width(), plain=plain))
            if live is None:
                click.echo(f"\n{text}" if number else text)
            else:
                live.update(Text(text), refresh=True)


def _can_draw_bars() -> bool:
    from colod.cli.trend import sparkline

    try:
        sparkline([1.0, None], 2).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def lines(look: Look, columns: int, *, plain: bool) -> Iterator[str]:
    """Yield the lines of one look, none longer than `columns` (80 or more).

    Args:
        look: What to show.
        columns: Width to fit into.
        plain: Whether to draw in ASCII.
    """
    reply = look.reply
    xen = ": simulated Xen" if reply.simulated else ""
    yield from textwrap.wrap(f"{reply.host}{xen}, {layout.instant(look.unix_s)}", columns)
    if not reply.protections:
        yield f"{reply.host} protects nothing and holds no replica"
        return
    rows = [_cells(status, row) for status, row in zip(reply.protections, look.rows, strict=True)]
    room = _room_for_curve(rows, columns)
    heads = [*_HEADS]
    if room >= _CURVE_MIN:
        heads.append(_CURVE_HEAD)
        rows = [
            [*cells, _curve(look.trends[status.guest], room, plain=plain)]
            for status, cells in zip(reply.protections, rows, strict=True)
        ]
    yield from layout.table(heads, rows, columns, names=(0,))
    if any(cells[2].endswith(_MARK) for cells in rows):
        yield _MARK_MEANS


def _cells(status: ProtectionStatus, row: GuestLook) -> list[str]:
    from colod.cli.report import shown_lag, shown_state

    lag = shown_lag(status)
    absent = "-" if lag == "-" or row["role"] != "primary" else "unknown"
    is_unheld = status.state == "REPLICATING"
    rate, held = row["wire_bytes_per_s"], row["held_packets"]
    return [
        status.guest,
        _ROLES[row["role"]],
        f"{status.state}{_MARK}" if is_unheld else shown_state(status),
        lag,
        *(absent if s is None else layout.seconds(s) for s in (row["pause_s"], row["hold_s"])),
        absent if rate is None else layout.size(rate),
        "-" if held is None else str(held),
    ]


def _room_for_curve(rows: Sequence[Sequence[str]], columns: int) -> int:
    """Return how wide the curves may be; long names of guests are folded in favour of them."""
    sizes = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
    left = columns - sum(sizes[1:]) - _GAP * len(sizes)
    return max(left - sizes[0], min(_CURVE_MIN, left - min(sizes[0], _GUEST_MIN)))


def _curve(trend: Trend, width: int, *, plain: bool) -> str:
    from colod.cli.trend import sparkline

    return sparkline(trend.lags, width, plain=plain).ljust(width)  # or the table grows with it
