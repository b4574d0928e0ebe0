"""Start long-lived commands (sessions and their xl) outside the daemon's fate.

What is started here goes on when the daemon is stopped, restarted, upgraded or killed. Under
systemd each command is a transient unit of its own, so that stopping `colod.service` does not
reach it; elsewhere it is double-forked: its parent is init (or a subreaper), which reaps it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from colod.toolstack.command import CommandRunner

_UNIT = re.compile(r"[A-Za-z0-9_.:@+-]{1,240}")
_START_LIMIT_S = 30.0

_LASTING = ("Type=exec", "KillMode=process", "OOMPolicy=continue")

# The middle process of the double fork. It starts the command in a session of its own, says its
# number and ends at once, so that the command is nobody's child but init's. A command that cannot
# be started at all is reported here; later failures are in its log.
_FORK = """
import subprocess, sys
log, argv = sys.argv[1], sys.argv[2:]
with open(log, "ab", buffering=0) as out:
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                             start_new_session=True)
print(child.pid)
sys.stdout.flush()
# It is to be left alone, not waited for.
child.returncode = 0
"""


class Launcher(Protocol):
    """Starts commands that outlive the daemon."""

    async def launch(
        self, argv: Sequence[str], *, unit: str, log: Path, env: Mapping[str, str]
    ) -> None:
        """Start `argv` and return once it runs; it is not waited for.

        Args:
            argv: The program and its arguments.
            unit: Name for it without a suffix, `colod-session-GUEST-ROLE-PAIRING8`; no two that
                run may share it.
            log: File that takes its standard output and error, appended; its directory exists.
            env: Its whole environment (PATH, COLOD_*) but for LC_ALL=C: nothing of the daemon's
                is inherited, so that it is the same whoever starts it.

        Raises:
            ToolstackError: If it could not be started; with status None, if that is not known.
            ValueError: If `unit` is no unit's name.
        """
        ...

    async def run(
        self, argv: Sequence[str], *, unit: str, env: Mapping[str, str], timeout_s: float
    ) -> None:
        """Run `argv` to its end; what it leaves behind, such as xl's watch over a guest, goes on.

        Args:
            argv: The program and its arguments.
            unit: As for `launch`.
            env: As for `launch`.
            timeout_s: Most seconds that it may take.

        Raises:
            ToolstackError: If it failed; with status None, if that is not known.
            ValueError: If `unit` is no unit's name.
        """
        ...


class ForkLauncher:
    """Starts commands by a double fork. They survive the daemon's SIGKILL."""

    async def launch(
        self, argv: Sequence[str], *, unit: str, log: Path, env: Mapping[str, str]
    ) -> None:
        """Start `argv`, see `Launcher`; `unit` is not used but checked."""
        _checked(unit)
        middle = (sys.executable, "-I", "-S", "-c", _FORK, str(log), *argv)
        await _run_once(middle, env)

    async def run(
        self, argv: Sequence[str], *, unit: str, env: Mapping[str, str], timeout_s: float
    ) -> None:
        """Run `argv` to its end, see `Launcher`; `unit` is not used but checked."""
        _checked(unit)
        await _run_once(argv, env, timeout_s, finishes=True)


class SystemdLauncher:
    """Starts commands as transient systemd services."""

    def __init__(self, *, slice_name: str = "colod-sessions.slice") -> None:
        """Put the units into `slice_name`."""
        self._slice = slice_name

    async def launch(
        self, argv: Sequence[str], *, unit: str, log: Path, env: Mapping[str, str]
    ) -> None:
        """Start `argv`, see `Launcher`; a unit of that name that runs is an error."""
        await _run_once(self.argv(argv, unit=unit, log=log, env=env), os.environ)

    def argv(
        self, argv: Sequence[str], *, unit: str, log: Path, env: Mapping[str, str]
    ) -> Sequence[str]:
        """Return the `systemd-run` command that starts `argv`.

        KillMode=process: when the command ends, what it leaves behind (xl as the monitor of a
        guest that was taken over) goes on. OOMPolicy=continue: the loss of one process of the
        unit does not take the others. Type=exec: a program that cannot be started is reported.
        """
        properties = (
            "OOMScoreAdjust=-900",
            # At shutdown the drain unit ends pairings in good order before their units are stopped.
            "Before=colod-drain.service",
            "IgnoreSIGPIPE=no",
            "LimitNOFILE=65536",
            f"StandardOutput=append:{log}",
            f"StandardError=append:{log}",
        )
        return self._argv(argv, ("--quiet",), properties, unit, env)

    async def run(
        self, argv: Sequence[str], *, unit: str, env: Mapping[str, str], timeout_s: float
    ) -> None:
        """Run `argv` to its end, see `Launcher`; a unit of that name that runs is an error."""
        # Not inside the daemon's unit, which sees other files than the guest's device models need.
        options = ("--quiet", "--wait", "--pipe")
        waiting = self._argv(argv, options, (f"RuntimeMaxSec={timeout_s:g}",), unit, env)
        await _run_once(waiting, os.environ, timeout_s + _START_LIMIT_S)

    def _argv(
        self,
        argv: Sequence[str],
        options: Sequence[str],
        properties: Sequence[str],
        unit: str,
        env: Mapping[str, str],
    ) -> Sequence[str]:
        return (
            "systemd-run",
            *options,
            "--collect",
            f"--unit={_checked(unit)}",
            f"--slice={self._slice}",
            f"--description=colod: {unit}",
            *(f"--property={each}" for each in (*_LASTING, *properties)),
            *(f"--setenv={name}={value}" for name, value in sorted({**env, "LC_ALL": "C"}.items())),
            "--",
            # systemd would replace $NAME in an argument. Spec: systemd.service(5), "$$".
            *(word.replace("$", "$$") for word in argv),
        )


def launcher(kind: str) -> Launcher:
    """Return the launcher of that kind: `systemd`, `fork`, or `auto`, which looks for systemd.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind == "auto":
        # Spec: sd_booted(3).
        kind = "systemd" if Path("/run/systemd/system").is_dir() else "fork"
    if kind == "systemd":
        return SystemdLauncher()
    if kind == "fork":
        return ForkLauncher()
    raise ValueError(f"launcher {kind!r}: want systemd, fork or auto")


async def _run_once(
    argv: Sequence[str],
    env: Mapping[str, str],
    timeout_s: float = _START_LIMIT_S,
    *,
    finishes: bool = False,
) -> None:
    runner = CommandRunner(workers=1, env=env)
    try:
        (await runner.run(argv, timeout_s=timeout_s, finishes=finishes)).checked()
    finally:
        runner.close()


def _checked(unit: str) -> str:
    if not _UNIT.fullmatch(unit):
        raise ValueError(f"unit name {unit!r}: want 1 to 240 of A-Z a-z 0-9 _ . : @ + -")
    return unit
