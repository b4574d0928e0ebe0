"""The fencer `agents`: ClusterLabs' fence-agents switch the other host off, or say that it is off.

An agent is a program that takes `key=value` lines on standard input. Its exit status tells how the
action went: 0 is success; of `status`, 0 is on and 2 is off. But 2 is also what agents of the
common library say of bad arguments, and shells of much else: "off" is believed only where the
agent also writes `Status: OFF`, as that library does, and did not find fault with the order before.

Source: ClusterLabs/fence-agents, doc/FenceAgentAPI.md and lib/fencing.py.py (EC_BAD_ARGS).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from colod.errors import ConfigError
from colod.fencing.base import Fenced, Unconfirmed, Verdict
from colod.model import HostName
from colod.options import parse_options
from colod.threads import Threads

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
QUIET_S: Final = 10.0
"""Takeovers of one host's guests do not begin at the same instant: each has to win ownership."""

_SAID_CHARS: Final = 500
_LAST_WORDS_S: Final = 2.0
_OFF_STATUS: Final = 2
_BAD_ARGUMENTS: Final = 2
_OFF_LINE: Final = re.compile(r"^[ \t]*status:[ \t]*off[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_RESERVED: Final = frozenset({"action", "option"})

_AGENTS: Final = Threads("fence-agent", 16)
"""One call may last ten minutes, and there is one host to fence, for however many guests."""

_log = logging.getLogger(__name__)


class Device(BaseModel):
    """One way to switch the other host off.

    Attributes:
        agent: Program, as `fence_ipmilan`, in one of the system's folders, or an absolute path.
        options: What it is told, as its manual page names it, without `action`.
        timeout_s: Longest wait for one call; then the agent is killed, and nothing is known.
        attempts: How often `off` is tried.
        verify: Whether `status` must say afterwards that the host is off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    agent: str = Field(min_length=1)
    options: dict[str, str | int] = Field(default_factory=dict)
    timeout_s: float = Field(default=60.0, ge=1, le=600)
    attempts: int = Field(default=2, ge=1, le=10)
    verify: bool = True

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, str | int]) -> dict[str, str | int]:
        for key, value in options.items():
            if key in _RESERVED:
                raise ValueError(f"{key} is colod's to say")
            if not key or "=" in key or any(sign in f"{key}{value}" for sign in "\n\r\0"):
                raise ValueError(f"{key!r}: no key=value line can be made of it")
        return options


class AgentsOptions(BaseModel):
    """The table `[fencing]` of this kind.

    Attributes:
        devices: Tried in this order, until one proves that the host is off.
        on_after: Whether the host is switched on again once it was fenced, and no takeover has
            asked for a while.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: tuple[Device, ...] = Field(min_length=1)
    on_after: bool = False


@dataclass(frozen=True, slots=True)
class _Ran:
    """How a call ended; `said` is its standard output and then its errors, cut, for people."""

    status: int | None
    said: str
    output: str = ""

    def __str__(self) -> str:
        ended = "did not end in time" if self.status is None else f"ended with {self.status}"
        return f"{ended}{f' ({self.said})' if self.said else ''}"


class _Switch:
    """One host's power, at which only one hand is at a time.

    Attributes:
        lock: Held by whoever has the host switched.
        waiting: How many takeovers wait for a proof that it is off.
        verdict: What was last found out, None before the first.
        known_at: Monotonic time of which that is true.
        off_by: The device that is to switch it on again, None where it is not off by us.
    """

    def __init__(self) -> None:
        """Know nothing of the host yet."""
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.verdict: Verdict | None = None
        self.known_at = float("-inf")
        self.off_by: Device | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start_timer(self, quiet_s: float) -> None:
        """Have the host switched on once that time is over, unless a takeover comes."""
        self._timer = asyncio.get_running_loop().call_later(quiet_s, self._begin)

    def stop_timer(self) -> None:
        """Leave the host off for now."""
        if self._timer is not None:
            self._timer.cancel()

    def leave_off(self) -> None:
        """Leave the host off for good, unless it is being switched on already."""
        self.stop_timer()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._on_again())

    async def _on_again(self) -> None:
        """Switch the host on again; nothing depends on whether that succeeds."""
        async with self.lock:
            if self.off_by is None or self.waiting:
                return
            device, self.off_by = self.off_by, None
            done = await _AGENTS.run(_run, device, "on")
            _log.info("fence.on_again agent=%s on=%s", device.agent, done)


