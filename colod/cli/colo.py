"""`colodctl colo`: what COLO needs to be made ready for; it needs no daemon, but xl."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from colod.cli.daemon import GUEST, config_path, json_option, print_json
from colod.errors import ToolstackError
from colod.model import GuestName
from colod.observe.json_types import ColoConfigDocument, ColoConfigFile

if TYPE_CHECKING:
    from colod.prepare.colo_files import ColoFiles, HostFile

_BOTH = "both"


@click.group()
def colo() -> None:
    """Make guests ready for COLO, where both copies of a guest run."""


@colo.command("config")
@click.argument("guest", type=GUEST)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    help="The guest's configuration, where it does not run [default: what xl has of it, and its "
    "file in toolstack.guest_configs].",
)
@click.option(
    "--role",
    type=click.Choice(["primary", "secondary", _BOTH]),
    default="primary",
    show_default=True,
    help="For this host, which runs the guest; for the other, for when that does; or for both.",
)
@click.option(
    "--primary-address",
    default="",
    metavar="ADDRESS",
    help="IPv4 address of this host on the replication network [default: transport.advertise, "
    "transport.listen or peer.listen, whichever is one].",
)
@click.option(
    "--secondary-address",
    default="",
    metavar="ADDRESS",
    help="The same of the other host [default: peer.address, if it is one].",
)
@click.option(
    "--overlays",
    metavar="DIRECTORY",
    help="Where, on both hosts, a disk's active and hidden files are [default: colo in "
    "host.state_directory].",
)
@json_option
@click.pass_context
def config(
    context: click.Context,
    guest: str,
    file: Path | None,
    role: str,
    primary_address: str,
    secondary_address: str,
    overlays: str | None,
    *,
    as_json: bool,
) -> None:
    """Print GUEST's xl configuration with the keys of COLO, made of its own one.

    Runs xl on this host, changes nothing, and has xl read the result. A guest that COLO cannot have
    is refused (exit status 4), with what to change. What is printed is in force when the guest is
    started from it.
    """
    from colod.config import load_config
    from colod.prepare.colo_files import Wish, make

    loaded = load_config(config_path(context))
    place = PurePosixPath(overlays or loaded.host.state_directory / "colo")
    if not place.is_absolute():
        raise click.BadParameter(
            f"{place}: want an absolute path", context, param_hint="--overlays"
        )
    wish = Wish(
        guest=GuestName(guest),
        file=file,
        primary_address=primary_address,
        secondary_address=secondary_address,
        overlays=place,
    )
    try:
        made = asyncio.run(make(loaded, wish))
    except ToolstackError as error:
        error.advice = error.advice or "run it as root, where xl is"
        raise
    files = [each for each in made.files if role in (each.role, _BOTH)]
    if as_json:
        print_json(_document(made, files))
        return
    for each in files:
        if role == _BOTH:
            click.echo(f"# === {each.host}: {each.path}")
        click.echo(each.text, nl=False)


def _document(made: ColoFiles, files: list[HostFile]) -> ColoConfigDocument:
    from colod.prepare.colo_files import port_table

    return ColoConfigDocument(
        guest=made.guest.name,
        primary_address=made.guest.primary,
        secondary_address=made.guest.secondary,
        ports=port_table(made.guest.ports),
        notes=list(made.notes),
        files=[
            ColoConfigFile(
                role=each.role.value, host=each.host, path=str(each.path), text=each.text
            )
            for each in files
        ],
    )
