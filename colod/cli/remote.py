"""The options by which `colodctl` asks a daemon on another machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from colod.rpc.remote_host import RemoteHost

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PATH: Final = click.Path(path_type=Path, readable=False)
_OPTIONS: Final = (
    click.option(
        "--host",
        envvar="COLOD_HOST",
        metavar="ADDRESS:PORT",
        help="Ask the daemon of another machine, at its admin.listen, by your certificate.",
    ),
    click.option(
        "--host-name",
        envvar="COLOD_HOST_NAME",
        metavar="NAME",
        help="That machine's host.name, which its certificate has [default: the name in --host].",
    ),
    click.option("--cert", envvar="COLOD_CERT", type=_PATH, help="Your certificate, for --host."),
    click.option("--key", envvar="COLOD_KEY", type=_PATH, help="Its private key, mode 0600."),
    click.option(
        "--ca", envvar="COLOD_CA", type=_PATH, help="The authority of that machine: its tls.ca."
    ),
)
NAMES: Final = ("host", "host_name", "cert", "key", "ca")
"""Their parameters."""


def remote_options(command: _Command) -> _Command:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def remote_host(context: click.Context, given: Mapping[str, Any]) -> RemoteHost | None:
    """Return the machine that the options name, None where they name none.

    Args:
        context: Of a command, for what is wrong with its options.
        given: The values of `NAMES`, and of `socket`.

    Raises:
        click.UsageError: If something is missing or senseless.
    """
    from colod.config import split_address
    from colod.rpc.remote_host import RemoteHost

    if not given.get("host"):
        return None
    if given["socket"]:
        raise click.UsageError("--host and --socket are two daemons: give one of them", context)
    if missing := [f"--{each}" for each in ("cert", "key", "ca") if not given[each]]:
        raise click.UsageError(f"--host needs {', '.join(missing)} as well", context)
    try:
        address, _ = split_address(given["host"])
    except ValueError as error:
        raise click.UsageError(f"--host: {error}", context) from error
    name = given["host_name"] or address
    if _is_number(name):
        raise click.UsageError(
            f"--host {given['host']} does not say which host that is: add --host-name", context
        )
    return RemoteHost(
        address=given["host"],
        name=name,
        ca=given["ca"],
        certificate=given["cert"],
        key=given["key"],
    )


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
