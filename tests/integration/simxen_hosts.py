"""Two simulated hosts for tests, and a transport between them that can be cut or blocked."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

SIMXL = str(Path(sys.executable).with_name("colod-simxl"))
LIMIT_S = 30.0


def until(check: Callable[[], ResultT | None], what: str, *, limit_s: float = LIMIT_S) -> ResultT:
    """Poll until `check` gives something true, and return it."""
    deadline = time.monotonic() + limit_s
    while not (result := check()):
        if time.monotonic() > deadline:
            message = f"not within {limit_s} s: {what}"
            raise AssertionError(message)
        time.sleep(0.02)
    return result


def free_port() -> int:
    """Find a TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SimHost:
    """One simulated host."""

    def __init__(self, root: Path) -> None:
        """Live below `root`."""
        self.root = root
        self.environment = {**os.environ, "COLOD_SIMXEN_DIR": str(root)}

    def xl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        done = subprocess.run(
            [SIMXL, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, done
        return done

    def start(self, *arguments: str, **streams: Any) -> "subprocess.Popen[bytes]":
        """Start one command in the background."""
        return subprocess.Popen([SIMXL, *arguments], env=self.environment, **streams)

    def create(self, port: int = 0, *options: str, **settings: object) -> None:
        """Create guest `g1` that answers on `port`."""
        config = self.root.parent / f"{self.root.name}.cfg"
        lines = ['name="g1"', "memory=64", "sim_memory_pages=128", "vif=['bridge=br0']"]
        if port:
            lines.append(f'sim_service="127.0.0.1:{port}"')
        lines += [f"{key}={value!r}" for key, value in settings.items()]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.xl("create", str(config), *options)

    def guests(self) -> dict[str, dict[str, Any]]:
        """Return the true state of all domains by name."""
        found: list[dict[str, Any]] = json.loads(self.xl("sim", "guests").stdout)
        return {each["name"]: each for each in found}

    def guest(self, name: str) -> dict[str, Any] | None:
        """Return the true state of one domain."""
        return self.guests().get(name)

    def state(self, name: str) -> str | None:
        """Return the state letters that `xl list` shows; None if there is no such domain."""
        done = self.xl("list", name, check=False)
        return done.stdout.splitlines()[1].split()[4] if done.returncode == 0 else None

    def roles(self) -> dict[str, int]:
        """Return the PIDs of this host's processes by role."""
        found = json.loads(self.xl("sim", "processes").stdout)
        return {each["role"]: each["pid"] for each in found}

    def observe(self, name: str = "g1") -> dict[str, Any] | None:
        """Ask the guest past its network; None if it does not run here."""
        done = self.xl("sim", "guest", name, check=False)
        answer: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
        return answer

    def runs(self, name: str = "g1") -> bool:
        """Tell whether the guest's vCPU runs here: its counter moves."""
        first = self.guest(name)
        if first is None or not first["running"]:
            return False
        until(lambda: (self.guest(name) or first)["counter"] > first["counter"], "it runs")
        return True


def ask(port: int, request: str = "get", timeout_s: float = 5.0) -> dict[str, Any]:
    """Ask the guest over its network, as a client would."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(f"{request}\n".encode())
        answer: dict[str, Any] = json.loads(connection.makefile().readline())
    return answer


def answers(port: int) -> bool:
    """Tell whether the guest can be reached now."""
    try:
        ask(port, timeout_s=1.0)
    except (OSError, ValueError):
        return False
    return True


class Replication:
    """`g1` on its way from one host to the other, over FIFOs that a `cat` connects."""

    def __init__(
        self,
        primary: SimHost,
        secondary: SimHost,
        *receive_options: str,
        interval_ms: int = 50,
    ) -> None:
        """Start both ends."""
        self.primary, self.secondary = primary, secondary
        base = primary.root.parent
        self.forward, self.back = base / "forward.fifo", base / "back.fifo"
        for fifo in (self.forward, self.back):
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo)
        self.copy = base / "copied.stream"
        self.send_log, self.receive_log = base / "send.log", base / "receive.log"
        with self.receive_log.open("wb") as log:
            line = shlex.join([SIMXL, "migrate-receive", "-r", *receive_options])
            shell = f"exec {line} <{self.forward} >{self.back}"
            self.receiver = subprocess.Popen(
                ["sh", "-c", shell], env=secondary.environment, stderr=log
            )
        # The background cat brings the banner; tee is the transport and keeps a copy to judge.
        command = f"cat {self.back} & exec tee {self.copy} >{self.forward}"
        with self.send_log.open("wb") as log:
            options = ["-F", "-n", "-d", "-i", str(interval_ms), "-s", ""]
            self.sender = primary.start("remus", *options, "g1", command, stderr=log)

    def sent(self) -> str:
        """Return what the sending xl said."""
        return self.send_log.read_text(encoding="utf-8")

    def received(self) -> str:
        """Return what the receiving xl said."""
        return self.receive_log.read_text(encoding="utf-8")

    def wait_checkpoints(self, count: int = 3) -> None:
        """Wait until the secondary has applied some more checkpoints."""
        applied = "All records processed"
        target = self.received().count(applied) + count
        until(lambda: self.received().count(applied) >= target, "checkpoints are applied")

    @property
    def transport(self) -> int:
        """The transport's PID."""
        return self.primary.roles()["transport"]

    def cut(self) -> None:
        """Kill only the transport."""
        os.kill(self.transport, signal.SIGKILL)

    def block(self) -> None:
        """Let the transport read nothing more, and wait until the guest hangs suspended."""
        os.kill(self.transport, signal.SIGSTOP)
        until(self._is_stuck, "the guest stays suspended behind a full pipe")

    def _is_stuck(self) -> bool:
        # Between two checkpoints the guest runs and counts: the same count, seen suspended each
        # time, means that it hangs in one.
        seen = set()
        for _ in range(6):
            guest = self.primary.guest("g1") or {}
            seen.add((guest.get("shutdown"), guest.get("counter")))
            time.sleep(0.03)
        return len(seen) == 1 and seen.pop()[0] == 2

    def unblock(self) -> None:
        """Let the transport go on."""
        os.kill(self.transport, signal.SIGCONT)

    def end(self) -> None:
        """Reap both ends, which `sim kill-host` has killed if need be."""
        for process in (self.sender, self.receiver):
            process.wait(LIMIT_S)
