"""Real session processes for tests, and what a daemon would do with them."""

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colod.session.protocol import MessageDecoder, encode_message
from colod.v1 import session_pb2, types_pb2
from tests.integration.simxen_hosts import LIMIT_S, SimHost, until

SESSION = str(Path(sys.executable).with_name("colod-session"))
PAIRING = "0123456789abcdef" * 2
GENERATION = 4
Status = session_pb2.SessionStatus
State = types_pb2.SessionState


def make_spec(directory: Path, role: str, **changes: Any) -> Path:
    """Write a session's specification, and return its path.

    A change `pki` is the directory of the hosts' certificates.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    pki: Path | None = changes.pop("pki", None)
    hosts = ("alpha", "beta") if role == "send" else ("beta", "alpha")
    spec = {
        "version": 1,
        "role": role,
        "guest": "g1",
        "pairing": PAIRING,
        "generation": GENERATION,
        "host": hosts[0],
        "peer": hosts[1],
        "secret": "5e" * 32,
        "transport": {"kind": "tcp", "options": {"listen": "127.0.0.1"}},
        "ping_interval_s": 0.2,
        "silence_s": 10.0,
        "staging_bytes": 64 << 20,
    } | changes
    if pki is not None:
        files = {"ca": "ca.pem", "certificate": f"{hosts[0]}.pem", "key": f"{hosts[0]}.key"}
        spec["tls"] = {name: str(pki / file) for name, file in files.items()}
    path = directory / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


class Daemon:
    """A daemon's connection to one session."""

    def __init__(self, directory: Path) -> None:
        """Connect as soon as the session serves its socket."""
        self._path = directory / "control.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(LIMIT_S)
        until(self._try_connect, f"{self._path} is served")
        self._decoder = MessageDecoder(session_pb2.SessionStatus)
        self._messages: list[Status] = []

    def _try_connect(self) -> bool:
        return self._socket.connect_ex(str(self._path)) == 0

    def close(self) -> None:
        """Go away, as a daemon that dies."""
        self._socket.close()

    def next(self) -> Status:
        """Return the next status; the first one is the session's greeting."""
        while not self._messages:
            data = self._socket.recv(65536)
            if not data:
                raise EOFError
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    def newest(self) -> Status:
        """Ask for the present status."""
        return self.command(report_status=session_pb2.SessionCommand.ReportStatus())

    def command(self, *, generation: int = GENERATION, **command: Any) -> Status:
        """Send a command and return the status that answers it."""
        number = secrets.randbits(48)
        message = session_pb2.SessionCommand(id=number, generation=generation, **command)
        self._socket.sendall(encode_message(message))
        return self.wait(lambda status: status.command_id == number, "the command is answered")

    def wait(self, check: Any, what: str) -> Status:
        """Read until a status fits."""
        last: list[Status] = []

        def next_fits() -> Status | None:
            last[:] = [self.next()]
            return last[0] if check(last[0]) else None

        try:
            return until(next_fits, what)
        except (AssertionError, TimeoutError, EOFError) as error:
            message = f"{what}: {error!r}, last {last}"
            raise AssertionError(message) from error

    def wait_state(self, state: int) -> Status:
        """Wait until the session is in `state`."""
        return self.wait(lambda status: status.state == state, State.Name(state))  # type: ignore[arg-type]

    def wait_acked(self, epoch: int) -> Status:
        """Wait until `epoch` is acknowledged."""
        return self.wait(lambda status: status.progress.acked_epoch >= epoch, f"ack of {epoch}")

    def release(self) -> Status:
        """Tell the session to let go."""
        return self.command(release=session_pb2.SessionCommand.Release(reason="test"))

    def hand_over(self) -> Status:
        """Tell the receiver to hand its copy over."""
        return self.command(hand_over=session_pb2.SessionCommand.HandOver())


class Pair:
    """Guest `g1` of one simulated host, replicated to another one by two sessions."""

    def __init__(
        self,
        base: Path,
        *,
        transport: dict[str, Any] | None = None,
        port: int = 0,
        **changes: Any,
    ) -> None:
        """Start xl and the sessions on both sides."""
        self.primary, self.secondary = SimHost(base / "alpha"), SimHost(base / "beta")
        self.send_dir, self.receive_dir = base / "send", base / "receive"
        self.changes: dict[str, Any] = {"transport": transport} if transport else {}
        self.changes |= changes
        self.simxl = _simxl()
        self.primary.create(port)
        xl = ["env", f"COLOD_SIMXEN_DIR={self.secondary.root}", self.simxl]
        spec = make_spec(
            self.receive_dir,
            "receive",
            receive_argv=[*xl, "migrate-receive", "-r"],
            pause_argv=[*xl, "pause", "g1--incoming"],
            exists_argv=[*xl, "domid", "g1--incoming"],
            **self.changes,
        )
        self.receiver = subprocess.Popen([SESSION, "receive", "--spec", str(spec)])
        self.receiving = Daemon(self.receive_dir)

    def start_sender(
        self, interval_ms: int = 50, addresses: Callable[[str], str] = lambda address: address
    ) -> None:
        """Start `xl remus` with the sender as its transport.

        Args:
            interval_ms: Between two checkpoints.
            addresses: What the sender is told instead of each address that the receiver has.
        """
        ready = self.receiving.wait(lambda status: status.listen_address, "it listens")
        told = {"address": addresses(ready.listen_address)}
        if ready.backup_address:
            told["backup_address"] = addresses(ready.backup_address)
        spec = make_spec(self.send_dir, "send", **told, **self.changes)
        command = f"exec {SESSION} send --spec {spec}"
        with (self.send_dir / "xl.log").open("wb") as log:
            arguments = ["remus", "-F", "-n", "-d", "-i", str(interval_ms), "-s", "", "g1", command]
            self.remus = self.primary.start(*arguments, stderr=log, stdin=subprocess.DEVNULL)
        self.sending = Daemon(self.send_dir)

    def end(self) -> None:
        """Kill what is left, and reap it."""
        for host in (self.primary, self.secondary):
            host.xl("sim", "kill-host", check=False)
        for name in ("remus", "receiver"):
            process = getattr(self, name, None)
            if process is not None:
                process.kill()
                process.wait(LIMIT_S)
        for directory in (self.send_dir, self.receive_dir):
            _kill_recorded(directory)
        for name in ("sending", "receiving"):
            daemon = getattr(self, name, None)
            if daemon is not None:
                daemon.close()

    def logs(self) -> str:
        """Return what both sessions and both xl said."""
        paths = (self.send_dir / "log", self.send_dir / "xl.log", self.receive_dir / "log")
        return "\n".join(path.read_text() for path in paths if path.exists())


def _simxl() -> str:
    return str(Path(sys.executable).with_name("colod-simxl"))


def _kill_recorded(directory: Path) -> None:
    """Kill the session that left its PID in `directory`, if it lives."""
    try:
        pid, ticks = map(int, (directory / "pid").read_text().split())
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return
    if int(stat.rpartition(")")[2].split()[19]) == ticks:
        os.kill(pid, 9)
