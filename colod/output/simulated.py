"""Plugs of the simulated Xen: `colod-simxl sim plug`, which counts as sch_plug does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from colod.errors import NetworkError
from colod.output.port import NotClosed, Survey

COMMAND_S: Final = 20.0
_NO_PLUG: Final = "no plug on"
_NO_INTERFACE: Final = "no such interface"


class Absent(NetworkError):
    """There is no such plug, or no such interface or domain any more."""


class SimulatedPlugs:
    """The emulated plugs of one simulated guest."""

    def __init__(self, argv: Sequence[str], interfaces: Sequence[str], limit_bytes: int) -> None:
        """Work by a command.

        Args:
            argv: Of `colod-simxl`, with what it needs to find its host.
            interfaces: Of the guest, as `vif3.0`.
            limit_bytes: Most that each plug holds.
        """
        self._argv = tuple(argv)
        self._interfaces = list(interfaces)
        self._limit_bytes = limit_bytes
        self._is_closed = False

    def prepare(self) -> None:
        """Begin with nothing that an earlier session left."""
        self.open()

    def close(self) -> None:
        """Put a plug on every interface."""
        try:
            for interface in self._interfaces:
                self._add(interface)
        except NetworkError as error:
            raise NotClosed(str(error), undone=self._is_undone()) from error
        self._is_closed = True

    def cover(self, interface: str) -> None:
        """Put a plug on one more interface."""
        if self._is_closed:
            self._add(interface)
        if interface not in self._interfaces:
            self._interfaces.append(interface)

    def set_barrier(self) -> None:
        """TCQ_PLUG_BUFFER."""
        self._each("buffer")

    def release_one(self) -> None:
        """TCQ_PLUG_RELEASE_ONE."""
        self._each("release_one")

    def open(self) -> None:
        """Take the plugs away; what they hold leaves."""
        for interface in self._interfaces:
            try:
                self._plug(interface, "del")
            except Absent:
                continue
        self._is_closed = False

    def discard(self) -> None:
        """Leave the plugs as they are: they hold, and go with their domain."""

    def survey(self) -> Survey:
        """Ask each plug; the simulated Xen has no hot-plugging of interfaces."""
        if not self._is_closed:
            return Survey()
        told: list[dict[str, Any]] = []
        for interface in self._interfaces:
            told.append(json.loads(self._plug(interface, "show")))
        return Survey(
            packets=sum(each["queued_packets"] for each in told),
            octets=sum(each["backlog_bytes"] for each in told),
            dropped=sum(each["dropped_packets"] for each in told),
        )

    def _add(self, interface: str) -> None:
        self._plug(interface, "add")
        self._plug(interface, "limit", str(self._limit_bytes))

    def _is_undone(self) -> bool:
        try:
            self.open()
        except NetworkError:
            return False
        return True

    def _each(self, action: str) -> None:
        for interface in self._interfaces:
            self._plug(interface, action)

    def _plug(self, interface: str, action: str, *arguments: str) -> str:
        """Run one command.

        Raises:
            NetworkError: If it failed, or did not answer in COMMAND_S.
        """
        argv = [*self._argv, "sim", "plug", interface, action, *arguments]
        what = f"simulated plug of {interface}: {action}"
        return run(argv, what, absent=(_NO_PLUG, _NO_INTERFACE))


def run(argv: Sequence[str], what: str, *, absent: Sequence[str]) -> str:
    """Run one command of `colod-simxl`, and return what it printed; blocks.

    Args:
        argv: The whole command.
        what: What it does, for people.
        absent: Words by which it says that there is nothing to do it to.

    Raises:
        Absent: If it said one of those.
        NetworkError: If it failed, or did not answer in COMMAND_S.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{what}: {error}") from error
    if done.returncode == 0:
        return done.stdout
    is_absent = any(each in done.stderr for each in absent)
    raise (Absent if is_absent else NetworkError)(f"{what}: {done.stderr.strip()}")