class AgentsFencer:
    """Asks the devices in turn, for one takeover at a time."""

    def __init__(self, options: AgentsOptions, *, quiet_s: float = QUIET_S) -> None:
        """Fence by these devices.

        Args:
            options: Which they are.
            quiet_s: For how long no takeover may have asked before a host is switched on again.
        """
        self._options = options
        self._quiet_s = quiet_s
        self._switches: dict[HostName, _Switch] = {}

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the fencer; ConfigError for an agent that is not installed, too."""
        parsed = parse_options(AgentsOptions, options, "fencing")
        missing = [
            f"fencing.devices.{number}.agent: no program {device.agent}"
            for number, device in enumerate(parsed.devices)
            if shutil.which(device.agent, path=_PATH) is None
        ]
        if missing:
            raise ConfigError(missing)
        del host
        return cls(parsed)

    async def fence(self, host: HostName) -> Verdict:
        """Return Fenced as soon as a device proves it.

        Takeovers of several guests from one host wait for each other: else the host would be
        switched on for one between `off` and `status` for another, and be cycled once for each.
        What one of them learned meanwhile counts for those that were waiting then.
        """
        switch = self._switches.setdefault(host, _Switch())
        asked_at = time.monotonic()
        with self._taking(switch):
            async with switch.lock:
                if switch.verdict is None or switch.known_at < asked_at:
                    switch.known_at, switch.verdict = await self._ask(host, switch)
                return switch.verdict

    async def close(self) -> None:
        """Wait for no agent; a host that was fenced just now stays off."""
        for switch in self._switches.values():
            switch.leave_off()

    @contextlib.contextmanager
    def _taking(self, switch: _Switch) -> Iterator[None]:
        """Keep the host off while a takeover waits for its proof, and for a while after it."""
        switch.waiting += 1
        switch.stop_timer()
        try:
            yield
        finally:
            switch.waiting -= 1
            if switch.off_by is not None and not switch.waiting:
                switch.start_timer(self._quiet_s)

    async def _ask(self, host: HostName, switch: _Switch) -> tuple[float, Verdict]:
        """Return what the devices prove, and of which instant: of what they began to say then."""
        failures: list[str] = []
        switch.off_by = None  # where this proves nothing, the host is better left as it is
        for device in self._options.devices:
            known_at, proof = await self._switch_off(device, failures)
            if proof:
                switch.off_by = device if self._options.on_after else None
                return known_at, Fenced(proof)
        return time.monotonic(), Unconfirmed(
            f"{'; '.join(failures)}. Make sure that {host} is off, then run: "
            "colodctl fence-confirm GUEST"
        )

    async def _switch_off(self, device: Device, failures: list[str]) -> tuple[float, str]:
        """Return what proves that the host is off, or nothing, and since when it is known."""
        known_at = time.monotonic()
        for _ in range(device.attempts):
            known_at = time.monotonic()
            done = await _AGENTS.run(_run, device, "off")
            if done.status == 0 and not device.verify:
                return known_at, f"{device.agent}: off"
            known_at = time.monotonic()
            status = await _AGENTS.run(_run, device, "status")
            if _says_off(status) and done.status != _BAD_ARGUMENTS:
                how = "off" if done.status == 0 else f"off {done}, but"
                return known_at, f"{device.agent}: {how}, status: off"
            failures.append(f"{device.agent}: off {done}, status {status}")
            _log.warning("fence.failed agent=%s off=%s status=%s", device.agent, done, status)
        return known_at, ""


def _says_off(status: _Ran) -> bool:
    """Whether the agent says that the host is off, and not only something with that word in it.

    Status 2 stands for bad arguments, too, and for much that a shell finds wrong. Source:
    fence-agents lib/fencing.py.py, fence_action: "Status: OFF" on standard output.
    """
    return status.status == _OFF_STATUS and bool(_OFF_LINE.search(status.output))


def _run(device: Device, action: str) -> _Ran:
    """Call the agent; what it says is cut, and its secrets are only ever on its standard input."""
    lines = {**device.options, "action": action}
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    program = shutil.which(device.agent, path=_PATH) or device.agent
    try:
        process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": _PATH, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return _Ran(127, str(error))
    try:
        output, errors = process.communicate(text.encode(), timeout=device.timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # something of it kept the pipe
            process.communicate(timeout=_LAST_WORDS_S)
        return _Ran(None, "")
    said = b"\n".join(each.strip() for each in (output, errors) if each.strip())
    return _Ran(
        process.returncode,
        said.decode(errors="replace")[-_SAID_CHARS:],
        output.decode(errors="replace"),
    )
