"""Arm, feed and disarm this host's watchdog, as `colod.failover.selffence` says.

It is fed by the daemon's own loop, so that a loop that hangs feeds nothing: systemd ends such a
daemon and starts it anew well within the time-out. The device's calls have a thread of their own:
a driver that blocks keeps nothing else waiting, and nothing else keeps it from being fed.

That it was armed is on the runtime directory's tmpfs, so that the next daemon, of whatever version
or configuration, feeds it at once and disarms it when nothing is at risk any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from colod.config.budget import FEED_S
from colod.config.schema import Config
from colod.daemon.facts import UNARMED
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.errors import SelfFenceError
from colod.failover.record import NO_GENERATION
from colod.failover.selffence import Guarded, Order, Verdict, judge, risk_of
from colod.fencing.watchdog import Found, StandIn, Watchdog
from colod.model import Generation
from colod.observe.logs import Event
from colod.v1 import types_pb2

_T = TypeVar("_T")
_log = structlog.get_logger()

_MARKER: Final = "self-fence"
_ANSWER_S: Final = 5.0
_LONGER: Final = 1.1
"""By how much a driver may round the time-out up where the watchdog is required."""

_LONGEST_S: Final = 65535

Services = Callable[[], Iterable[ProtectionService]]


@dataclass(frozen=True, slots=True)
class Standing:
    """How the watchdog stands, for people.

    Attributes:
        kind: As configured.
        device: Its path.
        is_required: Whether guests are not paired without it.
        identity: The driver's name for it, "" before it was armed.
        is_active: Whether it runs, fed by this daemon.
        timeout_s: Its time-out as the driver has it, 0 before it was armed.
        wanted_s: As configured.
        margin_s: Time left until it resets the host if it is not fed, None while it does not run.
        trouble: Why it is not armed or not fed, "" where all is well.
    """

    kind: str
    device: Path
    is_required: bool
    identity: str
    is_active: bool
    timeout_s: int
    wanted_s: int
    margin_s: float | None
    trouble: str


class SelfFence:
    """The watchdog of one host."""

    def __init__(self, config: Config) -> None:
        """Touch nothing before `resume`."""
        self._table = config.self_fence
        self._least_s = config.least_watchdog_s
        self._marker = config.host.runtime_directory / _MARKER
        self._device = _device(self._table.kind, self._table.device)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="watchdog")
        self._task: asyncio.Task[None] | None = None
        self._verdict = Verdict(Order.WAIT, UNARMED)
        self._error = ""
        self._is_marked = False
        self._fed_at = float("-inf")

    @property
    def is_configured(self) -> bool:
        """Whether this host is to have one."""
        return self._table.kind != "none"

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        is_active = self._device.is_open
        margin_s = self._fed_at + self._device.timeout_s - time.monotonic()
        is_starved = self._verdict.order is Order.STARVE
        return Standing(
            kind=self._table.kind,
            device=self._device.device,
            is_required=self._table.is_required,
            identity=self._device.identity,
            is_active=is_active,
            timeout_s=self._device.timeout_s,
            wanted_s=self._table.timeout_s,
            margin_s=margin_s if is_active else None,
            trouble=self._error or (self._verdict.why if is_starved else ""),
        )

    async def look(self) -> Found:
        """Return what the kernel tells of the device; nothing is started by that.

        Raises:
            SelfFenceError: If there is none.
        """
        return await self._call(self._device.look)

    # --- life -------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Feed at once what an earlier daemon left armed; never raises for what a device does."""
        left = _read(self._marker)
        if left is None:
            return
        if self.is_configured and left == (self._table.kind, self._table.device):
            self._is_marked = True
            await self._arm(Event.WATCHDOG_RESUMED)
            return
        # The configuration names another one now: this one is nobody's any more.
        device = _device(*left)
        try:
            await self._call(lambda: _stop_left(device, self._marker))
            _log.info(Event.WATCHDOG_DISARMED, device=str(device.device))
        except SelfFenceError as error:
            _log.error(Event.WATCHDOG_FAILED, error=str(error))

    def start(
        self, parts: Parts, services: Services, *, on_defect: Callable[[BaseException], None]
    ) -> None:
        """Begin to decide about it, for as long as the daemon runs.

        Args:
            parts: The ports of this host.
            services: Returns its protections.
            on_defect: Called with the exception of a loop that ended unasked.
        """
        if not self.is_configured:
            return

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                on_defect(error)

        self._task = asyncio.create_task(self._run(parts, services), name="watchdog")
        self._task.add_done_callback(ended)

    async def stop(self, *, is_asked: bool) -> None:
        """Disarm it if the daemon was asked to end; else the next daemon goes on with it.

        One that is starved is left running even then: it is all that stops a guest that this host
        could not stop.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            # What the loop asked for last may be under way yet: it is decided on what that left. A
            # driver that blocks says so below.
            with contextlib.suppress(SelfFenceError):
                await self._call(lambda: None)
        try:
            if is_asked and self._verdict.order is not Order.STARVE:
                await self._disarm()
            elif self._device.is_open:
                _log.warning(
                    Event.WATCHDOG_ABANDONED,
                    timeout_s=self._device.timeout_s,
                    why=self._verdict.why,
                )
                await self._call(self._device.leave)
        except SelfFenceError as error:
            _log.error(Event.WATCHDOG_FAILED, error=str(error))
        self._thread.shutdown(wait=False)

    # --- the loop ---------------------------------------------------------------------------

    async def _run(self, parts: Parts, services: Services) -> None:
        while True:
            await self._tick(parts, services)
            await asyncio.sleep(FEED_S)

    async def _tick(self, parts: Parts, services: Services) -> None:
        now, guests = time.monotonic(), tuple(services())
        was = self._verdict
        self._verdict = judge(
            [_guarded(parts, each) for each in guests],
            is_armed=self._device.is_open,
            now=now,
            fresh_s=parts.limits.suspect_after_s,
        )
        if self._verdict.order is Order.STARVE and was != self._verdict and self._device.is_open:
            _log.error(Event.WATCHDOG_STARVED, why=self._verdict.why)
        if self._verdict.order is Order.DISARM:
            _tell(guests, UNARMED)  # first, or one could be paired in between
        try:
            await self._carry_out(self._verdict.order)
        except SelfFenceError as error:
            self._failed(error)
        is_armed = self._device.is_open and not self._error
        _tell(guests, "" if is_armed else self._error or UNARMED)

    async def _carry_out(self, order: Order) -> None:
        if order is Order.FEED and self._device.is_open:
            await self._feed()
        elif order is Order.FEED:
            await self._arm(Event.WATCHDOG_ARMED)
        elif order is Order.DISARM:
            await self._disarm()

    # --- the device -------------------------------------------------------------------------

    async def _feed(self) -> None:
        began = time.monotonic()
        await self._call(self._device.feed)
        self._fed_at, self._error = began, ""

    async def _arm(self, event: Event) -> None:
        """Start it, or go on with it; what is wrong is kept for people, and it is tried again."""
        began, was_marked = time.monotonic(), self._is_marked
        self._is_marked = True
        try:
            await self._call(self._mark_and_arm)
        except _Blocked as error:
            self._failed(error)  # it may be armed yet
        except SelfFenceError as error:
            self._failed(error)
            self._is_marked = await self._call(lambda: self._still_marked(was_marked=was_marked))
        else:
            self._fed_at, self._error = began, ""
            _log.info(
                event,
                device=str(self._table.device),
                identity=self._device.identity,
                timeout_s=self._device.timeout_s,
            )

    def _mark_and_arm(self) -> None:
        table = self._table
        most_s = math.ceil(table.timeout_s * _LONGER) if table.is_required else _LONGEST_S
        _write(self._marker, table.kind, table.device)
        self._device.arm(table.timeout_s, least_s=self._least_s, most_s=most_s)

    def _still_marked(self, *, was_marked: bool) -> bool:
        """Remove the mark of a device that could not be armed, unless it may run all the same."""
        is_ours = was_marked or self._device.was_started
        try:
            is_running = self._device.look().is_running
        except SelfFenceError:
            is_running = False
        if is_running is None:
            is_running = not self._device.was_started
        if is_ours and is_running:
            return True
        self._marker.unlink(missing_ok=True)
        return False

    async def _disarm(self) -> None:
        """Stop it, also one that would not stop before: until it does, it is fed by that."""
        if not self._device.is_open and self._is_marked:
            await self._arm(Event.WATCHDOG_RESUMED)
        if self._device.is_open:
            await self._call(self._disarm_and_forget)
            _log.info(Event.WATCHDOG_DISARMED, device=str(self._table.device))
        if not self._is_marked:
            self._error = ""

    def _disarm_and_forget(self) -> None:
        self._device.disarm()
        self._marker.unlink(missing_ok=True)
        self._is_marked = False  # here: who asked for it may be cancelled meanwhile

    def _failed(self, error: SelfFenceError) -> None:
        if str(error) != self._error:
            _log.error(Event.WATCHDOG_FAILED, error=str(error))
        self._error = str(error)

    async def _call(self, work: Callable[[], _T]) -> _T:
        """Have the device's thread do `work`.

        Raises:
            SelfFenceError: If it failed, or the driver blocks.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await asyncio.shield(loop.run_in_executor(self._thread, work))
        except TimeoutError:
            path = self._device.device
            raise _Blocked(f"watchdog {path}: no answer in {_ANSWER_S:g} s") from None


