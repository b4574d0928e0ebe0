"""The guest's filters, as a session in COLO has them put in and taken away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from colod.session.ending import Ending
from colod.session.process import run_bounded

COMMAND_S: Final = 30.0


class FilterCommands:
    """Asks the toolstack about one domain's filters; each answer says how they stand now."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Work by the command `argv`, followed by a domain's name and what to do."""
        self._argv = tuple(argv)

    async def compare(self, guest: str, notify: Path) -> Path:
        """Lead the guest's output to the comparator whose notify socket is `notify`.

        Returns:
            The directory with the sockets `colo-primary.sock`, `colo-out.sock` and
            `colo-mirror.sock`.

        Raises:
            Ending: If they are not in.
        """
        return self._sockets(await self._run(guest, "compare", str(notify)), "comparing")

    async def lock(self, incoming: str) -> Path:
        """Verify that the copy's output leads to the relay only, and close its way out besides.

        Returns:
            The directory with the sockets `colo-secondary.sock` and `colo-mirrored.sock`.

        Raises:
            Ending: If it might be heard by others.
        """
        return self._sockets(await self._run(incoming, "lock"), "secondary")

    @staticmethod
    def _sockets(shown: dict[str, Any], wanted: str) -> Path:
        if shown.get("filters") != wanted:
            found = shown.get("filters")
            raise Ending.failed("session.filters", f"filters are {found!r}, want {wanted!r}")
        return Path(str(shown["directory"]))

    async def _run(self, *arguments: str) -> dict[str, Any]:
        argv = (*self._argv, *arguments)
        ran = await run_bounded(argv, COMMAND_S, is_logged=False)
        if ran.status != 0:
            message = f"{' '.join(arguments)}: {ran.said or 'no answer'}"
            raise Ending.failed("session.filters", message)
        try:
            shown: dict[str, Any] = json.loads(ran.said)
        except ValueError as error:
            raise Ending.failed("session.filters", f"unreadable: {ran.said}") from error
        return shown
