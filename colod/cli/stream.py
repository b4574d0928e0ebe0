"""`colodctl stream`: looks into migration streams and save files, without a daemon."""

import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table

from colod.cli import layout
from colod.cli.daemon import json_option, print_json
from colod.errors import StreamError
from colod.stream.events import Event, RecordSeen
from colod.stream.grammar import record_name
from colod.stream.inspect import Ending, StreamSummary
from colod.stream.parser import StreamParser

EXIT_TRUNCATED = 3
EXIT_INVALID = 4
_EXIT_STATUS = {Ending.COMPLETE: 0, Ending.TRUNCATED: EXIT_TRUNCATED, Ending.INVALID: EXIT_INVALID}

_BUFFER_BYTES = 1 << 20
_PROGRESS_FROM_BYTES = 256 << 20
_TABLE_ROWS = 40

Report = Callable[[int], None]


@click.group()
def stream() -> None:
    """Look into migration streams and save files."""


@stream.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@json_option
@click.option("--records", is_flag=True, help="List every record: offset, layer, type, length.")
@click.option("--all-epochs", is_flag=True, help="Do not shorten the table of epochs.")
@click.pass_context
def inspect(
    context: click.Context, file: str, *, as_json: bool, records: bool, all_epochs: bool
) -> None:
    """Say what FILE holds: an `xl save` image or a captured stream (- is standard input).

    Prints domain, Xen version, the pages, bytes and records of each epoch, and how the stream
    ended. A stream of `xl remus` has no end record, so that every capture of one is truncated.

    Exit status: 0 complete; 3 truncated; 4 not a valid stream; 2 wrong usage; 1 not readable.
    """
    if as_json and records:
        raise click.UsageError("--json and --records exclude each other")
    on_event = _print_record if records else _ignore
    try:
        with click.open_file(file, "rb") as source, _progress(source) as report:
            summary = summarise(_chunks(source, report), on_event)
    except BrokenPipeError:
        raise  # of our own output: click ends quietly
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    if as_json:
        print_json(summary.to_json())
    else:
        _print_summary(summary, all_epochs=all_epochs)
    assert summary.ending is not None
    context.exit(_EXIT_STATUS[summary.ending])


def summarise(chunks: Iterator[memoryview], on_event: Callable[[Event], None]) -> StreamSummary:
    """Parse a whole stream and sum it up.

    Args:
        chunks: The stream's bytes; each chunk may be overwritten once the next is asked for.
        on_event: Called with each event, in order.

    Returns:
        The summary, ended; an invalid stream is no error here.
    """
    parser = StreamParser()
    summary = StreamSummary()
    bytes_read = 0
    error = None
    try:
        for chunk in chunks:
            bytes_read += len(chunk)
            for event in parser.feed(chunk):
                summary.add(event)
                on_event(event)
            if parser.error:
                break
        parser.finish()
    except StreamError as caught:
        error = caught
    summary.end(bytes_read, error)
    return summary


def _chunks(source: IO[bytes], report: Report) -> Iterator[memoryview]:
    """Read the source through one buffer of bounded size."""
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    while size := source.readinto(buffer):  # type: ignore[attr-defined]
        yield view[:size]
        report(size)


def _progress(source: IO[bytes]) -> "_Bar | nullcontext[Report]":
    """Show a bar on standard error, if someone looks and the file is big."""
    if not sys.stderr.isatty():
        return nullcontext(_ignore)
    try:
        status = Path(f"/proc/self/fd/{source.fileno()}").stat()
    except (OSError, ValueError):
        return nullcontext(_ignore)
    if not stat.S_ISREG(status.st_mode) or status.st_size < _PROGRESS_FROM_BYTES:
        return nullcontext(_ignore)
    return _Bar(status.st_size)


class _Bar:
    """A progress bar in bytes, on standard error."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("reading", total=total)

    def __enter__(self) -> Report:
        self._progress.start()
        return lambda size: self._progress.advance(self._task, size)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _ignore(_: object) -> None:
    """Do nothing."""


def _print_record(event: Event) -> None:
    if isinstance(event, RecordSeen):
        name = record_name(event.layer, event.type)
        click.echo(f"{event.offset} {event.layer.value} {name} {event.length}")


def _print_summary(summary: StreamSummary, *, all_epochs: bool) -> None:
    for label, value in _facts(summary):
        click.echo(f"{label:<9} {value}")
    if summary.epochs:
        click.echo()
        _print_epochs(summary, all_epochs=all_epochs)


def _facts(summary: StreamSummary) -> Iterator[tuple[str, str]]:
    yield "domain", _printable(summary.name or "unknown")
    yield "type", _printable((summary.guest_type or "unknown").upper())
    if summary.xen_version:
        yield "xen", "{}.{}".format(*summary.xen_version)
    if summary.byte_order:
        formats = f"libxl v{summary.libxl_version}, libxc v{summary.libxc_version or '?'}"
        converted = ", converted from legacy" if summary.is_converted else ""
        yield "format", f"{formats}, {summary.byte_order.name.lower()}-endian{converted}"
    yield "bytes", str(summary.bytes)
    yield "epochs", f"{summary.whole_epochs} whole"
    yield "ended", _ending(summary)


def _printable(text: str) -> str:
    """Escape what a crafted image could do to a terminal."""
    return text if text.isprintable() else ascii(text)


def _ending(summary: StreamSummary) -> str:
    match summary.ending:
        case Ending.TRUNCATED:
            return f"truncated_at {summary.truncated_at}"
        case Ending.INVALID:
            return f"invalid: {summary.error}"
        case _:
            return "complete"


def _print_epochs(summary: StreamSummary, *, all_epochs: bool) -> None:
    table = Table("epoch", "offset", "bytes", "pages", "records", "", box=None, pad_edge=False)
    for column in table.columns[:5]:
        column.justify = "right"
    shown = summary.epochs
    hidden = 0 if all_epochs else max(0, len(shown) - _TABLE_ROWS)
    if hidden:
        shown = shown[: _TABLE_ROWS // 2] + shown[-(_TABLE_ROWS // 2) :]
    for index, epoch in enumerate(shown):
        if hidden and index == _TABLE_ROWS // 2:
            table.add_row("...", end_section=False)
        numbers = (epoch.epoch, epoch.offset, epoch.bytes, epoch.pages, epoch.records)
        table.add_row(*map(str, numbers), "" if epoch.is_sealed else "not sealed")
    Console(width=layout.width()).print(table)
    if hidden:
        click.echo(f"{hidden} epochs are not shown; --all-epochs shows them")
