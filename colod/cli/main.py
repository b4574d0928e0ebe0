"""`colodctl`: the operators' tool. It talks gRPC to one daemon and nothing else."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from colod.cli.exits import PERMISSION_ADVICE, Exit, advice_of, exit_of
from colod.cli.interrupt import INTERRUPTED, end_after_interrupt, was_interrupted
from colod.cli.lazy import Lazy, LazyGroup
from colod.cli.remote import remote_options
from colod.errors import ColodError
from colod.observe.json_types import ErrorDocument, Failure

COMMANDS: Final = {
    "protect": Lazy("colod.cli.protect", "protect", "Begin to replicate a guest."),
    "unprotect": Lazy("colod.cli.protect", "unprotect", "End a guest's protection."),
    "suspend": Lazy("colod.cli.suspend", "suspend", "Replicate a guest no more for a while."),
    "resume": Lazy("colod.cli.suspend", "resume", "Replicate a guest again."),
    "status": Lazy("colod.cli.status", "status", "Show protections and how they stand."),
    "lag": Lazy("colod.cli.lag", "lag", "Show how far replicas lag, and what an epoch takes."),
    "top": Lazy("colod.cli.top", "top", "Show lag, pauses, output and traffic, live."),
    "failover": Lazy("colod.cli.failover", "failover", "Make this host a guest's owner."),
    "switchover": Lazy("colod.cli.failover", "switchover", "Give a guest to the other host."),
    "failback": Lazy("colod.cli.failback", "failback", "Give a guest back to its former owner."),
    "fence-confirm": Lazy("colod.cli.failover", "fence_confirm", "Say that the peer is off."),
    "pause": Lazy("colod.cli.automation", "pause", "Have both hosts do nothing by themselves."),
    "unpause": Lazy("colod.cli.automation", "unpause", "Let both hosts act by themselves again."),
    "drain": Lazy("colod.cli.failover", "drain", "End all sessions of this host in good order."),
    "drill": Lazy("colod.cli.drill", "drill", "Try out a replica, its rebuilding, a failover."),
    "checkpoint": Lazy("colod.cli.checkpoint", "checkpoint", "List and write replicas' images."),
    "quarantine": Lazy("colod.cli.quarantine", "quarantine", "Deal with copies that lost a guest."),
    "history": Lazy("colod.cli.history", "history", "Show changes of state, newest last."),
    "events": Lazy("colod.cli.events", "events", "Show what happens, a line each, as it does."),
    "doctor": Lazy("colod.cli.doctor", "doctor", "Examine host, peer, witness and guests."),
    "colo": Lazy("colod.cli.colo", "colo", "Make guests ready for COLO."),
    "config": Lazy("colod.cli.config", "config", "Check and show the configuration."),
    "pki": Lazy("colod.cli.pki", "pki", "Make hosts' and operators' certificates."),
    "stream": Lazy("colod.cli.stream", "stream", "Look into migration streams and save files."),
    "version": Lazy("colod.cli.about", "version", "Show versions of this tool and the daemon."),
    "completion": Lazy("colod.cli.about", "completion", "Print completion for a shell."),
}


PATH: Final = click.Path(readable=False)
"""Whether it can be read is found out where it is, and the error then says what that means."""


@click.group(
    name="colodctl",
    cls=LazyGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--socket",
    envvar="COLOD_SOCKET",
    type=PATH,
    help="The daemon's socket [default: the configuration's].",
)
@click.option(
    "--config",
    "config_path",
    envvar="COLOD_CONFIG",
    type=PATH,
    help="The configuration [default: /etc/colod/colod.toml].",
)
@remote_options
@click.pass_context
def cli(
    context: click.Context, /, socket: str | None, config_path: str | None, **remote: object
) -> None:
    """Protect Xen guests against the death of their host.

    Exit status: 0 done; 1 failed; 2 wrong usage; 3 no daemon; 4 refused; 5 outcome unknown;
    6 not found; 7 configuration invalid; 8 versions differ; 9 done, not checked.
    """
    context.obj = {"socket": socket, "config": config_path, **remote}


def main() -> None:
    """Run `colodctl` and end the process."""
    end_after_interrupt()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: The words after `colodctl`.

    Returns:
        The exit status.
    """
    as_json = "--json" in arguments
    try:
        result = cli.main(list(arguments), prog_name="colodctl", standalone_mode=False)
    except Exception as error:
        if was_interrupted():
            click.echo(INTERRUPTED, err=True)
            return Exit.INTERRUPTED
        return _failed(error, as_json=as_json)
    return result if isinstance(result, int) else Exit.OK


def _failed(error: Exception, *, as_json: bool) -> Exit:
    match error:
        case click.UsageError():
            _report_usage(error, as_json=as_json)
            return Exit.USAGE
        case click.ClickException():
            _report("usage", error.format_message(), "", Exit.FAILED, as_json=as_json)
            return Exit.FAILED
        case click.Abort():
            click.echo(INTERRUPTED, err=True)
            return Exit.INTERRUPTED
        case ColodError():
            status = exit_of(error)
            _report(error.code, str(error), advice_of(error), status, as_json=as_json)
            return status
        case OSError() if error.errno == errno.EPIPE:
            # The reader went away (`| head`): nothing may be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.FAILED
        case OSError():
            # What this machine refused: a file that this user may not read, a full disk.
            told = ": ".join(map(str, filter(None, (error.filename, error.strerror or error))))
            advice = PERMISSION_ADVICE if isinstance(error, PermissionError) else ""
            _report("system.refused", told, advice, Exit.FAILED, as_json=as_json)
            return Exit.FAILED
        case _:
            raise error


def _report(code: str, message: str, advice: str, status: Exit, *, as_json: bool) -> None:
    if as_json:
        failure = Failure(code=code, message=message, advice=advice, exit=int(status))
        click.echo(json.dumps(ErrorDocument(error=failure)), err=True)
        return
    click.echo(f"colodctl: {message} ({code})", err=True)
    if advice:
        click.echo(f"hint: {advice}", err=True)


def _report_usage(error: click.UsageError, *, as_json: bool) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    path = error.ctx.command_path if error.ctx else "colodctl"
    advice = f"run: {path} --help"
    _report("usage", error.format_message(), advice, Exit.USAGE, as_json=as_json)
