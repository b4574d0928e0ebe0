"""Show on standard error how far something is: a bar on a terminal, else a line for each step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click


class ShowStep(Protocol):
    """Shows how far it is."""

    def __call__(self, text: str, done: int = 0, total: int = 0) -> None:
        """Show a step by its name, and how much of it is done where that is known."""
        ...


@contextmanager
def steps(*, quiet: bool) -> Iterator[ShowStep]:
    """Give a way to show steps; nothing is shown when `quiet`."""
    if quiet:
        yield lambda text, done=0, total=0: None
    elif sys.stderr.isatty():
        with bar() as show:
            yield show
    else:
        yield _Lines()


@contextmanager
def bar(*, counts_down: bool = False) -> Iterator[ShowStep]:
    """Give a way to show steps as a bar, with the time that is left or the time that it took."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    clock = TimeRemainingColumn() if counts_down else TimeElapsedColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), clock)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(text: str, done: int = 0, total: int = 0) -> None:
            progress.update(task, description=text, total=total or None, completed=done)

        yield show


class _Lines:
    """Prints a line for each step, and for each quarter of a long one."""

    def __init__(self) -> None:
        self._shown: tuple[str, int] | None = None

    def __call__(self, text: str, done: int = 0, total: int = 0) -> None:
        quarter = min(4, 4 * done // total) if total else 0
        if (text, quarter) == self._shown:
            return
        self._shown = (text, quarter)
        click.echo(f"{text}{f' {25 * quarter} %' if quarter else ''}", err=True)
