"""Remote operators and a real daemon: roles, the audit log, and who is not let in."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from colod.errors import NotFound, NotPermitted, PeerRefused
from colod.rpc import pki, tls
from colod.rpc.admin_client import AdminClient
from colod.rpc.operators import OperatorRole
from colod.rpc.peer_client import PeerClient
from colod.v1 import admin_pb2
from tests.operators import remote
from tests.pair import Pair, SimulatedHost, free_ports


class Elsewhere:
    """A machine from which alpha is asked, and alpha's daemon."""

    def __init__(self, pair: Pair, port: int) -> None:
        self.pair, self.port = pair, port

    @property
    def alpha(self) -> SimulatedHost:
        return self.pair.alpha

    def ctl(self, certificate: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        pki_ = self.pair.root / "pki"
        return self.alpha.run(
            "colodctl",
            *("--host", f"127.0.0.1:{self.port}", "--host-name", "alpha"),
            *("--ca", str(pki_ / "ca.pem")),
            *("--cert", str(pki_ / f"{certificate}.pem")),
            *("--key", str(pki_ / f"{certificate}.key")),
            *arguments,
            check=False,
        )

    def admin(self, certificate: str) -> AdminClient:
        directory = self.pair.root / "pki"
        path = directory / f"{certificate}.pem"
        return AdminClient(remote(self.port, directory, path, name="alpha"))

    def audited(self) -> list[dict[str, Any]]:
        path = self.alpha.root / "state" / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    (port,) = free_ports(1)
    pair = Pair(tmp_path, extra=f'\n[admin]\nlisten = "127.0.0.1:{port}"\n')
    for role in OperatorRole:
        pki.issue_operator(tmp_path / "pki", role.word, role)
    pair.alpha.start_daemon()
    yield Elsewhere(pair, port)
    pair.alpha.close()


def test_roles_hold_and_the_audit_log_has_who_what_and_what_came_of_it(
    elsewhere: Elsewhere,
) -> None:
    looked = elsewhere.ctl("operators/viewer", "status", "--json")
    assert (looked.returncode, json.loads(looked.stdout)["host"]) == (0, "alpha")
    pause = admin_pb2.SetAutomationRequest(
        paused=True, operator="the boss", reason="new switch", here_only=True
    )
    with elsewhere.admin("operators/viewer") as viewer:
        with pytest.raises(NotPermitted, match="viewer is a viewer: SetAutomation needs an operat"):
            viewer.set_automation(pause)
        with elsewhere.admin("operators/operator") as operator:
            operator.set_automation(pause)
            assert viewer.status().automation.operator == "operator (operator)"
            with pytest.raises(NotPermitted, match="needs an admin"):
                operator.drain()
    with elsewhere.admin("operators/admin") as admin:
        admin.drain()
        with pytest.raises(NotFound):
            admin.unprotect("nowhere")
    # On the host itself everything is as it was.
    assert elsewhere.alpha.try_ctl("unpause", "--here-only").returncode == 0
    with elsewhere.admin("beta") as host, pytest.raises(NotPermitted, match="beta names no role"):
        host.drain()
    elsewhere.alpha.stop_daemon()

    def line(entry: dict[str, Any]) -> tuple[str, ...]:
        return tuple(entry[name] for name in ("name", "role", "call", "outcome", "code"))

    *lines, last = map(line, elsewhere.audited())
    local = lines[8:]
    assert lines[:8] == [
        ("viewer", "viewer", "SetAutomation", "denied", "operator.not_permitted"),
        ("operator", "operator", "SetAutomation", "begun", ""),
        ("operator", "operator", "SetAutomation", "done", ""),
        ("operator", "operator", "Drain", "denied", "operator.not_permitted"),
        ("admin", "admin", "Drain", "begun", ""),
        ("admin", "admin", "Drain", "done", ""),
        ("admin", "admin", "Unprotect", "begun", ""),
        ("admin", "admin", "Unprotect", "failed", "not_found"),
    ]
    assert [each[1:4] for each in local] == [
        ("admin", "SetAutomation", "begun"),
        ("admin", "SetAutomation", "done"),
    ]
    assert all(each[0] for each in local)
    assert last == ("", "", "Drain", "denied", "operator.not_permitted")
    first = elsewhere.audited()[0]
    assert first["address"].startswith("ipv4:127.0.0.1:")
    assert first["request"] == {"paused": True, "reason": "new switch", "here_only": True}


def test_an_operator_is_no_host_and_noise_on_the_port_is_nothing(elsewhere: Elsewhere) -> None:
    directory = elsewhere.pair.root / "pki"
    certificate = directory / "operators" / "admin.pem"
    identity = tls.TlsIdentity(
        (directory / "ca.pem").read_bytes(),
        certificate.read_bytes(),
        certificate.with_suffix(".key").read_bytes(),
    )
    listen = next(
        line.split('"')[1]
        for line in elsewhere.alpha.config.read_text().splitlines()
        if line.startswith("listen")
    )
    with (
        PeerClient(listen, identity, "alpha") as client,
        pytest.raises(PeerRefused, match=r"an operator \(colod-admin\)"),
    ):
        client.greet(timeout_s=20)
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 5000, b"\x16\x03\x01\xff\xff"):
        with socket.create_connection(("127.0.0.1", elsewhere.port), 30) as rude:
            rude.sendall(noise)
    with elsewhere.admin("operators/viewer") as viewer, elsewhere.alpha.admin() as local:
        assert viewer.status().host == local.status().host == "alpha"


def test_an_address_that_is_taken_stops_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        pair = Pair(tmp_path, extra=f'\n[admin]\nlisten = "127.0.0.1:{port}"\n')
        try:
            pair.alpha.start_daemon()
            assert '"listen.failed"' in pair.alpha.log()
        finally:
            pair.alpha.close()


def test_without_an_address_there_is_no_port(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    try:
        pair.alpha.start_daemon()
        assert pair.alpha.daemon is not None
        ports = listening(pair.alpha.daemon.pid)
    finally:
        pair.alpha.close()
    assert len(ports) == 2, "the peer's and that of HTTP"
    assert pair.alpha.http_port in ports


def listening(pid: int) -> set[int]:
    """Return the TCP ports that a process listens on."""
    own = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed just then
            own.add(str(each.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found
