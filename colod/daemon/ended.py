"""A guest that ended its run: its domain is cleared away, and one that rebooted is started again.

xl does this for a guest that it has created, until the first checkpoint: it takes the suspension
for the guest's end, and exits. Source: Xen tools/xl/xl_vmcontrol.c, handle_domain_death.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog

from colod.daemon import guest_files
from colod.daemon.parts import Parts
from colod.errors import ColodError, ToolstackError
from colod.failover.view import Ended, Journal
from colod.model import GuestName
from colod.observe.logs import Event
from colod.toolstack.port import Domain, DomainState

_log = structlog.get_logger()

START_S: Final = 180.0
"""Most seconds for xl to create the domain: its disks and its kernel may be slow to come."""
_RETRY_S: Final = 30.0
_ASK_AGAIN_S: Final = 5.0

_KEYS: Final = {"reboot": "on_reboot", "poweroff": "on_poweroff", "watchdog": "on_watchdog"}
_USUAL: Final = {"on_reboot": "restart", "on_poweroff": "destroy"}
"""What xl does where the configuration is silent: xl.cfg(5), "Event Actions"."""


@dataclass(frozen=True, slots=True)
class End:
    """How a guest's end stands, for decisions; see `colod.failover.view.View`."""

    ended: Ended = Ended.NOTHING
    start_due: bool = False
    trouble: str = ""


class GuestEnds:
    """Follows the ends of one guest's runs."""

    def __init__(self, parts: Parts) -> None:
        """Know of no end yet."""
        self._parts = parts
        self._domid = 0
        self._since = 0.0
        self._asked_at = float("-inf")
        self._end = End()
        self._start_at = float("-inf")
        self._trouble = ""

    async def look(self, journal: Journal, domain: Domain | None) -> End:
        """Return how the guest's end stands; xl is asked only where its domain is down.

        Args:
            journal: What is on disk.
            domain: The domain of the guest's name.
        """
        if domain is None:
            is_due = journal.restarting and time.monotonic() >= self._start_at
            return End(start_due=is_due, trouble=self._trouble if journal.restarting else "")
        if domain.state not in (DomainState.SHUTDOWN, DomainState.CRASHED):
            self._domid = 0
            return End()
        now = time.monotonic()
        if domain.domid != self._domid:
            self._domid, self._since, self._end = domain.domid, now, End()
        if now - self._since < self._parts.limits.guest_end_wait_s:
            return End(Ended.SOON, trouble=_how(domain))
        if now - self._asked_at >= _ASK_AGAIN_S:
            self._asked_at = now
            self._end = await self._wanted(journal.protection.guest, domain)
        return self._end

    async def _wanted(self, guest: GuestName, domain: Domain) -> End:
        """Return what the guest's configuration wants done about this end."""
        key = _KEYS.get(domain.shutdown_reason, "on_crash")
        try:
            config = await self._parts.toolstack.domain_config(guest)
            action = str(config.get(key, _USUAL.get(key, "destroy")))
            if action == "destroy":
                return End(Ended.CLEAR, trouble=_how(domain))
            if action == "restart":
                await guest_files.check(self._parts, guest)
                return End(Ended.RESTART, trouble=_how(domain))
        except ColodError as error:
            return End(trouble=f"{_how(domain)}, and is not started again: {error}")
        return End(trouble=f"{_how(domain)}, and its configuration says {key} = {action}")

    async def clear(self, guest: GuestName) -> None:
        """Destroy the domain of a guest that has ended.

        Raises:
            ToolstackError: If it could not be done, or if the guest runs.
        """
        domain = await self._parts.toolstack.find(guest)
        if domain is None:
            return
        if domain.state not in (DomainState.SHUTDOWN, DomainState.CRASHED):
            raise ToolstackError(("xl", "destroy", guest), 0, f"it is {domain.state}")
        await self._parts.toolstack.destroy(guest)
        self._start_at, self._trouble = float("-inf"), ""
        _log.info(Event.GUEST_CLEARED, protection=guest, domid=domain.domid, how=_how(domain))

    async def start(self, guest: GuestName) -> None:
        """Start the guest from its configuration file, and see that its domain is there.

        Raises:
            ColodError: If it could not be started; it may be tried again after a while.
        """
        self._start_at = time.monotonic() + _RETRY_S
        try:
            file = await guest_files.check(self._parts, guest)
            await self._parts.launcher.run(
                self._parts.toolstack.create_argv(file),
                unit=f"colod-start-{guest}",
                env=self._parts.session_env,
                timeout_s=START_S,
            )
            domain = await self._parts.toolstack.find(guest)
            if domain is None:
                raise ToolstackError(("xl", "create", guest), 0, "it is not there")
        except ColodError as error:
            self._trouble = str(error)
            raise
        self._trouble = ""
        _log.info(Event.GUEST_STARTED, protection=guest, domid=domain.domid)


def _how(domain: Domain) -> str:
    words = {"reboot": "it rebooted", "poweroff": "it shut down", "watchdog": "its watchdog fired"}
    return words.get(domain.shutdown_reason, "it crashed")
