"""`colodctl config`: check, show and explain the configuration; it needs no daemon."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from colod.cli.daemon import config_path, json_option, print_json
from colod.cli.layout import print_plan
from colod.errors import ConfigError
from colod.observe.json_types import ConfigCheckDocument, ConfigShowDocument, Setting

if TYPE_CHECKING:
    from colod.config import Config
    from colod.model import Credentials

_SECRET: Final = re.compile(r"passw|secret|token|credential", re.IGNORECASE)
_HIDDEN: Final = "(hidden)"


@click.group()
def config() -> None:
    """Check, show and explain the configuration."""


@config.command()
@json_option
@click.pass_context
def check(context: click.Context, *, as_json: bool) -> None:
    """Name every problem of the configuration, or the time budget that it makes.

    Looks at the files of tls and at the group of admin too. Exit status 7 if there is a problem.
    """
    from colod.config import config_files, exposed_files, load_config

    path = config_path(context)
    try:
        loaded = load_config(path)
        problems = [
            *_group_problems(loaded),
            *_plug_in_problems(loaded),
            *_tls_problems(loaded),
        ]
        if problems:
            raise ConfigError(problems)
    except ConfigError as error:
        if not as_json:
            for problem in error.problems:
                click.echo(problem)
        count = len(error.problems)
        summary = ConfigError([*error.problems] if as_json else [f"{path}: {count} problem(s)"])
        summary.advice = "the daemon does not start, or keeps what it has, with these"
        raise summary from error
    files = [str(file) for file in config_files(path)]
    warnings = list(exposed_files(loaded))
    if as_json:
        budget = list(loaded.time_budget())
        print_json(ConfigCheckDocument(files=files, time_budget=budget, warnings=warnings))
        return
    for warning in warnings:
        click.echo(f"warning: {warning}; chmod 600", err=True)
    for line in (*files, "valid"):
        click.echo(line)
    print_plan(loaded.time_budget())


@config.command()
@json_option
@click.pass_context
def show(context: click.Context, *, as_json: bool) -> None:
    """Show every value and where it came from; secrets among the options are hidden."""
    from colod.config import load_config

    values = list(_shown(load_config(config_path(context))))
    if as_json:
        print_json(ConfigShowDocument(values=values))
        return
    for each in values:
        click.echo(f"{each['path']} = {_toml(each['value'])}  # {each['origin']}")


@config.command()
def reference() -> None:
    """Print the reference of all keys (docs/configuration.md)."""
    from colod.cli.reference import reference as text

    click.echo(text(), nl=False)


def _shown(loaded: Config) -> Iterator[Setting]:
    from colod.config import flatten

    for path, value, origin in flatten(loaded):
        shown = _HIDDEN if _SECRET.search(path) else _without_secrets(value)
        yield Setting(path=path, value=shown, origin=origin)


def _without_secrets(value: object) -> object:
    """Return a value with the secrets in its tables hidden."""
    if isinstance(value, dict):
        return {
            key: _HIDDEN if _SECRET.search(str(key)) else _without_secrets(inner)
            for key, inner in value.items()
        }
    return [_without_secrets(each) for each in value] if isinstance(value, list) else value


def _toml(value: object) -> str:
    """Return a value as TOML writes it; None, which TOML lacks, as an empty comment."""
    import json

    # JSON's numbers, strings, lists and booleans are TOML's too.
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)


def _group_problems(loaded: Config) -> Iterator[str]:
    from colod.rpc.admin_group import group_id

    try:
        if loaded.admin.group is not None:
            group_id(loaded.admin.group)
    except ConfigError as error:
        yield from error.problems


def _tls_problems(loaded: Config) -> Iterator[str]:
    from colod.rpc.tls import load_identity

    tls = loaded.tls
    try:
        identity = load_identity(tls.ca, tls.certificate, tls.key, host=loaded.host.name)
        yield from identity.date_problems(datetime.now(UTC))
    except ConfigError as error:
        yield from error.problems


def _transport(kind: str, options: Mapping[str, str], credentials: Credentials) -> object:
    """Return what carries epochs over one path.

    Raises:
        ConfigError: If it cannot be made.
    """
    from colod import plugins

    return plugins.load("colod.transports", kind).from_options(options, credentials)


def _plug_in_problems(loaded: Config) -> Iterator[str]:
    """Yield what the kinds themselves find wrong with their options."""
    from colod import plugins
    from colod.model import HostName

    host = HostName(loaded.host.name)
    transport, witness, fencing = loaded.transport, loaded.witness, loaded.fencing
    makers: tuple[Callable[[], object], ...] = (
        *(
            partial(_transport, transport.kind, options, loaded.credentials)
            for options in transport.paths
        ),
        lambda: plugins.load("colod.witnesses", witness.kind).from_config(
            witness.options, host=host
        ),
        lambda: plugins.load("colod.fencers", fencing.kind).from_config(fencing.options, host=host),
    )
    for make in makers:
        try:
            make()
        except ConfigError as error:
            yield from error.problems