class _Blocked(SelfFenceError):
    """The driver does not answer; what was asked of it may yet be done."""


def _tell(services: Iterable[ProtectionService], unarmed: str) -> None:
    """Tell the protections whether the other host may be let take over."""
    for service in services:
        if service.facts.unarmed != unarmed:
            service.facts.unarmed = unarmed
            service.poke()


def _device(kind: str, path: Path) -> Watchdog:
    return StandIn(path) if kind == "simulated" else Watchdog(path)


def _stop_left(device: Watchdog, marker: Path) -> None:
    """Stop one that an earlier daemon left, whatever time-out it has."""
    device.arm(_LONGEST_S, least_s=1, most_s=_LONGEST_S)
    device.disarm()
    marker.unlink(missing_ok=True)


def _guarded(parts: Parts, service: ProtectionService) -> Guarded:
    """Return what the watchdog depends on of one protection, as it is known at this moment.

    Signs of life are asked for past the last decision: a hung xl delays that one, not them.
    """
    journal, facts, session = service.journal, service.facts, service.session
    is_peer = journal.peer == parts.peer
    heard = [
        parts.heartbeat.heard_at if is_peer else None,
        session.peer_heard_at if session is not None else None,
    ]
    record = facts.stored.record
    is_said = not service.is_witness_manual and record is not None
    is_said = is_said and record is not None and record.owner == journal.host
    return Guarded(
        guest=service.guest,
        risk=risk_of(
            journal,
            facts.view,
            is_stopped=facts.is_seen_stopped,
            peer_generation=_primary_generation(parts, service) if is_peer else NO_GENERATION,
        ),
        has_looked=service.has_looked,
        is_stopped=facts.is_seen_stopped,
        peer_heard_at=max((at for at in heard if at is not None), default=None),
        witness_said_at=facts.read_at if is_said else None,
    )


def _primary_generation(parts: Parts, service: ProtectionService) -> Generation:
    """Return the generation under which the peer says that it is the primary itself, else 0."""
    theirs = parts.heartbeat.answer(service.guest, asked_after=float("-inf"))
    if theirs is None or theirs.role != types_pb2.ROLE_PRIMARY:
        return NO_GENERATION
    return Generation(theirs.generation)


def _read(marker: Path) -> tuple[str, Path] | None:
    """Return kind and device of what was left armed, None if nothing was."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(marker.read_text())
        return str(content["kind"]), Path(content["device"])
    return None


def _write(marker: Path, kind: str, device: Path) -> None:
    """Note, before it is armed, that it is.

    Raises:
        SelfFenceError: If that cannot be written: a daemon that ends would leave it to nobody.
    """
    fresh = marker.with_suffix(".new")
    try:
        fresh.write_text(json.dumps({"kind": kind, "device": str(device)}))
        fresh.replace(marker)
    except OSError as error:
        raise SelfFenceError(f"{marker}: {error.strerror}") from error
