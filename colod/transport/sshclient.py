"""The operator's OpenSSH client as a child: how it is called, what its words mean, how it ends.

It needs OpenSSH 8.7 or newer. Spec: ssh(1), "-W"; ssh_config(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colod.errors import PeerError, PeerRefused, PeerUnreachable
from colod.transport.sockets import AsyncDescriptor

LINGER_S: Final = 3.0
"""Time in which an ssh may bring away what it has taken, once its connection was closed."""

_SAID_BYTES: Final = 2048
_REAP_S: Final = 2.0

# Whatever the operator's files say: ssh takes the first value that it is given, and these come
# first. Source: ssh_config(5), "the first obtained value will be used".
_FORCED: Final = {
    # Nobody is there to be asked, and nothing is asked.
    "BatchMode": "yes",
    # The host's key is known from a file, or there is no connection.
    "StrictHostKeyChecking": "yes",
    "NoHostAuthenticationForLocalhost": "no",
    "VerifyHostKeyDNS": "no",
    "KnownHostsCommand": "none",
    # A master of another process has checked what it liked.
    "ControlMaster": "no",
    "ControlPath": "none",
    # One forwarded connection, and nothing else there or here.
    "ExitOnForwardFailure": "yes",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "Tunnel": "no",
    "RequestTTY": "no",
    "SessionType": "none",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "ForkAfterAuthentication": "no",
    "StdinNull": "no",
    # A link that is dead is given up after 15 s; the session's own pings find it before.
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "TCPKeepAlive": "yes",
    "ConnectionAttempts": "1",
    "LogLevel": "INFO",
}

_MEANINGS: Final[Sequence[tuple[str, type[PeerError], str]]] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        PeerRefused,
        "its host key is not the known one: either another machine answers, or the key was "
        "replaced. Compare `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on its console, then "
        "put the new key into known_hosts here",
    ),
    (
        "Host key verification failed",
        PeerRefused,
        "its host key is not known here: as the user that colod runs as, run `ssh {host} true` "
        "once, and compare the fingerprint with that on its console",
    ),
    (
        "Permission denied (",
        PeerRefused,
        "it does not take this host's key: put the public key into authorized_keys there, with "
        'restrict,port-forwarding,permitopen="127.0.0.1:*"; it must need no passphrase',
    ),
    (
        "administratively prohibited",
        PeerRefused,
        "its sshd forwards nothing for this key: have AllowTcpForwarding local (or yes), and "
        'port-forwarding,permitopen="127.0.0.1:*" before the key in authorized_keys',
    ),
    (
        "open failed: connect failed",
        PeerUnreachable,
        "ssh got in, but no session listens there (any more)",
    ),
    (
        "Could not resolve hostname",
        PeerUnreachable,
        "have transport.host, or HostName in ssh's configuration, name the other host",
    ),
    (
        "Bad configuration option",
        PeerUnreachable,
        "mend ssh's configuration; OpenSSH 8.7 or newer is needed",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Whom to call.

    Attributes:
        host: As ssh takes it; never empty, and never an option.
        config: Configuration to use instead of the user's and the system's.
        dscp: How ssh marks its packets, 0 to 63; None leaves that to its configuration.
    """

    host: str
    config: Path | None = None
    dscp: int | None = None


def command(destination: Destination, port: int, listen: str, timeout_s: float) -> list[str]:
    """Return the command line that connects its input and output to a port over there.

    Args:
        destination: Whom to call.
        port: Where a session listens there, 1 to 65535.
        listen: The loopback address that it listens on.
        timeout_s: For the way to its sshd.
    """
    forced = _FORCED | {"ConnectTimeout": str(max(1, math.ceil(timeout_s)))}
    if destination.dscp is not None:
        # A number is taken for the whole octet. Source: OpenSSH misc.c, parse_ipqos().
        forced["IPQoS"] = str(destination.dscp << 2)
    options = [word for name, value in forced.items() for word in ("-o", f"{name}={value}")]
    config = ["-F", str(destination.config)] if destination.config else []
    where = f"[{listen}]:{port}" if ":" in listen else f"{listen}:{port}"
    return ["ssh", *options, *config, "-W", where, "--", destination.host]


