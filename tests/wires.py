"""Guests of the simulated Xen on a wire, for tests and the demo: the switch, and its clients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

START_S = 20.0


class Wire:
    """A switch that runs, with one guest's network."""

    def __init__(self, root: Path, port: int) -> None:
        """Start it below `root`; clients come to `port` of loopback."""
        self.socket = root / "wire.sock"
        self.port = port
        self._log = root / "wire.log"
        argv = [sys.executable, "-m", "colod.simxen.colo.switch", str(self.socket)]
        self._process = subprocess.Popen([*argv, f"127.0.0.1:{port}", str(self._log)])
        end = time.monotonic() + START_S
        while not self._is_up():
            assert time.monotonic() < end, "the switch does not start"
            time.sleep(0.02)

    def _is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def speakers(self) -> list[str]:
        """Return the hosts whose copies were heard, one for each change, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        roots: list[str] = [json.loads(line)["root"] for line in lines]
        return [root for at, root in enumerate(roots) if not at or roots[at - 1] != root]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Caller:
    """A client with one connection that it keeps."""

    def __init__(self, port: int, limit_s: float = 60.0) -> None:
        """Connect; no answer may take longer than `limit_s`."""
        self._socket = socket.create_connection(("127.0.0.1", port), limit_s)
        self._socket.settimeout(limit_s)
        self._lines = self._socket.makefile("rb")

    def ask(self, request: str = "get") -> dict[str, Any]:
        """Return the guest's answer."""
        self._socket.sendall(request.encode() + b"\n")
        line = self._lines.readline()
        assert line, "the guest has closed the connection"
        return dict(json.loads(line))

    def close(self) -> None:
        """Close it in order."""
        self._lines.close()
        self._socket.close()
