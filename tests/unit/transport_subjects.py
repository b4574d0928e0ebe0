"""The built-in transports as subjects of the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from colod.model import Credentials, HostName
from colod.rpc import pki
from colod.transport.base import Connection
from colod.transport.grpc import GrpcTransport
from colod.transport.ssh import SshTransport
from colod.transport.tcp import TcpTransport
from colod.transport.testing import Relay, Subject, dial_tcp, dial_unix, strangers_over
from colod.transport.tls import TlsTransport
from colod.transport.unix import UnixTransport
from tests.ssh_server import HOST, SshServer

ALPHA, BETA = HostName("alpha"), HostName("beta")


def make_pki(directory: Path, *hosts: HostName) -> Path:
    """Make an authority and certificates of `hosts`."""
    pki.create_authority(directory)
    for host in hosts:
        pki.issue_certificate(directory, host)
    return directory


def credentials(directory: Path, host: HostName, peer: HostName) -> Credentials:
    """Return what `host` talks to `peer` with."""
    return Credentials(
        host=host,
        peer=peer,
        ca=directory / "ca.pem",
        certificate=directory / f"{host}.pem",
        key=directory / f"{host}.key",
    )


def tls_pair(directory: Path, listen: str = "127.0.0.1") -> tuple[TlsTransport, TlsTransport]:
    """Return the transports of alpha, who connects, and beta, who listens."""
    options: Mapping[str, str] = {"listen": listen}
    return (
        TlsTransport.from_options(options, credentials(directory, ALPHA, BETA)),
        TlsTransport.from_options(options, credentials(directory, BETA, ALPHA)),
    )


def tcp_subject(listen: str = "127.0.0.1") -> Subject:
    """Return bare TCP."""
    transport = TcpTransport.from_options({"listen": listen})
    return Subject(
        sender=transport,
        receiver=transport,
        relay=Relay.over_tcp,
        strangers=strangers_over(dial_tcp),
    )


def unix_subject(directory: Path) -> Subject:
    """Return unix sockets below `directory`."""
    transport = UnixTransport.from_options({"directory": str(directory)})
    return Subject(
        sender=transport,
        receiver=transport,
        relay=Relay.over_unix,
        strangers=strangers_over(dial_unix),
    )


def tls_subject(directory: Path, listen: str = "127.0.0.1") -> Subject:
    """Return TLS with the certificates of `make_pki` in `directory`."""
    sender, receiver = tls_pair(directory, listen)
    return Subject(
        sender=sender,
        receiver=receiver,
        relay=Relay.over_tcp,
        strangers=strangers_over(dial_tcp),
        proves_peer=True,
    )


def grpc_subject(directory: Path, listen: str = "127.0.0.1") -> Subject:
    """Return gRPC with the certificates of `make_pki` in `directory`."""
    options = {"listen": listen}
    return Subject(
        sender=GrpcTransport.from_options(options, credentials(directory, ALPHA, BETA)),
        receiver=GrpcTransport.from_options(options, credentials(directory, BETA, ALPHA)),
        relay=Relay.over_tcp,
        strangers=strangers_over(dial_tcp),
        proves_peer=True,
    )


class SshThrough(SshTransport):
    """The sender's side, which a check may send through a relay in front of the sshd."""

    server: SshServer

    async def connect(self, address: str, *, timeout_s: float) -> Connection:  # type: ignore[override]
        """Connect to `address`, or to `address@port` by a relay at that port."""
        listener, at, port = address.partition("@")
        if not at:
            return await super().connect(address, timeout_s=timeout_s)
        config = self.server.client_config(f"relayed-{port}", port=int(port))
        transport = SshTransport.from_options({"host": HOST, "config": str(config)})
        return await transport.connect(listener, timeout_s=timeout_s)


def ssh_subject(server: SshServer | None, listen: str = "127.0.0.1") -> Subject:
    """Return ssh to `server`; with none it is only good for its description."""
    config = str(server.config) if server else "/nowhere"
    sender = SshThrough.from_options({"host": HOST, "config": config})

    async def relay(address: str) -> Relay:
        assert server is not None
        relay = await Relay.over_tcp(f"127.0.0.1:{server.port}")
        relay.address = f"{address}@{relay.address.rpartition(':')[2]}"
        return relay

    if server is not None:
        sender.server = server
    return Subject(
        sender=sender,
        receiver=SshTransport.from_options({"host": HOST, "listen": listen}),
        relay=relay,
        strangers=strangers_over(dial_tcp),
        proves_peer=True,  # so that every check is made: only the hello tells local users apart
        patience_s=60.0,
        rounds=6,
    )
