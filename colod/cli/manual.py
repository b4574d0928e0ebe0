"""The manual of `colodctl`, written from the commands themselves: man pages and a page of Markdown.

python -m colod.cli.manual DIRECTORY        # colodctl.1 and a page for each command
python -m colod.cli.manual >docs/cli-reference.md
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from colod import __version__
from colod.cli.exits import Exit
from colod.cli.main import cli

_HEAD: Final = """\
# Reference of colodctl

<!-- Written by `python -m colod.cli.manual`; tests compare the two. -->

Every command with every option; [cli.md](cli.md) tells what they are for, what their exit statuses
mean and what `--json` prints. `make man` writes the same as man pages.
"""
_WORDS: Final = {"integer": "N", "float": "S", "integer range": "N", "float range": "S"}
_EXIT_STATUS: Final = "Exit status:"
_STATUS: Final = re.compile(r"(\d+) ([^;.]+)")
_SUMMARY_COLUMNS: Final = 1000
_FILES: Final = (
    ("/etc/colod/colod.toml", "The configuration, which names the daemon's socket."),
    ("/run/colod/admin.sock", "The daemon's socket, where no configuration names another."),
)


def pages() -> Iterator[click.Context]:
    """Yield each command of `colodctl`, itself first, each group before its commands."""
    return _below(click.Context(cli, info_name="colodctl"))


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    for child in _children(context):
        yield from _below(child)


def _children(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield click.Context(command, info_name=name, parent=context)


def page_name(context: click.Context) -> str:
    """Return the name of a command's man page, without its section."""
    return context.command_path.replace(" ", "-")


def _summary(context: click.Context) -> str:
    return context.command.get_short_help_str(_SUMMARY_COLUMNS).rstrip(".")


def _usage(context: click.Context) -> Iterator[str]:
    """Yield the words that follow the command's name."""
    command = context.command
    if any(isinstance(each, click.Option) for each in command.params):
        yield "[OPTIONS]"
    for each in command.params:
        if isinstance(each, click.Argument):
            name = (each.name or "").upper()
            yield name if each.required else f"[{name}]"
    if isinstance(command, click.Group):
        yield "COMMAND"


def _options(context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the options of a command and what they say."""
    for each in context.command.params:
        if isinstance(each, click.Option):
            yield _spelling(each), " ".join(_said(each))


def _spelling(option: click.Option) -> str:
    names = ", ".join((*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    kind = option.type
    choices = "|".join(kind.choices) if isinstance(kind, click.Choice) else ""
    word = option.metavar or choices or _WORDS.get(kind.name, kind.name.upper())
    return f"{names} {word}"


def _said(option: click.Option) -> Iterator[str]:
    yield " ".join((option.help or "").split())
    if option.required:
        yield "(required)"
    kind = option.type
    if isinstance(kind, click.IntRange | click.FloatRange):
        least = "" if kind.min is None else f"{'more than' if kind.min_open else 'from'} {kind.min}"
        most = "" if kind.max is None else f"to {kind.max}"
        yield f"({' '.join(filter(None, (least, most)))})"
    if option.show_default:
        is_off = option.secondary_opts and not option.default
        default = option.secondary_opts[0] if is_off else option.opts[0]
        yield f"(default: {default if option.is_flag else _plain(option.default)})"
    if option.multiple:
        yield "(may be repeated)"
    if option.envvar:
        yield f"(environment: {option.envvar})"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _paragraphs(context: click.Context) -> Sequence[str]:
    """Return what the command's help says, a paragraph each."""
    text = context.command.help or ""
    return [" ".join(each.split()) for each in text.split("\n\n")]


# --- Markdown -------------------------------------------------------------------------------------


def reference() -> str:
    """Return the reference of all commands, as Markdown."""
    return "\n".join([_HEAD, *(line for context in pages() for line in _section(context))])


def _section(context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    yield f"    {' '.join((context.command_path, *_usage(context)))}\n"
    for paragraph in _paragraphs(context):
        yield f"{paragraph}\n"
    options = [f"- `{spelling}`: {said}" for spelling, said in _options(context)]
    if options:
        yield "\n".join(options) + "\n"


# --- man ------------------------------------------------------------------------------------------


def man_page(context: click.Context, date: str) -> str:
    """Return the man page of a command, for the macros of man(7).

    Args:
        context: The command, as `pages` gives it.
        date: The page's date, YYYY-MM-DD.
    """
    return "\n".join(_lines(context, date)) + "\n"


def _lines(context: click.Context, date: str) -> Iterator[str]:
    name, path = page_name(context), context.command_path
    yield f'.TH {name.upper()} 1 {date} "colod {__version__}" "User Commands"'
    yield ".SH NAME"
    yield rf"{_roff(name)} \- {_roff(_summary(context))}"
    yield ".SH SYNOPSIS"
    yield rf"\fB{_roff(path)}\fR {_roff(' '.join(_usage(context)))}".rstrip()
    yield ".SH DESCRIPTION"
    told = [each for each in _paragraphs(context) if not each.startswith(_EXIT_STATUS)]
    for number, paragraph in enumerate(told):
        if number:
            yield ".PP"
        yield _roff(paragraph)
    yield from _list("OPTIONS", [(_roff(spelled), said) for spelled, said in _options(context)])
    children = list(_children(context))
    yield from _list("COMMANDS", [(_reference_to(each), _summary(each)) for each in children])
    yield from _list("EXIT STATUS", [(str(key), said) for key, said in _statuses(context)])
    yield from _list("FILES", _FILES)
    yield ".SH SEE ALSO"
    related = [*([context.parent] if context.parent else []), *children]
    yield ",\n".join([*map(_reference_to, related), r"\fBcolod\fR(8)"])


def _statuses(context: click.Context) -> Iterator[tuple[int, str]]:
    """Yield what each exit status means of this command; its help may say it more closely."""
    own: dict[int, str] = {}
    for paragraph in _paragraphs(context) if context.parent else ():
        if paragraph.startswith(_EXIT_STATUS):
            own = {int(key): f"{said}." for key, said in _STATUS.findall(paragraph)}
    for each in Exit:
        yield each.value, own.get(each.value, each.meaning)


def _list(title: str, entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a section that explains terms, which are roff already; none where there are none."""
    if entries:
        yield f".SH {title}"
    for term, said in entries:
        yield ".TP"
        yield term if term.startswith("\\fB") else rf"\fB{term}\fR"
        yield _roff(said)


def _reference_to(context: click.Context) -> str:
    return rf"\fB{_roff(page_name(context))}\fR(1)"


def _roff(text: str) -> str:
    """Return `text` so that roff prints it as it is; what stands in backquotes becomes bold."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    # A dot or an apostrophe at the begin of a line would be a request.
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _date() -> str:
    """Return the pages' date: reproducible builds say which."""
    unix_s = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return datetime.fromtimestamp(unix_s, UTC).date().isoformat()


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
def write(directory: Path | None) -> None:
    """Write man pages into DIRECTORY; without one, print the reference as Markdown."""
    if directory is None:
        click.echo(reference(), nl=False)
        return
    directory.mkdir(parents=True, exist_ok=True)
    for context in pages():
        (directory / f"{page_name(context)}.1").write_text(man_page(context, _date()))


if __name__ == "__main__":
    write()
