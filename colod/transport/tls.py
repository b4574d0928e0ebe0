"""Transport `tls`: TLS 1.3 over TCP; both hosts prove themselves with their certificates.

Only the configured peer is let in, by the DNS name in its certificate, and whoever connects has
`GREETING_S` of `colod.transport.reception` to prove it. The files of `[tls]` are read for each
connection, so that a new certificate needs no restart; a connection that stands keeps what it
began with. Options: `colod.transport.inet`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Self

from colod.errors import ConfigError, NetworkError, PeerUnreachable
from colod.model import Credentials
from colod.transport.inet import Interface, connect_to, listen_on, parse_interface
from colod.transport.reception import GREETING_S, Reception
from colod.transport.sockets import SocketConnection, SocketListener
from colod.transport.tlsconnection import TlsConnection, make_context


class TlsTransport:
    """Connects the sessions of two hosts that trust one authority."""

    def __init__(self, interface: Interface, credentials: Credentials) -> None:
        """Keep where to listen, and where to find what proves the hosts."""
        self._interface = interface
        self._credentials = credentials

    @classmethod
    def from_options(
        cls, options: Mapping[str, str], credentials: Credentials | None = None
    ) -> Self:
        """Make the transport from its configuration table.

        Raises:
            ConfigError: With every problem of `options`.
        """
        interface = parse_interface(options)
        if credentials is None:
            raise ConfigError(["transport.kind: tls needs the files of the table [tls]"])
        return cls(interface, credentials)

    async def listen(self) -> TlsListener:
        """Start to listen on this host.

        Raises:
            NetworkError: If the address or one of the files cannot be used.
        """
        await asyncio.to_thread(make_context, self._credentials, is_listener=True)
        return TlsListener(await listen_on(self._interface), self._credentials)

    async def connect(self, address: str, *, timeout_s: float) -> TlsConnection:
        """Connect to the peer's listener at `address`, `host:port` or `[v6]:port`.

        Raises:
            PeerUnreachable: If nobody answers within `timeout_s`, or this side's files cannot be
                used: in the middle of their replacement they may not fit each other.
            PeerRefused: If it is not the peer, or does not take this host for its own.
        """
        try:
            async with asyncio.timeout(timeout_s):
                carrier = await connect_to(address, timeout_s=timeout_s, dscp=self._interface.dscp)
                return await _proven(carrier, self._credentials, is_listener=False)
        except (NetworkError, TimeoutError) as error:
            reason = str(error) or f"no handshake within {timeout_s:g} s"
            raise PeerUnreachable(f"cannot connect to {address}: {reason}") from error


class TlsListener(Reception[TlsConnection]):
    """Gives connections of the peer's certificate only."""

    def __init__(
        self, inner: SocketListener, credentials: Credentials, *, greeting_s: float = GREETING_S
    ) -> None:
        """Take over `inner`; nobody is let in before the first `accept`."""
        prove = partial(_proven, credentials=credentials, is_listener=True)
        super().__init__(inner, prove, greeting_s=greeting_s)


async def _proven(
    carrier: SocketConnection, credentials: Credentials, *, is_listener: bool
) -> TlsConnection:
    """Return the connection to the peer over `carrier`, which is closed if it is not the peer's.

    Raises:
        NetworkError: If a file of `credentials` cannot be used.
        PeerError: If the other side is not the peer, does not take this host, or broke off.
    """
    try:
        context = await asyncio.to_thread(make_context, credentials, is_listener=is_listener)
        connection = TlsConnection(carrier, context, is_listener=is_listener)
        await connection.prove(credentials.peer)
    except BaseException:
        await carrier.close()
        raise
    return connection
