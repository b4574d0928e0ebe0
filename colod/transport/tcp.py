"""Transport `tcp`: bare TCP, for a replication network that only the two hosts can reach.

The hello proves who the other session is, but nothing on the wire is encrypted or protected
against change by somebody in between; `tls` is. Its options are those of `colod.transport.inet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from colod.model import Credentials
from colod.transport.inet import Interface, connect_to, listen_on, parse_interface
from colod.transport.sockets import SocketConnection, SocketListener


class TcpTransport:
    """Connects two sessions by TCP, IPv4 or IPv6."""

    def __init__(self, interface: Interface | None = None) -> None:
        """Keep where to listen; on any port of loopback where nothing is said."""
        self._interface = interface or Interface()

    @classmethod
    def from_options(
        cls, options: Mapping[str, str], credentials: Credentials | None = None
    ) -> Self:
        """Make the transport from its configuration table; `credentials` are of no use to it.

        Raises:
            ConfigError: With every problem of `options`.
        """
        return cls(parse_interface(options))

    async def listen(self) -> SocketListener:
        """Start to listen on this host.

        Raises:
            NetworkError: If the address cannot be used.
        """
        return await listen_on(self._interface)

    async def connect(self, address: str, *, timeout_s: float) -> SocketConnection:
        """Connect to a listener's `address`, `host:port` or `[v6]:port`.

        Raises:
            PeerUnreachable: If nobody answers within `timeout_s`.
        """
        return await connect_to(address, timeout_s=timeout_s, dscp=self._interface.dscp)
