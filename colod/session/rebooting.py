"""Holds a guest that was rebooted while no daemon looks.

A reboot makes a new domain, and with it interfaces that no gate holds, while the record still says
that the other host has a copy. A daemon sees that and settles who owns the guest; without one, it
is paused here before it has booted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from colod.session.process import run_bounded
from colod.session.report import Report
from colod.session.spec import SessionSpec

_LOOK_S: Final = 0.5
_COMMAND_S: Final = 20.0

_log = logging.getLogger(__name__)


class RebootWatch:
    """Watches which domain has the guest's name; the sender's."""

    def __init__(self, spec: SessionSpec, report: Report, has_daemon: Callable[[], bool]) -> None:
        """Touch nothing yet.

        Args:
            spec: Its `exists_argv` prints the number of the guest's domain, `pause_argv` pauses it.
            report: Is told which domain was paused.
            has_daemon: Whether a daemon is there to decide.
        """
        self._spec = spec
        self._report = report
        self._has_daemon = has_daemon

    async def run(self) -> None:
        """Watch until cancelled; a domain that is not known at first is never touched."""
        if not (self._spec.exists_argv and self._spec.pause_argv):
            return  # begun by a daemon that does not ask for it
        known = await self._domid()
        while known:
            await asyncio.sleep(_LOOK_S)
            if self._has_daemon():
                continue
            domid = await self._domid()
            # Paused only once more where it had no effect: whoever lets it run drops all pauses.
            if domid not in (0, known) and not self._has_daemon() and await self._pause():
                _log.warning("guest.held domid=%d reason='rebooted, and no daemon looks'", domid)
                self._report.set_held_domid(domid)
                known = domid

    async def _domid(self) -> int:
        """Return the number of the domain that has the guest's name, 0 for none."""
        ran = await run_bounded(self._spec.exists_argv, _COMMAND_S, is_logged=False)
        return int(ran.said) if ran.status == 0 and ran.said.isdecimal() else 0

    async def _pause(self) -> bool:
        """Tell whether the domain was paused: xl exits with 0 whatever came of it."""
        ran = await run_bounded(self._spec.pause_argv, _COMMAND_S)
        return ran.status == 0 and "error" not in ran.said.lower()
