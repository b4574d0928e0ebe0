"""A real etcd on loopback, for tests: Debian's etcd-server, one process per member."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

START_LIMIT_S = 60.0


def require_etcd() -> None:
    """Skip visibly where Debian's etcd is missing; CI never skips."""
    missing = [name for name in ("etcd", "etcdctl") if shutil.which(name) is None]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"not found: {', '.join(missing)} (Debian: etcd-server, etcd-client)")
    assert not missing


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Tls:
    """Files that a member and its clients use."""

    ca: Path
    cert: Path
    key: Path


@dataclass
class EtcdMember:
    """One member; `start` after `stop` brings it back with what it had stored."""

    directory: Path
    name: str = "m0"
    tls: Tls | None = None
    client_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    address: str = "127.0.0.1"
    prefix: Sequence[str] = ()
    """The words that run a program where the member is on the network."""

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"{'https' if self.tls else 'http'}://{self.address}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """What other members are told."""
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def data(self) -> Path:
        """Where it stores."""
        return self.directory / f"{self.name}.etcd"

    def start(self, members: Sequence[EtcdMember] = ()) -> None:
        """Start it; the caller then waits with `wait_until_serving`."""
        initial = ",".join(f"{one.name}={one.peer_url}" for one in (members or [self]))
        argv = [*self.prefix, "etcd", "--name", self.name, "--data-dir", str(self.data)]
        argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        argv += ["--listen-peer-urls", self.peer_url]
        argv += ["--initial-advertise-peer-urls", self.peer_url, "--initial-cluster", initial]
        if self.tls is not None:
            argv += ["--client-cert-auth", "--trusted-ca-file", str(self.tls.ca)]
            argv += ["--cert-file", str(self.tls.cert), "--key-file", str(self.tls.key)]
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def wait_until_serving(self) -> None:
        """Wait, within `START_LIMIT_S`, for the member to answer linearizable requests."""
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            assert self.process is not None
            assert self.process.poll() is None, (self.directory / f"{self.name}.log").read_text()
            asked = self.ctl("endpoint", "health", check=False)
            if asked.returncode == 0 or b"user name is empty" in asked.stderr:
                return
            assert time.monotonic() < deadline, asked.stderr
            time.sleep(0.1)

    def ctl(
        self, *words: str, check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run etcdctl against this member."""
        argv = [*self.prefix, "etcdctl", "--endpoints", self.url, "--command-timeout", "20s"]
        if self.tls is not None:
            argv += ["--cacert", str(self.tls.ca)]
            argv += ["--cert", str(self.tls.cert), "--key", str(self.tls.key)]
        environment = os.environ | {"ETCDCTL_API": "3"}
        return subprocess.run(
            [*argv, *words], input=stdin, capture_output=True, check=check, env=environment
        )

    def freeze(self) -> None:
        """Let it hang, its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self.process = None


def start_cluster(directory: Path, size: int, tls: Tls | None = None) -> list[EtcdMember]:
    """Start `size` members, wait until all serve, and return them; the caller stops them."""
    members = [EtcdMember(directory, name=f"m{n}", tls=tls) for n in range(size)]
    try:
        for one in members:
            one.start(members)
        for one in members:
            one.wait_until_serving()
    except BaseException:
        for one in members:
            one.stop()
        raise
    return members
