"""Two hosts on loopback: real daemons, sessions and command line over the simulated Xen.

For the demo and for integration tests. Nothing here needs root. Every process is started by this
module and killed by number.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from colod.errors import ColodError
from colod.model import HostName
from colod.rpc.admin_client import AdminClient
from colod.rpc.pki import create_authority, issue_certificate
from colod.v1 import admin_pb2
from tests.json_documents import check_json

T = TypeVar("T")

BIN = Path(sys.executable).parent
LIMIT_S = 90.0
POLL_S = 0.05
NAMES = ("alpha", "beta")

CONFIG = """
[host]
name = "{name}"
state_directory = "{root}/state"
runtime_directory = "{root}/run"

[peer]
name = "{peer}"
listen = "{address}:{port}"
address = "{peer_address}:{peer_port}"
more_listen = {more_listen}
more_addresses = {more_addresses}

[tls]
ca = "{pki}/ca.pem"
certificate = "{pki}/{name}.pem"
key = "{pki}/{name}.key"

[transport]
kind = "{transport}"
{transport_options}

[witness]
{witness}

[detection]
beat_interval_s = 0.2
suspect_after_s = {suspect_s}
{detection}
session_silence_s = {silence_s}
ping_interval_s = 0.2

[toolstack]
xl = ["{bin}/colod-simxl"]
xenstore = ["{bin}/colod-simxl", "xenstore"]
launcher = "fork"
guest_configs = "{configs}"
guest_end_wait_s = 1.0

[log]
level = "debug"
format = "json"

[output]
hold = "{hold}"

[observe]
listen = "127.0.0.1:{http_port}"

