"""Transport `ssh`: the operator's own OpenSSH and keys; no port is open but that of sshd.

The receiver listens on loopback only. The sender has its `ssh` connect there (`-W`, one forwarded
connection, RFC 4254, 7.2): so neither host listens on anything that the network reaches, no command
and no shell runs over there, and the key can be limited to just this by `restrict`,
`port-forwarding` and `permitopen`. A socket in the file system cannot be limited so, and `-W` takes
one only since OpenSSH 9.4; a subsystem or a command would need a login there.

ssh proves the receiver's host by its host key, which is always checked, and the sender by its key;
who is admitted to the pairing the session's hello decides, as always: any local user of the
receiver's host can knock at its loopback. What ssh protects ends in sshd: `colod.transport.chunked`
tells an end from the death of one of the four processes on the way.

Options: `host` (the other host as ssh takes it, an alias of ssh_config too; default: its name),
`config` (absolute path of an ssh_config to use instead of the user's and the system's), `listen`
(the loopback address to receive on, default 127.0.0.1), `port` (there, default 0: any), `dscp` (how
ssh marks its packets, in place of `IPQoS`). User, port, keys, jumps and ciphers are ssh_config's
affair.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from colod.errors import ConfigError, PeerUnreachable
from colod.model import Credentials
from colod.transport.chunked import ChunkedConnection
from colod.transport.inet import Interface, listen_on, parse_address, parse_interface
from colod.transport.reception import Reception
from colod.transport.sockets import SocketConnection
from colod.transport.sshclient import Destination, SshClient, command, explain, start

_OURS: Final = frozenset({"host", "config"})
_LISTENING: Final = frozenset({"listen", "port", "dscp"})
_HOST: Final = re.compile(r"[A-Za-z0-9_.:@%\[\]][-A-Za-z0-9_.:@%\[\]]*")
_LAST_WORDS_S: Final = 1.0


class SshTransport:
    """Connects two sessions by the ssh of the one and the sshd of the other."""

    def __init__(self, destination: Destination, interface: Interface) -> None:
        """Keep whom to call, and where to listen."""
        self._destination = destination
        self._interface = interface

    @classmethod
    def from_options(
        cls, options: Mapping[str, str], credentials: Credentials | None = None
    ) -> Self:
        """Make the transport from its configuration table; of `credentials` it has a name only.

        Raises:
            ConfigError: With every problem of `options`.
        """
        listening = {name: value for name, value in options.items() if name in _LISTENING}
        problems = [_unknown(name) for name in sorted(options.keys() - _OURS - _LISTENING)]
        host = options.get("host", credentials.peer if credentials else "")
        if not _HOST.fullmatch(host):
            problems.append(f"transport.host: {host!r}, want the other host as ssh takes it")
        config = options.get("config")
        if config is not None and not Path(config).is_absolute():
            problems.append(f"transport.config: {config!r}, want an absolute path")
        try:
            interface = parse_interface(listening)
        except ConfigError as error:
            problems += error.problems
        else:
            if not _is_loopback(interface.listen):
                problems.append(
                    f"transport.listen: {interface.listen!r}, want a loopback address: sshd "
                    "connects to it, nobody else is to reach it"
                )
        if problems:
            raise ConfigError(problems)
        destination = Destination(
            host=host, config=Path(config) if config else None, dscp=interface.dscp
        )
        return cls(destination, interface)

    async def listen(self) -> Reception[ChunkedConnection]:
        """Start to listen on this host's loopback.

        Raises:
            NetworkError: If the address cannot be used.
        """
        return Reception(await listen_on(self._interface), _answered)

    async def connect(self, address: str, *, timeout_s: float) -> SshConnection:
        """Connect by ssh to the peer's listener at `address`, a loopback one of that host.

        Raises:
            PeerUnreachable: If nobody answers within `timeout_s`, or ssh cannot be run.
            PeerRefused: If it is not the peer, or its sshd does not take this host.
        """
        host = self._destination.host
        try:
            listen, port = parse_address(address)
        except ValueError as error:
            raise PeerUnreachable(f"cannot connect by ssh {host}: {error}") from error
        if not _is_loopback(listen):
            message = f"{host} wants to be called at {listen[:64]!r}, which is not its loopback"
            raise PeerUnreachable(message)
        client: SshClient | None = None
        try:
            async with asyncio.timeout(timeout_s):
                argv = command(self._destination, port, listen, timeout_s)
                client, sock = await start(argv)
                return await _hailed(host, client, SocketConnection(sock, f"ssh {host}"))
        except TimeoutError as error:
            said = f": {client.said}" if client and client.said else ""
            message = f"ssh {host}: no answer within {timeout_s:g} s{said}"
            raise PeerUnreachable(message) from error


class SshConnection(ChunkedConnection):
    """What the sender has: the chunks go through an ssh that goes with the connection."""

    def __init__(self, carrier: SocketConnection, client: SshClient) -> None:
        """Take over `carrier`, the input and output of `client`."""
        super().__init__(carrier)
        self._client = client

    async def close(self) -> None:
        """Close both directions; ssh has a few seconds to bring away what it has taken."""
        await super().close()
        self._client.let_go()

    async def abandon(self) -> None:
        """Close without a mark, and end ssh at once."""
        await super().abandon()
        self._client.let_go(0)

    def _broken(self, reason: str) -> PeerUnreachable:
        """Add what ssh says of it."""
        said = self._client.said
        return super()._broken(f"{reason}; ssh says: {said}" if said else reason)


async def _hailed(host: str, client: SshClient, carrier: SocketConnection) -> SshConnection:
    """Return the connection to a session through `client`, which ends if there is none.

    Raises:
        PeerError: If there is none; as ssh explains it.
    """
    connection = SshConnection(carrier, client)
    try:
        await connection.hail()
    except PeerUnreachable as error:
        reason = explain(host, client.said) if await client.ended(_LAST_WORDS_S) else error
        await connection.abandon()
        raise reason from error
    except BaseException:
        await connection.abandon()
        raise
    return connection


async def _answered(carrier: SocketConnection) -> ChunkedConnection:
    """Return the connection to whoever speaks as a session of colod does.

    Raises:
        PeerError: If nobody does.
    """
    connection = ChunkedConnection(carrier)
    try:
        await connection.answer()
    except BaseException:
        await carrier.close()
        raise
    return connection


def _is_loopback(listen: str) -> bool:
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return False


def _unknown(name: str) -> str:
    if re.sub(r"[^a-z]", "", name.lower()) in ("stricthostkeychecking", "userknownhostsfile"):
        return f"transport.{name}: unknown; the host key is always checked, against known_hosts"
    return f"transport.{name}: unknown; what is ssh's own goes into ssh_config"
