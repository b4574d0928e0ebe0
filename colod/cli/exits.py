"""Exit statuses of `colodctl`: one table, part of the interface (docs/cli.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, Self

from colod import errors
from colod.errors import ColodError


class Exit(IntEnum):
    """What an exit status says.

    Attributes:
        meaning: The same in a sentence, for the manual.
    """

    meaning: str

    def __new__(cls, status: int, meaning: str) -> Self:
        """Make a member of its number and its meaning."""
        member = int.__new__(cls, status)
        member._value_ = status
        member.meaning = meaning
        return member

    OK = 0, "Done, and its effect was verified."
    FAILED = 1, "It failed, or `doctor` found an error."
    USAGE = 2, "The command line is wrong; nothing was asked."
    UNREACHABLE = 3, "No daemon answers, on this host or at --host; nothing was asked."
    REFUSED = 4, "Daemon, peer or rules refuse it now, or your role does; nothing was changed."
    UNKNOWN = 5, "No answer in time: it may have happened, and may still happen."
    NOT_FOUND = 6, "There is no such protection or domain."
    CONFIG = 7, "The configuration is invalid."
    VERSION = 8, "Both sides speak, but no common version."
    NOT_CHECKED = 9, "A drill was carried out, and nothing said whether the guest works."
    INTERRUPTED = 130, "Stopped from the keyboard, or by SIGTERM or SIGHUP; the daemon goes on."


EXITS: Final[Mapping[type[ColodError], Exit]] = {
    errors.ColodError: Exit.FAILED,
    errors.ConfigError: Exit.CONFIG,
    errors.DaemonUnreachable: Exit.UNREACHABLE,
    errors.DomainNotFound: Exit.NOT_FOUND,
    errors.FenceUnconfirmed: Exit.UNKNOWN,
    errors.NotAllowedNow: Exit.REFUSED,
    errors.NotFound: Exit.NOT_FOUND,
    errors.NotPermitted: Exit.REFUSED,
    errors.OutcomeUnknown: Exit.UNKNOWN,
    errors.OwnershipLost: Exit.REFUSED,
    errors.PeerRefused: Exit.REFUSED,
    errors.PreflightRefused: Exit.REFUSED,
    errors.VersionMismatch: Exit.VERSION,
}
"""A class that is not here has the status of its closest base."""


ADVICE: Final[Mapping[type[ColodError], str]] = {
    errors.DomainNotFound: "xl list shows the guests of this host",
    errors.FenceError: "run: colodctl doctor; colodctl status tells what waits for the fence",
    errors.NotAllowedNow: "colodctl status tells how it stands",
    errors.NotFound: "run: colodctl status; xl list shows the guests of this host",
    errors.OutcomeUnknown: "look at: colodctl status, before you repeat it",
    errors.OwnershipLost: "colodctl status tells who owns the guest",
    errors.PeerError: "run: colodctl doctor, on both hosts",
    errors.ToolstackError: "look at: journalctl -u colod",
    errors.WitnessError: "run: colodctl doctor",
}
"""What to do next where an error does not say it itself, for a class and those below it."""


PERMISSION_ADVICE: Final = "run it as a user who may do that; root may"


def advice_of(error: ColodError) -> str:
    """Return what to do about `error`, "" where nothing better is known than what it says."""
    if error.advice:
        return error.advice
    if isinstance(error.__cause__, PermissionError):
        return PERMISSION_ADVICE
    return next((ADVICE[cls] for cls in type(error).__mro__ if cls in ADVICE), "")


def exit_of(error: ColodError) -> Exit:
    """Return the exit status for `error`."""
    return next(EXITS[cls] for cls in type(error).__mro__ if cls in EXITS)
