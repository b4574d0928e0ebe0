"""`colodctl pki`: certificates for hosts and operators; it needs no daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from colod.cli.daemon import HOST, OPERATOR_NAME, json_option, print_json
from colod.model import HostName
from colod.observe.json_types import CertificateDocument

if TYPE_CHECKING:
    from colod.rpc.pki import Issued

directory_option = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/etc/colod/pki"),
    show_default=True,
    help="Where the authority is kept; best on neither of the two hosts.",
)
force_option = click.option("--force", is_flag=True, help="Overwrite what exists.")


@click.group()
def pki() -> None:
    """Make the certificates by which hosts know each other, and operators elsewhere."""


@pki.command()
@directory_option
@force_option
@json_option
def init(directory: Path, *, force: bool, as_json: bool) -> None:
    """Make the authority: ca.pem goes to both hosts, ca.key to none."""
    from colod.rpc.pki import create_authority

    issued = create_authority(directory, force=force)
    _print(issued, as_json=as_json)


@pki.command()
@click.argument("host", type=HOST)
@directory_option
@force_option
@json_option
def issue(host: str, directory: Path, *, force: bool, as_json: bool) -> None:
    """Make the certificate of HOST: its host.name and the other host's peer.name."""
    from colod.rpc.pki import issue_certificate

    issued = issue_certificate(directory, HostName(host), force=force)
    _print(issued, as_json=as_json)
    if not as_json:
        click.echo(
            f"copy to {host}: {directory / 'ca.pem'} as /etc/colod/tls/ca.pem, "
            f"{issued.certificate} as host.pem, {issued.key} as host.key (mode 0600)"
        )


@pki.command("issue-operator")
@click.argument("name", type=OPERATOR_NAME)
@click.option(
    "--role",
    "role_word",
    type=click.Choice(["viewer", "operator", "admin"]),
    required=True,
    help="What NAME may do; docs/cli.md has the table.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3652),
    default=90,
    show_default=True,
    help="How long it is valid; nothing takes it back before.",
)
@directory_option
@force_option
@json_option
def issue_operator(
    name: str, role_word: str, days: int, directory: Path, *, force: bool, as_json: bool
) -> None:
    """Make the certificate by which NAME uses `colodctl --host` from another machine."""
    from colod.rpc import pki as authority
    from colod.rpc.operators import OperatorRole

    role = OperatorRole[role_word.upper()]
    issued = authority.issue_operator(directory, name, role, days=days, force=force)
    _print(issued, as_json=as_json)
    if not as_json:
        click.echo(
            f"give {name}: {directory / 'ca.pem'} for --ca, {issued.certificate} for --cert, "
            f"{issued.key} for --key (mode 0600)"
        )


def _print(issued: Issued, *, as_json: bool) -> None:
    if as_json:
        print_json(
            CertificateDocument(
                certificate=str(issued.certificate),
                key=str(issued.key),
                expires_unix_s=issued.expires.timestamp(),
            )
        )
        return
    click.echo(f"{issued.certificate}: valid until {issued.expires:%F}")
    click.echo(f"{issued.key}: keep it secret")
