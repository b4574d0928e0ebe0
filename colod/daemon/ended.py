"""A guest that ended its run: its domain is cleared away, and one that rebooted is started again.

xl does this for a guest that it has created, until the first checkpoint: it takes the suspension
for the guest's end, and exits. Source: Xen tools/xl/xl_vmcontrol.c, handle_domain_death.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from colod.daemon import guest_files
from colod.daemon.parts import Parts
from colod.errors import ColodError
from colod.failover.view import Ended, Journal
from colod.model import GuestName
from colod.observe.logs import Event
from colod.toolstack.port import ENDED, Domain

_log = structlog.get_logger()

START_S: Final = 180.0
"""Most seconds for xl to create the domain: its disks and its kernel may be slow to come."""
_RETRY_S: Final = 30.0
_SETTLE_S: Final = 2.0
"""xl itself waits so long between a domain's end and the next: its devices go late."""
_ASK_AGAIN_S: Final = 5.0

_BY_ITSELF: Final = ("poweroff", "reboot")
_PAUSED: Final = "it rebooted, and is not started while colod is paused: colodctl unpause"

_HOW: Final = {
    "reboot": ("on_reboot", "it rebooted"),
    "poweroff": ("on_poweroff", "it shut down"),
    "crash": ("on_crash", "it crashed"),
    "watchdog": ("on_watchdog", "its watchdog fired"),
    "soft_reset": ("on_soft_reset", "it asked for a soft reset"),
}


@dataclass(frozen=True, slots=True)
class End:
    """How a guest's end stands, for decisions; see `colod.failover.view.View`."""

    ended: Ended = Ended.NOTHING
    by_itself: bool = False
    start_due: bool = False
    trouble: str = ""
    uuid: str = ""


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
        self._starting: asyncio.Task[None] | None = None
        self._trouble = ""

    async def look(self, journal: Journal, domain: Domain | None) -> End:
        """Return how the guest's end stands; xl is asked only where its domain is down.

        Args:
            journal: What is on disk.
            domain: The domain of the guest's name.
        """
        if domain is None or domain.state not in ENDED:
            self._domid = 0
            trouble = self._start_trouble() if journal.restarting_since else ""
            return End(start_due=domain is None and self._may_start(), trouble=trouble)
        now = time.monotonic()
        if domain.domid != self._domid:
            self._domid, self._since, self._end = domain.domid, now, End()
            self._asked_at = float("-inf")
        if now - self._since < self._parts.limits.guest_end_wait_s:
            return End(Ended.SOON, domain.shutdown_reason in _BY_ITSELF, trouble=_how(domain))
        if now - self._asked_at >= _ASK_AGAIN_S:
            self._asked_at = now
            self._end = await self._wanted(journal.protection.guest, domain)
        return replace(self._end, by_itself=domain.shutdown_reason in _BY_ITSELF)

    def _start_trouble(self) -> str:
        if self._starting is None and self._parts.automation.is_paused:
            return _PAUSED
        return self._trouble

    def _may_start(self) -> bool:
        is_free = self._starting is None and not self._parts.automation.is_paused
        return is_free and time.monotonic() >= self._start_at

    async def _wanted(self, guest: GuestName, domain: Domain) -> End:
        """Return what the guest's configuration wants done about this end.

        libxl leaves out what is `destroy`: xl puts the other defaults in. Source: Xen
        tools/libs/light/libxl_types.idl, on_*, init_val; tools/xl/xl_parse.c.
        """
        if domain.shutdown_reason not in _HOW:
            return End(trouble="it ended for a reason that xl does not name")
        key, how = _HOW[domain.shutdown_reason]
        try:
            config = await self._parts.toolstack.domain_config(guest)
            action = str(config.get(key, "destroy"))
            if action == "destroy":
                return End(Ended.CLEAR, trouble=how)
            if action == "restart" and self._parts.automation.is_paused:
                return End(trouble=_PAUSED)
            if action == "restart":
                await guest_files.check(self._parts, guest)
                return End(Ended.RESTART, trouble=how, uuid=_uuid_of(config))
        except ColodError as error:
            return End(trouble=f"{how}, and is not started again: {error}")
        return End(trouble=f"{how}, and its configuration says {key} = {action}")

    async def clear(self, guest: GuestName) -> None:
        """Destroy the domain that was last seen to have ended.

        Raises:
            ToolstackError: If it could not be done, or if another domain has the guest's name.
        """
        domid, how = self._domid, self._end.trouble
        await self._parts.toolstack.clear_ended(guest, domid)
        self._start_at, self._trouble = time.monotonic() + _SETTLE_S, ""
        _log.info(Event.GUEST_CLEARED, protection=guest, domid=domid, how=how)

    def start(self, guest: GuestName, keeps_uuid: str) -> None:
        """Begin to start the guest from its configuration file; what comes of it, `look` tells.

        Beside the decisions: it takes long, and the domain is there, paused, from its beginning.

        Args:
            guest: Its name.
            keeps_uuid: The UUID that it had; "" if it is not known.
        """
        self._start_at = time.monotonic() + _RETRY_S
        self._starting = asyncio.create_task(self._start(guest, keeps_uuid))
        self._starting.add_done_callback(self._started)

    async def _start(self, guest: GuestName, keeps_uuid: str) -> None:
        try:
            file = await guest_files.check(self._parts, guest)
            await self._parts.launcher.run(
                self._parts.toolstack.create_argv(file, keeps_uuid),
                # Another one each time: what an earlier one has left may keep its unit.
                unit=f"colod-start-{guest}-{uuid.uuid4().hex[:8]}",
                env=self._parts.session_env,
                timeout_s=START_S,
            )
        except ColodError as error:
            self._trouble = f"it rebooted, and cannot be started: {error}"
            _log.warning(Event.GUEST_UNSTARTED, protection=guest, error=str(error))
            return
        self._trouble = ""
        _log.info(Event.GUEST_STARTED, protection=guest)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble = f"it rebooted, and cannot be started: {error!r}"
            _log.error(Event.GUEST_UNSTARTED, error=repr(error))
        self._start_at = max(self._start_at, time.monotonic() + _SETTLE_S)


def _how(domain: Domain) -> str:
    return _HOW.get(domain.shutdown_reason, ("", "it ended"))[1]


def _uuid_of(config: Mapping[str, Any]) -> str:
    """Return the guest's UUID: a reboot keeps it, as xl's own does."""
    created = config.get("c_info")
    found = str(created.get("uuid", "")) if isinstance(created, dict) else ""
    try:
        return str(uuid.UUID(found))
    except ValueError:
        return ""
