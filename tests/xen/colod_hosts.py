"""colod on the lab's two hosts, as its systemd service, with etcd outside both as the witness."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from colod.errors import ColodError
from colod.model import HostName
from colod.rpc import pki
from colod.rpc.admin_client import AdminClient
from colod.v1 import admin_pb2
from tests.xen.guest import NAME
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

PORT = 7411
SUSPECT_S = 10.0
SILENCE_S = 6.0
REACHED_S = 120.0
HEALED_S = 600.0
STATUS_S = 20.0
CHANGE_S = 180.0

CONFIG = """
[host]
name = "{name}"

[peer]
name = "{peer}"
listen = "{address}:{port}"
address = "{peer_address}:{port}"

[transport]
{transport}

[witness]
kind = "etcd"
endpoints = ["http://{witness}"]

# Emulated processors are slow and uneven: these limits are about truth, not about speed.
[detection]
beat_interval_s = 1.0
suspect_after_s = {suspect_s}
session_silence_s = {silence_s}
ping_interval_s = 1.0

[session]
staging_mib = 64

[output]
hold = "{hold}"

[policy]
resync = "{resync}"

[log]
level = "debug"
"""

TCP = 'kind = "tcp"\nlisten = "{data_address}"'

SENDER = "/colod-session send"
RECEIVER = "/colod-session receive"
DAEMON = "bin/colod$"
XL_REMUS = "bin/xl remus"
XL_RECEIVE = "bin/xl migrate-receive"


class ColodHosts:
    """Both hosts with colod configured and running."""

    def __init__(
        self,
        lab: Lab,
        *,
        resync: str = "manual",
        hold: str = "automatic",
        extra: str = "",
        data_prefix: str = "",
        transport: str = TCP,
        **limits: float,
    ) -> None:
        """Install certificates and configuration and start the service on both hosts.

        Args:
            lab: With both hosts up.
            resync: Policy after a failover.
            hold: Whether output is held.
            extra: Further tables of the configuration.
            data_prefix: The first three numbers of addresses of their own for the replicated data,
                on the same interface; "" to use the hosts' own addresses.
            transport: What stands in `[transport]`; `{data_address}` is a host's address for data,
                `{address}` its own, `{peer}` the other host's name.
            limits: `suspect_s` and `silence_s`, in seconds, where a test wants others.
        """
        self.lab = lab
        self._extra = extra
        self.alpha, self.beta = lab.alpha, lab.beta
        self._data_prefix = data_prefix
        self._transport = transport
        for host in lab.hosts:
            self.join_data(host)
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            pki.create_authority(folder)
            for host, peer in ((self.alpha, self.beta), (self.beta, self.alpha)):
                self._configure(host, peer, folder, resync=resync, hold=hold, **limits)
        for host in lab.hosts:
            host.run("systemctl start colod", timeout_s=180)
            self.reconnect(host)

    def data_address(self, host: Host) -> str:
        """Return the address by which a host's replicas come in."""
        return f"{self._data_prefix}.{host.number}" if self._data_prefix else host.address

    def join_data(self, host: Host) -> None:
        """Give a host its address for the replicated data, where it has one of its own."""
        if self._data_prefix:
            self._address("replace", host)

    def cut_data(self, host: Host) -> None:
        """Take that address away: what is sent to it gets no answer, as from a cut network."""
        self._address("delete", host)

    def _address(self, action: str, host: Host) -> None:
        device = host.run(f"ip -o -4 address show to {host.address}").stdout.split()[1]
        host.run(f"ip address {action} {self.data_address(host)}/24 dev {device}")

    def reconnect(self, host: Host) -> None:
        """Make the daemon's socket on a host reachable, after each start of that host."""
        host.forward_socket("/run/colod/admin.sock", self._socket(host))

    def _configure(self, host: Host, peer: Host, folder: Path, **settings: str | float) -> None:
        certify(host, folder)
        text = CONFIG.format(
            name=host.name,
            peer=peer.name,
            address=host.address,
            transport=self._transport.format(
                data_address=self.data_address(host), address=host.address, peer=peer.name
            ),
            peer_address=peer.address,
            port=PORT,
            witness=self.lab.witness.endpoint,
            **{"suspect_s": SUSPECT_S, "silence_s": SILENCE_S, **settings},
        )
        host.put((text + self._extra).encode(), "/etc/colod/colod.toml")

    def protect(self, *options: str, interval_ms: int = 200) -> None:
        """Protect the guest from alpha to beta and wait until it could be taken over."""
        self.alpha.run(
            f"colodctl protect {NAME} --to beta --disks none --interval-ms {interval_ms} --no-wait "
            f"{' '.join(options)}",
            timeout_s=300,
        )
        self.reaches(self.alpha, "REPLICATING", "PROTECTED", limit_s=300)

    def status(self, host: Host) -> dict[str, Any]:
        """Return what the daemon says of the guest on a host, {} when nothing.

        Asked from out here, over ssh: dom0's emulated processor has enough to do.
        """
        try:
            with AdminClient(self._socket(host)) as client:
                reply = client.status(NAME, timeout_s=STATUS_S)
        except ColodError:
            return {}
        found = [
            MessageToDict(each, preserving_proto_field_name=True) for each in reply.protections
        ]
        return found[0] if found else {}

    def history(self, host: Host) -> list[admin_pb2.HistoryEntry]:
        """Return the changes of the guest's state that a host noted, the newest last."""
        with AdminClient(self._socket(host)) as client:
            return list(client.history(NAME, limit=0).entries)

    def switch_over(self, giver: Host) -> None:
        """Have `giver` give the guest to the other host."""
        with AdminClient(self._socket(giver)) as client:
            client.switchover(admin_pb2.SwitchoverRequest(guest=NAME), timeout_s=CHANGE_S)

    def unprotect(self, host: Host) -> None:
        """End the protection on the guest's host."""
        with AdminClient(self._socket(host)) as client:
            client.unprotect(NAME)

    def _socket(self, host: Host) -> Path:
        return Path("/run", self.lab.namespace.name, f"{host.name}.admin")

    def state(self, host: Host) -> str:
        """Return the guest's state on a host."""
        return str(self.status(host).get("state", ""))

    def acked_epoch(self, host: Host) -> int:
        """Return the newest acknowledged epoch that a host's session knows, 0 without one."""
        progress = self.status(host).get("progress") or {}
        return int(progress.get("acked_epoch", 0))

    def reaches(self, host: Host, *states: str, limit_s: float = REACHED_S) -> dict[str, Any]:
        """Wait until the guest's state on a host is one of `states`; return the status."""
        wait_for(lambda: self.state(host) in states, limit_s, f"{states} on {host.name}")
        return self.status(host)

    def until_protected(self) -> tuple[Host, Host]:
        """Wait until both hosts say PROTECTED, in one pairing; return primary and secondary."""
        found: list[tuple[Host, Host]] = []

        def agree() -> bool:
            for primary, secondary in (self.lab.hosts, self.lab.hosts[::-1]):
                said = [self.status(primary), self.status(secondary)]
                if (
                    [each.get("role") for each in said] == ["ROLE_PRIMARY", "ROLE_SECONDARY"]
                    and {each.get("state") for each in said} == {"PROTECTED"}
                    and said[0].get("pairing") == said[1].get("pairing")
                ):
                    found.append((primary, secondary))
            return bool(found)

        wait_for(agree, HEALED_S, "both hosts to say PROTECTED")
        return found[-1]

    def commits(self, epochs: int, *, limit_s: float = REACHED_S) -> int:
        """Wait until `epochs` more epochs are acknowledged; return the newest."""
        before = self.acked_epoch(self.alpha)
        wait_for(
            lambda: self.acked_epoch(self.alpha) >= before + epochs,
            limit_s,
            f"{epochs} epochs after {before}",
        )
        return self.acked_epoch(self.alpha)

    def pids(self, host: Host, pattern: str) -> list[int]:
        """Return the processes in dom0 whose command line matches."""
        bracketed = f"{pattern[:-1]}[{pattern[-1]}]" if pattern[-1].isalpha() else pattern
        done = host.run(f"pgrep -f -- '{bracketed}'", check=False)
        return [int(word) for word in done.stdout.split()]

    @contextlib.contextmanager
    def stopped(self, host: Host, pattern: str) -> Iterator[None]:
        """SIGSTOP the processes in dom0 that match, and let them go on at the end."""
        pids = " ".join(map(str, self.pids(host, pattern)))
        assert pids, f"no process {pattern} on {host.name}"
        host.run(f"kill -STOP {pids}")
        try:
            yield
        finally:
            host.run(f"kill -CONT {pids}")

    def gate(self, host: Host) -> dict[str, Any]:
        """Return what the daemon says of the output gate on a host, {} when nothing."""
        return dict(self.status(host).get("gate") or {})

    def kill(self, host: Host, *patterns: str) -> None:
        """SIGKILL, at one go, the processes in dom0 that match; each pattern must match one."""
        pids: list[int] = []
        for pattern in patterns:
            found = self.pids(host, pattern)
            assert found, f"no process {pattern} on {host.name}"
            pids += found
        host.run(f"kill -KILL {' '.join(map(str, pids))}")


def certify(host: Host, folder: Path) -> None:
    """Give a host a new certificate of the authority in `folder`."""
    pki.issue_certificate(folder, HostName(host.name), force=True)
    host.put(folder / "ca.pem", "/etc/colod/tls/ca.pem")
    host.put(folder / f"{host.name}.pem", "/etc/colod/tls/host.pem")
    host.put(folder / f"{host.name}.key", "/etc/colod/tls/host.key", 0o600)


def protected(lab: Lab, *, data_prefix: str = "") -> ColodHosts:
    """Return both hosts with the guest protected; they pair again by themselves."""
    hosts = ColodHosts(lab, resync="automatic", data_prefix=data_prefix)
    hosts.protect()
    hosts.until_protected()
    return hosts