[policy]
resync = "{resync}"
resync_backoff_s = 1.0
"""


def until(check: Callable[[], T | None], what: str, *, limit_s: float = LIMIT_S) -> T:
    """Poll until `check` returns something true, and return it."""
    deadline = time.monotonic() + limit_s
    while not (found := check()):
        if time.monotonic() > deadline:
            message = f"not within {limit_s:g} s: {what}"
            raise AssertionError(message)
        time.sleep(POLL_S)
    return found


def free_ports(count: int) -> list[int]:
    """Return TCP ports of loopback that nobody uses at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Site(NamedTuple):
    """Where a host's daemon is on the network.

    Attributes:
        namespace: The network namespace that it runs in; "" for the test's own.
        address: What the peer connects to.
        witness: Lines of its table `[witness]`, where it has another one than the pair.
        data: Where its sessions listen; "" for `address`.
        more: Further addresses that it is heard on.
        backup: Where its sessions listen on a second path; "" for none.
    """

    namespace: str = ""
    address: str = "127.0.0.1"
    witness: str = ""
    data: str = ""
    more: tuple[str, ...] = ()
    backup: str = ""

    @property
    def prefix(self) -> tuple[str, ...]:
        """Return the words that run a program there; they exec it, so its PID is theirs."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}") if self.namespace else ()


class SimulatedHost:
    """One host: a directory with its simulated Xen, its configuration and its daemon."""

    def __init__(self, root: Path, name: str, site: Site) -> None:
        """Live below `root`, at `site`."""
        self.root, self.name, self.site = root, name, site
        self.config = root / "colod.toml"
        self.http_port = 0
        self.daemon: subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            "COLOD_SIMXEN_DIR": str(root / "xen"),
            "PYTHONUNBUFFERED": "1",
        }
        for each in (root, root / "xen", root / "run", root / "state"):
            each.mkdir(parents=True, exist_ok=True)

    def run(
        self, *argv: str, check: bool = True, limit_s: float = LIMIT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of colod's on this host."""
        done = subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert not check or done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
        return done

    def xl(self, *arguments: str, check: bool = True) -> str:
        """Run the simulated xl."""
        return self.run("colod-simxl", *arguments, check=check).stdout

    def ctl(self, *arguments: str, check: bool = True, limit_s: float = LIMIT_S) -> str:
        """Run colodctl."""
        return self._ctl(arguments, check=check, limit_s=limit_s).stdout

    def try_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run colodctl, which may fail."""
        return self._ctl(arguments, check=False, limit_s=LIMIT_S)

    def _ctl(
        self, arguments: Sequence[str], *, check: bool, limit_s: float
    ) -> subprocess.CompletedProcess[str]:
        argv = ("colodctl", "--config", str(self.config), *arguments)
        done = self.run(*argv, check=check, limit_s=limit_s)
        check_json(arguments, done.stdout, done.stderr)
        return done

    def status(self, guest: str = "g1") -> dict[str, Any]:
        """Return what `colodctl status` says of the guest, {} when the daemon does not know it."""
        done = self.try_ctl("status", guest, "--json")
        if done.returncode:
            return {}
        found: list[dict[str, Any]] = json.loads(done.stdout)["protections"]
        return found[0] if found else {}

    def admin(self) -> AdminClient:
        """Return a client of the daemon, past the command line."""
        return AdminClient(self.root / "run" / "admin.sock")

    def protection(self, guest: str = "g1") -> admin_pb2.ProtectionStatus:
        """Return what the daemon says of the guest; an empty one when it says nothing."""
        with suppress(ColodError), self.admin() as client:
            return client.status(guest).protections[0]
        return admin_pb2.ProtectionStatus()

    def state(self, guest: str = "g1") -> str:
        """Return the guest's state here, "" when unknown."""
        return str(self.status(guest).get("state", ""))

    def guests(self) -> dict[str, dict[str, Any]]:
        """Return the simulated Xen's own view of its domains, pause counts included."""
        found: list[dict[str, Any]] = json.loads(self.xl("sim", "guests"))
        return {each["name"]: each for each in found}

    def runs(self, guest: str = "g1") -> bool:
        """Whether a copy of the guest runs here, under whatever name."""
        names = (guest, f"{guest}--incoming")
        return any(self.guests().get(name, {}).get("running") for name in names)

    def metrics(self) -> str:
        """Return what the daemon tells Prometheus."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.http_port}/metrics", timeout=10
        ) as got:
            return str(got.read().decode())

    def start_daemon(self) -> None:
        """Start colod and wait until it answers."""
        self.launch_daemon()
        self.await_daemon()

    def launch_daemon(self) -> None:
        """Start colod."""
        log = (self.root / "colod.log").open("ab")
        self.daemon = subprocess.Popen(
            [*self.site.prefix, str(BIN / "colod"), "--config", str(self.config)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def await_daemon(self) -> None:
        """Wait until colod answers."""

        def answers() -> bool:
            assert self.daemon is not None
            assert self.daemon.poll() is None, self.log()[-2000:]
            with suppress(ColodError), self.admin() as client:
                return bool(client.version().host)
            return False

        until(answers, f"the daemon of {self.name} answers")

    def stop_daemon(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the daemon a signal and wait for its end; sessions are not touched."""
        if self.daemon is not None:
            self.daemon.send_signal(number)
            self.daemon.wait(LIMIT_S)
            self.daemon = None

    def session_pids(self) -> list[int]:
        """Return the numbers of this host's sessions."""
        return self._numbers("pid")

    def xl_pids(self) -> list[int]:
        """Return the numbers of the xl of this host's sessions."""
        return self._numbers("toolstack")

    def _numbers(self, name: str) -> list[int]:
        found = []
        for path in (self.root / "run" / "sessions").glob(f"*/{name}"):
            with suppress(FileNotFoundError, IndexError, ValueError):  # it ended just then
                found.append(int(path.read_text().split()[0]))
        return found

    def log(self) -> str:
        """Return the daemon's log."""
        path = self.root / "colod.log"
        return path.read_text() if path.exists() else ""

    def die(self) -> None:
        """Kill everything of this host at once, as a power cut does."""
        pids = self.session_pids()
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait(LIMIT_S)
            self.daemon = None
        for pid in pids:
            kill(pid)
        self.xl("sim", "kill-host", check=False)

    def close(self) -> None:
        """End everything of this host."""
        self.die()


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _answer(link: socket.socket, request: str, limit_s: float) -> dict[str, Any]:
    """Return what the guest at the other end answers, {} if nothing."""
    try:
        with link:
            link.settimeout(limit_s)
            link.sendall(request.encode() + b"\n")
            line = link.makefile("rb").readline()
        return dict(json.loads(line)) if line.strip() else {}
    except (OSError, ValueError):
        return {}


