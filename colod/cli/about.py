"""`colodctl version` and `completion`."""

from __future__ import annotations

import click

import colod
from colod.cli import layout
from colod.cli.daemon import connect, json_option, print_json
from colod.errors import ColodError
from colod.observe.json_types import Daemon, VersionDocument


@click.command()
@json_option
@click.pass_context
def version(context: click.Context, *, as_json: bool) -> None:
    """Show the version of this tool and, if it answers, of the daemon on this host."""
    daemon, trouble = _daemon(context)
    if as_json:
        print_json(VersionDocument(colodctl=colod.__version__, daemon=daemon))
        return
    click.echo(f"colodctl {colod.__version__}")
    if daemon is None:
        for line in layout.paragraph("colod    unknown", trouble, layout.width()):
            click.echo(line)
        return
    simulated = ", simulated Xen" if daemon["simulated"] else ""
    spoken = f"protocol {daemon['version_min']} to {daemon['version_max']}"
    click.echo(f"colod    {daemon['software']} on {daemon['host']} ({spoken}{simulated})")


def _daemon(context: click.Context) -> tuple[Daemon | None, str]:
    """Return what the daemon says of itself, or None and why it said nothing."""
    try:
        with connect(context) as client:
            reply = client.version()
    except ColodError as error:
        return None, str(error)
    daemon: Daemon = {
        "software": reply.software,
        "host": reply.host,
        "version_min": reply.version_min,
        "version_max": reply.version_max,
        "simulated": reply.simulated,
    }
    return daemon, ""


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    For bash: `colodctl completion bash > /etc/bash_completion.d/colodctl`.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = context.find_root().command
    click.echo(found(root, {}, "colodctl", "_COLODCTL_COMPLETE").source())
