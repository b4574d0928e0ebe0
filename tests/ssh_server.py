"""An sshd of a test's own, whose client has nothing but a configuration file."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.integration.simxen_hosts import until

SSHD = Path("/usr/sbin/sshd")
HOST = "beta"
"""What the client calls the server."""

LIMITED = 'restrict,port-forwarding,permitopen="127.0.0.1:*",permitopen="[::1]:*"'
"""What the documentation demands of a key."""

_SERVER = """
ListenAddress {address}:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
MaxStartups 100
LogLevel ERROR
"""

_CLIENT = """
Host {name}
    HostName {address}
    Port {port}
    User {user}
    HostKeyAlias {name}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile none
"""


class SshServer:
    """A running sshd that takes the key of its client, for what `LIMITED` lets it do.

    Attributes:
        config: The client's configuration, in which the server is `HOST`.
        port: Where it listens.
        process: The sshd, while it runs.
    """

    def __init__(
        self, folder: Path, address: str = "127.0.0.1", prefix: Sequence[str] = ()
    ) -> None:
        """Make the keys and the configurations of both sides in `folder`.

        Args:
            folder: Where they are kept.
            address: Where it listens.
            prefix: Words before its command line, for a network of its own.
        """
        self.folder, self.address = folder, address
        self._prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        for key in ("host", "user"):
            make_key(folder / key)
        self.authorize(LIMITED)
        host_key = (folder / "host.pub").read_text()
        (folder / "known_hosts").write_text(f"{HOST} {host_key}")
        (folder / "sshd_config").write_text(
            _SERVER.format(address=address, port=self.port, folder=folder)
        )
        self.config = self.client_config("ssh_config")

    def authorize(self, restrictions: str) -> None:
        """Let the client's key do so much from its next connection on."""
        key = (self.folder / "user.pub").read_text()
        (self.folder / "authorized_keys").write_text(f"{restrictions} {key}")

    def client_config(self, name: str, more: str = "", port: int | None = None) -> Path:
        """Write a configuration of the client's, with further lines; return its path."""
        text = _CLIENT.format(
            name=HOST,
            address=self.address,
            port=port or self.port,
            user=getpass.getuser(),
            folder=self.folder,
        )
        path = self.folder / name
        path.write_text(more + text)
        return path

    @contextlib.contextmanager
    def running(self) -> Iterator[SshServer]:
        """Serve as long as the context lasts."""
        with contextlib.suppress(PermissionError):  # only root's sshd needs it
            Path("/run/sshd").mkdir(exist_ok=True)
        argv = [*self._prefix, str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        self.process = process
        try:
            until(lambda: _listens(self.address, self.port), "sshd listens")
            yield self
        finally:
            process.terminate()
            process.wait()


def make_key(path: Path) -> None:
    """Make a key without a passphrase."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
