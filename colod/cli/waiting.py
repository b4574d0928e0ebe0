"""Wait for a replica, and show how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import click

from colod.cli.daemon import timeout_option
from colod.cli.progress import bar
from colod.errors import ColodError, NotAllowedNow, NotFound, OutcomeUnknown

if TYPE_CHECKING:
    from colod.observe.json_types import Protection
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import ProtectionStatus

WAIT_TIMEOUT_S: Final = 600.0

_REACHED: Final = frozenset({"REPLICATING", "PROTECTED"})
_STUCK: Final = frozenset({"MANUAL_HOLD", "QUARANTINED", "LOST_RACE", "GUEST_SHUTDOWN"})
# A hold can pass by itself, as when the witness is away for a moment. The daemon reports at least
# once a second, so this is some ten seconds.
_PATIENCE_REPORTS: Final = 10

wait_option = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait until the guest could be taken over, showing the first copy.",
)
wait_timeout_option = timeout_option(
    WAIT_TIMEOUT_S, "Longest wait, in seconds; the daemon goes on after it."
)


class Show(Protocol):
    """Shows the present state while somebody waits."""

    def __call__(self, protection: ProtectionStatus) -> None:
        """Show it if it differs from what was shown."""
        ...


def reach_replica(
    client: AdminClient, guest: str, timeout_s: float, *, quiet: bool
) -> ProtectionStatus:
    """Wait until the replica could take over, showing progress unless `quiet`; return the state.

    Raises:
        NotAllowedNow: If the protection is held up and does not go on by itself.
        NotFound: If it was ended meanwhile.
        OutcomeUnknown: If `timeout_s` passed; the daemon goes on.
    """
    with _progress(quiet=quiet) as show:
        return _await_replica(client, guest, timeout_s, show)


def print_reached(guest: str, reached: ProtectionStatus | None) -> None:
    """Print what was reached, or that nobody has waited for it."""
    from colod.cli.report import shown_state

    if reached is None:
        click.echo(f"{guest}: accepted, not replicated yet; see: colodctl status {guest}")
    else:
        click.echo(f"{guest}: {shown_state(reached)}, replica on {reached.peer}")


def reached_json(reached: ProtectionStatus | None) -> Protection | None:
    """Return the same for `--json`."""
    from colod.observe.documents import protection_json

    return None if reached is None else protection_json(reached)


def _await_replica(
    client: AdminClient, guest: str, timeout_s: float, show: Show
) -> ProtectionStatus:
    stuck = 0
    last = "starting"
    try:
        for reply in client.watch_status(guest, timeout_s=timeout_s):
            protection = next((one for one in reply.protections if one.guest == guest), None)
            if protection is None:
                raise NotFound(f"{guest}: the protection was ended while it was waited for")
            show(protection)
            last = protection.state
            if last in _REACHED:
                return protection
            stuck = stuck + 1 if last in _STUCK else 0
            if stuck == _PATIENCE_REPORTS:
                raise NotAllowedNow(last, f"{guest}: {protection.cause}", advice=protection.advice)
    except OutcomeUnknown as error:
        raise _not_reached(guest, last, str(error)) from error
    raise _not_reached(guest, last, "the daemon ended its reports")


def _not_reached(guest: str, state: str, why: str) -> ColodError:
    return OutcomeUnknown(
        f"{guest}: last seen {state}, then: {why}",
        advice=f"the daemon goes on by itself; see: colodctl status {guest}",
    )


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Show]:
    """Give a way to show progress: a bar on a terminal, else lines, on standard error."""
    if quiet:
        yield lambda protection: None
    elif sys.stderr.isatty():
        from colod.cli.report import shown_state

        with bar(counts_down=True) as step:
            yield lambda protection: step(
                f"{protection.guest}: {shown_state(protection)}",
                protection.progress.first_copy_pages,
                protection.progress.domain_pages,
            )
    else:
        yield _Lines()


class _Lines:
    """Prints a line for each change of state, and for each tenth of the first copy."""

    def __init__(self) -> None:
        self._shown: tuple[str, int] | None = None

    def __call__(self, protection: ProtectionStatus) -> None:
        from colod.cli.report import first_copy_percent, shown_state

        tenth = (first_copy_percent(protection) or 0) // 10
        if (protection.state, tenth) == self._shown:
            return
        self._shown = (protection.state, tenth)
        cause = f" ({protection.cause})" if protection.cause else ""
        click.echo(f"{protection.guest}: {shown_state(protection)}{cause}", err=True)
