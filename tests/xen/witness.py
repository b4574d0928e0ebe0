"""etcd for the lab: outside both hosts, reachable from both over the management network."""

import base64
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.xen.net import NETWORKS, OUTSIDE, Namespace
from tests.xen.process import LabUnavailableError

ADDRESS = f"{NETWORKS['mgmt']}.{OUTSIDE}"
PORT = 2379
START_S = 60.0


class Etcd:
    """One etcd server in the lab's namespace, on http://10.77.0.254:2379."""

    endpoint = f"{ADDRESS}:{PORT}"

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        self._folder = folder
        self._pid_file = folder / "pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, empty: bool = True) -> None:
        """Start the server, with no records when `empty`, and wait until it answers."""
        self.kill()
        if empty:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._pid_file.write_text(str(self._process.pid))
        self._wait_until_up()

    def kill(self) -> None:
        """End the server at once; its records stay on disk."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)
            self._process = None
        self._pid_file.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop the server in mid-instruction: it takes connections but never answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def records(self, prefix: str = "") -> dict[str, str]:
        """Return the records whose key begins with `prefix`; all of them by default."""
        first = prefix.encode() or b"\0"
        last = first[:-1] + bytes([first[-1] + 1]) if prefix else b"\0"
        query = {"key": base64.b64encode(first).decode()}
        query["range_end"] = base64.b64encode(last).decode()
        rows = self._post("/v3/kv/range", query).get("kvs", [])
        assert isinstance(rows, list)
        return {_text(row["key"]): _text(row.get("value", "")) for row in rows}

    def _post(self, path: str, body: dict[str, str]) -> dict[str, object]:
        connection = http.client.HTTPConnection(ADDRESS, PORT)
        connection.sock = self._namespace.tcp(ADDRESS, PORT)
        try:
            connection.request("POST", path, json.dumps(body))
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert isinstance(answer, dict)
        return answer

    def _argv(self) -> list[str]:
        client, peer = f"http://{self.endpoint}", "http://127.0.0.1:2380"
        options = {
            "--name": "witness",
            "--data-dir": str(self._folder / "records"),
            "--listen-client-urls": client,
            "--advertise-client-urls": client,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": f"witness={peer}",
            "--log-level": "warn",
        }
        words = [word for option in options.items() for word in option]
        return [*self._namespace.prefix, "etcd", *words]

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                self.records("no-such-key")
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                time.sleep(0.1)
            else:
                return
        raise LabUnavailableError("etcd did not start: " + (self._folder / "etcd.log").read_text())

    def _signal(self, number: signal.Signals) -> None:
        pid = self._pid()
        assert pid is not None, "etcd is not running"
        os.kill(pid, number)

    def _pid(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._folder).encode() in command else None


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