class Pair:
    """Two hosts, `alpha` and `beta`, a witness on the file system, and a guest's address."""

    def __init__(
        self,
        root: Path,
        *,
        transport: str = "tcp",
        witness: str = "",
        suspect_s: float = 2.0,
        silence_s: float = 1.2,
        resync: str = "manual",
        hold: str = "off",
        extra: str = "",
        detection: str = "",
        sites: tuple[Site, Site] = (Site(), Site()),
    ) -> None:
        """Lay out both hosts below `root`; nothing runs before `start`.

        Args:
            root: An empty directory; paths of unix sockets below it must fit (keep it short).
            transport: Kind of transport, `tcp`, `tls` or `unix`.
            witness: Lines of the table `[witness]`, where `{root}` is the host's directory; a
                witness of files by default.
            suspect_s: Silence after which a host is suspected.
            silence_s: Silence after which a session is.
            resync: Policy `automatic` or `manual`.
            hold: Whether output is held, `automatic` (by the simulated plug) or `off`.
            extra: Further tables of the configuration, where `{root}` is the host's directory.
            detection: Further lines of the table `[detection]`.
            sites: Where alpha and beta are.
        """
        self.root = root
        self.guest_port, *ports = free_ports(5)
        self.alpha = SimulatedHost(root / "alpha", "alpha", sites[0])
        self.beta = SimulatedHost(root / "beta", "beta", sites[1])
        self.hosts = (self.alpha, self.beta)
        self.alpha.http_port, self.beta.http_port = ports[2:]
        records = root / "witness"
        records.mkdir()
        self._make_pki()
        for host, port, other, other_port in (
            (self.alpha, ports[0], self.beta, ports[1]),
            (self.beta, ports[1], self.alpha, ports[0]),
        ):
            data = host.site.data or host.site.address
            options = f'listen = "{data}"' if transport in ("tcp", "tls") else ""
            if transport == "unix":
                options = f'directory = "{root}/links"'
            if host.site.backup:
                options += f'\n[transport.backup]\nlisten = "{host.site.backup}"'
            host.config.write_text(
                CONFIG.format(
                    configs=self.root,
                    name=host.name,
                    peer=other.name,
                    root=host.root,
                    address=host.site.address,
                    peer_address=other.site.address,
                    port=port,
                    peer_port=other_port,
                    more_listen=json.dumps([f"{each}:{port}" for each in host.site.more]),
                    more_addresses=json.dumps([f"{each}:{other_port}" for each in other.site.more]),
                    detection=detection,
                    pki=root / "pki",
                    bin=BIN,
                    transport=transport,
                    transport_options=options,
                    witness=(host.site.witness or witness).replace("{root}", str(host.root))
                    or f'kind = "file"\ndirectory = "{records}"',
                    suspect_s=suspect_s,
                    silence_s=silence_s,
                    resync=resync,
                    hold=hold,
                    http_port=host.http_port,
                )
                + extra.replace("{root}", str(host.root))
            )

    def _make_pki(self) -> None:
        pki = self.root / "pki"
        create_authority(pki)
        for name in NAMES:
            issue_certificate(pki, HostName(name))

    def start(self) -> None:
        """Start both daemons."""
        for host in self.hosts:
            host.launch_daemon()
        for host in self.hosts:
            host.await_daemon()

    def create_guest(self, name: str = "g1", **settings: object) -> None:
        """Create and start the guest on alpha."""
        lines = [
            f'name="{name}"',
            "memory=64",
            "vif=['bridge=br0,mac=00:16:3e:00:00:01']",
            f'sim_service="127.0.0.1:{self.guest_port}"',
            *(f"{key}={value!r}" for key, value in {"sim_memory_pages": 256, **settings}.items()),
        ]
        config = self.root / f"{name}.cfg"
        config.write_text("\n".join(lines) + "\n")
        self.alpha.xl("create", str(config))

    def protect(self, name: str = "g1", *options: str) -> None:
        """Protect the guest from alpha to beta and wait until it could be taken over."""
        argv = ("protect", name, "--to", "beta", "--disks", "none", "--interval-ms", "50")
        self.alpha.ctl(*argv, *options)

    def ask_guest(self, request: str = "get", *, limit_s: float = 0.5) -> dict[str, Any]:
        """Ask the guest at its address, wherever it runs; {} when nobody answers in time.

        A guest that is paused for a moment refuses connections, and ends those that it has not
        taken yet: it is tried again.
        """
        deadline = time.monotonic() + limit_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                link = socket.create_connection(("127.0.0.1", self.guest_port), timeout=left_s)
            except OSError:
                time.sleep(POLL_S)
                continue
            if answer := _answer(link, request, left_s):
                return answer
        return {}

    def running_copies(self, guest: str = "g1") -> Sequence[str]:
        """Return the hosts on which a copy of the guest runs, by the simulated Xen's own view."""
        return [host.name for host in self.hosts if host.runs(guest)]

    def close(self) -> None:
        """End everything."""
        for host in self.hosts:
            host.close()
