"""Which role each request needs: one table, of which docs/cli.md has a copy that tests compare.

Viewers change nothing. Operators do what belongs to a day's work and puts no state at risk that the
rules do not guard. Admins also say what nobody can check, override rules, and end what was agreed.
A dry run needs the role of what it would do: who may not learns that before it is meant in earnest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colod.errors import NotPermitted
from colod.rpc.operators import Operator, OperatorRole

LEAST: Final[Mapping[str, OperatorRole]] = {
    "Version": OperatorRole.VIEWER,
    "Status": OperatorRole.VIEWER,
    "WatchStatus": OperatorRole.VIEWER,
    "History": OperatorRole.VIEWER,
    "Doctor": OperatorRole.VIEWER,
    "Checkpoints": OperatorRole.VIEWER,
    "Drills": OperatorRole.VIEWER,
    "Quarantine": OperatorRole.VIEWER,
    "Suspend": OperatorRole.OPERATOR,
    "MakeCheckpoint": OperatorRole.OPERATOR,
    "Resume": OperatorRole.OPERATOR,
    "Failover": OperatorRole.OPERATOR,
    "Switchover": OperatorRole.OPERATOR,
    "SetAutomation": OperatorRole.OPERATOR,
    "ExportCheckpoint": OperatorRole.OPERATOR,
    "Drill": OperatorRole.OPERATOR,
    "DrillSecondary": OperatorRole.OPERATOR,
    "DrillLive": OperatorRole.OPERATOR,
    "DrillChecked": OperatorRole.OPERATOR,
    "KeepQuarantined": OperatorRole.OPERATOR,
    # What it says of the guest's disks is believed, and decides whether a takeover has to fence.
    "Protect": OperatorRole.ADMIN,
    "Unprotect": OperatorRole.ADMIN,
    "Drain": OperatorRole.ADMIN,
    # Nobody can check it, and two copies run if it is wrong.
    "FenceConfirm": OperatorRole.ADMIN,
    "DiscardQuarantined": OperatorRole.ADMIN,
}
"""The least role for each call of the service Admin. A call that is not here is nobody's."""

ADMINS_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Failover": ("force_reason", "fence"),
    "KeepQuarantined": ("withdraw",),
    "DrillLive": ("fence",),
}
"""Fields of a request that make it an admin's, where one is set."""


def needed(call: str, request: Any) -> OperatorRole | None:
    """Return the least role that a request needs; None where nobody has it.

    Args:
        call: Name of the call, without the service's.
        request: The request as it came.
    """
    return OperatorRole.ADMIN if _raising(call, request) else LEAST.get(call)


def _raising(call: str, request: Any) -> str:
    """Return the field of the request that makes it an admin's, "" for none."""
    return next((each for each in ADMINS_FIELDS.get(call, ()) if getattr(request, each)), "")


def check_permitted(operator: Operator, call: str, request: Any) -> None:
    """Check that an operator may make a request.

    Raises:
        NotPermitted: If not; names the role that could.
    """
    role = needed(call, request)
    if role is None:
        raise NotPermitted(f"{call} is not for operators")
    if operator.role < role:
        field = _raising(call, request)
        what = f"{call} with {field}" if field else call
        raise NotPermitted(
            f"{operator.name} is {_a(operator.role)}: {what} needs {_a(role)}",
            advice=f"ask {_a(role)}, or use colodctl on that host, as its group there",
        )


def is_act(call: str) -> bool:
    """Whether a call is there to change something."""
    return LEAST.get(call) is not OperatorRole.VIEWER


def changes_something(call: str, request: Any) -> bool:
    """Whether a request, carried out, would change anything; a dry run does not."""
    return is_act(call) and not getattr(request, "dry_run", False)


def _a(role: OperatorRole) -> str:
    return f"{'a' if role is OperatorRole.VIEWER else 'an'} {role.word}"
