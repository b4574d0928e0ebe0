"""The built-in transports as subjects of the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from colod.model import Credentials, HostName
from colod.rpc import pki
from colod.transport.tcp import TcpTransport
from colod.transport.testing import Relay, Subject, dial_tcp, dial_unix, strangers_over
from colod.transport.tls import TlsTransport
from colod.transport.unix import UnixTransport

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
