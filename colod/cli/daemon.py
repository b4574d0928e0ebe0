"""What the commands share: the way to the daemon, guests' names, `--json`."""

from __future__ import annotations

import getpass
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from colod.cli.remote import NAMES, remote_host
from colod.errors import ColodError, ConfigError, NotFound
from colod.failover.record import MAX_REASON_CHARS
from colod.model import parse_guest_name, parse_host_name
from colod.observe.schema import versioned

if TYPE_CHECKING:
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import StatusReply

    _TextParameter = click.ParamType[str]
else:  # older releases of click cannot be subscripted
    _TextParameter = click.ParamType

_Answer = TypeVar("_Answer")
_Command = TypeVar("_Command", bound=Callable[..., Any])

DEFAULT_SOCKET: Final = Path("/run/colod/admin.sock")
_COMPLETION_TIMEOUT_S: Final = 1.0
_OPERATOR_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def connect(context: click.Context) -> AdminClient:
    """Return a client of the daemon that `--host`, `--socket` or the configuration names.

    Raises:
        ConfigError: If `--config` names a file that is not valid, or a certificate is not.
        DaemonUnreachable: If nobody answers there.
        NotPermitted: If the certificate cannot be believed there.
        click.UsageError: If the options for `--host` are not complete.
    """
    return connector(context)()


def connector(context: click.Context) -> Callable[[], AdminClient]:
    """Return what connects to the same daemon again and again, whatever is edited meanwhile.

    Raises:
        ConfigError: If `--config` names a file that is not valid.
        click.UsageError: If the options for `--host` are not complete.
    """
    from colod.rpc.admin_client import AdminClient

    where = remote_host(context, _chosen(context)) or _socket(context)
    return partial(AdminClient, where, operator=_operator_if_known())


def newest(ask: Callable[[int], _Answer], limit: int) -> _Answer:
    """Return the newest `limit` entries of a log of the daemon's, or as many as one answer holds.

    Where it holds fewer, that is said on standard error.

    Args:
        ask: Asks for so many entries.
        limit: How many are wanted.
    """
    fitting = limit
    while True:
        try:
            answer = ask(fitting)
        except ColodError as error:
            if fitting == 1 or not _is_too_long(error):
                raise
            fitting //= 2
            continue
        if fitting < limit:
            click.echo(f"colodctl: only the newest {fitting} fit into one answer", err=True)
        return answer


def _is_too_long(error: ColodError) -> bool:
    import grpc

    cause: Any = error.__cause__
    too_long = grpc.StatusCode.RESOURCE_EXHAUSTED
    return isinstance(cause, grpc.RpcError) and bool(cause.code() is too_long)


def operator() -> str:
    """Return who gives an order that is kept: the login behind sudo, or this user."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _operator_if_known() -> str:
    try:
        return operator()
    except (OSError, KeyError):  # a user without an entry; what is only shown needs no name
        return ""


def config_path(context: click.Context) -> Path:
    """Return where the configuration is."""
    from colod.config import DEFAULT_PATH

    given = _chosen(context)["config"]
    return Path(given) if given else DEFAULT_PATH


def _chosen(context: click.Context) -> Mapping[str, Any]:
    """Return what the command line names, None where it does not: `socket`, `config`, and `NAMES`.

    While a word is completed nothing is run, so nothing has noted them: they are parsed only.
    """
    root = context.find_root()
    if root.obj is None:
        parsed = root.params
        return {"config": parsed.get("config_path")} | {
            name: parsed.get(name) for name in ("socket", *NAMES)
        }
    noted: Mapping[str, Any] = root.obj
    return noted


def _socket(context: click.Context) -> Path:
    from colod.config import load_config

    given = _chosen(context)
    if given["socket"]:
        return Path(given["socket"])
    if given["config"]:
        return load_config(Path(given["config"])).admin_socket
    try:
        return load_config(config_path(context)).admin_socket
    except ConfigError:
        # A file being edited must not hide the daemon that runs.
        return DEFAULT_SOCKET


def print_json(content: Mapping[str, object], *, on_one_line: bool = False) -> None:
    """Print one JSON object, with the version of its schema first."""
    click.echo(json.dumps(versioned(content), indent=None if on_one_line else 2))


def known(measured: float) -> float | None:
    """Return what was measured, None for the -1 that stands for nothing."""
    return measured if measured >= 0 else None


def check_may_ask(context: click.Context, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Check that somebody has agreed or can be asked, before anything is asked of the daemon.

    Raises:
        click.UsageError: If not.
    """
    may_ask = sys.stdin.isatty() and not as_json
    if not (yes or dry_run or may_ask):
        raise click.UsageError("--yes is needed where nobody can be asked", context)


def check_found(reply: StatusReply, guest: str | None, command: str) -> None:
    """Check that a status tells of the guest that was asked for, if one was.

    Args:
        reply: The status.
        guest: The guest; None or "" for all.
        command: That of colodctl which shows all guests.

    Raises:
        NotFound: If it does not.
    """
    if guest and all(each.guest != guest for each in reply.protections):
        advice = f"run: colodctl {command}"
        raise NotFound(f"{guest} is not protected on {reply.host}", advice=advice)


class GuestParameter(_TextParameter):
    """A guest's name; completed with those that the daemon knows."""

    name = "guest"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or fail with what is wrong with it."""
        try:
            return parse_guest_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return protected guests; none if the daemon does not answer at once."""
        try:
            with connect(ctx) as client:
                reply = client.status(timeout_s=_COMPLETION_TIMEOUT_S)
        except (ColodError, click.UsageError):
            return []
        guests = (protection.guest for protection in reply.protections)
        return [CompletionItem(guest) for guest in guests if guest.startswith(incomplete)]


class HostParameter(_TextParameter):
    """A host's name."""

    name = "host"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or fail with what is wrong with it."""
        try:
            return parse_host_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class OperatorNameParameter(_TextParameter):
    """What an operator's orders are recorded under; also a name of files."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or fail if a certificate or a directory could not have it."""
        if not _OPERATOR_NAME.fullmatch(value):
            self.fail(
                "want 1 to 64 letters, digits and . _ @ -, a letter or digit first", param, ctx
            )
        return value


class ReasonParameter(_TextParameter):
    """Why an order is given, for whoever reads the record later."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the reason, or fail if it says nothing or no record could hold it."""
        if not value.strip():
            self.fail("say why, for whoever reads it later", param, ctx)
        if len(value) > MAX_REASON_CHARS:
            self.fail(f"{len(value)} characters, want at most {MAX_REASON_CHARS}", param, ctx)
        return value


GUEST: Final = GuestParameter()
HOST: Final = HostParameter()
OPERATOR_NAME: Final = OperatorNameParameter()
REASON: Final = ReasonParameter()
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")


class Seconds(click.FloatRange):
    """A number of seconds, of those that come to an end; NaN would pass every bound."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number.

        Raises:
            click.BadParameter: If it is none, or out of bounds.
        """
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


def timeout_option(default_s: float, words: str, *, of: str = "") -> Callable[[_Command], _Command]:
    """Return an option `--timeout` for `timeout_s`, or `--OF-timeout` for `OF_timeout_s`.

    Args:
        default_s: Its default, in seconds.
        words: What it bounds, and what comes after it.
        of: Of what, where a command has several.
    """
    return click.option(
        f"--{of}-timeout" if of else "--timeout",
        f"{of}_timeout_s" if of else "timeout_s",
        type=Seconds(min=0, min_open=True),
        default=default_s,
        show_default=True,
        help=words,
    )