def explain(host: str, said: str) -> PeerError:
    """Return what ssh's last words mean, and what to do about it."""
    said = " ".join(said.split())
    for words, kind, advice in _MEANINGS:
        if words in said:
            return kind(f"ssh {host}: {advice.format(host=host)} (ssh says: {said[-300:]})")
    return PeerUnreachable(f"ssh {host}: {said[-300:] or 'it ended without a word'}")


class SshClient:
    """A running ssh; whoever starts it ends it by `let_go`, which waits for nobody."""

    def __init__(self, process: subprocess.Popen[bytes], words: int) -> None:
        """Watch `process`, whose standard error goes to the file `words`."""
        self._process = process
        self._words = words
        self._pidfd = os.pidfd_open(process.pid)
        self._descriptor = AsyncDescriptor(self._pidfd)
        self._reaping: asyncio.Task[None] | None = None
        self._last_words = ""

    @property
    def said(self) -> str:
        """The end of what it wrote on standard error."""
        if self._words < 0:
            return self._last_words
        size = os.fstat(self._words).st_size
        last = os.pread(self._words, _SAID_BYTES, max(0, size - _SAID_BYTES)).decode(
            errors="replace"
        )
        return "".join(each if each.isprintable() else " " for each in last).strip()

    async def ended(self, timeout_s: float) -> bool:
        """Wait for its end for `timeout_s` seconds; return whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._process.poll() is None:
                    await self._descriptor.readable()
                return True
        return False

    def let_go(self, linger_s: float = LINGER_S) -> None:
        """Kill it after `linger_s` seconds if it has not ended by then; reap it. Once is enough.

        A session that ends before leaves it to itself: its input has ended, and it goes when the
        receiver's end does, or when its host is silent for 15 s.
        """
        if self._reaping is None:
            self._reaping = asyncio.create_task(self._reap(linger_s))

    async def _reap(self, linger_s: float) -> None:
        try:
            if not (linger_s and await self.ended(linger_s)):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                await self.ended(_REAP_S)
        finally:
            self._last_words = self.said
            self._descriptor.let_go()
            os.close(self._pidfd)
            os.close(self._words)
            self._words = -1


async def start(argv: Sequence[str]) -> tuple[SshClient, socket.socket]:
    """Start an ssh; return it, and the socket that is its input and output.

    Raises:
        PeerUnreachable: If it cannot be started.
    """
    # Starting may block; and a thread cannot be cancelled, so what it starts after all is ended.
    starting = asyncio.ensure_future(asyncio.to_thread(_start, argv))
    try:
        process, words, ours = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_undo)
        raise
    except OSError as error:
        message = f"cannot run ssh: {error.strerror}; install it (Debian: openssh-client)"
        raise PeerUnreachable(message) from error
    try:
        return SshClient(process, words), ours
    except OSError as error:
        ours.close()
        os.close(words)
        process.kill()
        await asyncio.to_thread(process.wait)
        raise PeerUnreachable(f"cannot watch ssh: {error.strerror}") from error


def _start(argv: Sequence[str]) -> tuple[subprocess.Popen[bytes], int, socket.socket]:
    ours, theirs = socket.socketpair()
    # Neither a pipe nor a file on disk: the one could block ssh, the other be full.
    words = os.memfd_create("ssh-said")
    try:
        process = subprocess.Popen(
            argv,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=words,
            env=os.environ | {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"},
            start_new_session=True,  # no terminal to ask on, and no signal from one
        )
    except BaseException:
        ours.close()
        os.close(words)
        raise
    finally:
        theirs.close()
    return process, words, ours


def _undo(starting: asyncio.Future[tuple[subprocess.Popen[bytes], int, socket.socket]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        process, words, ours = starting.result()
        ours.close()
        SshClient(process, words).let_go(0)
