"""The lab's network namespace: two bridges, taps of the hosts, and clients inside it.

mgmt   10.77.0.0/24   control and replication; the witness is at .254
guest  10.78.0.0/24   the guests' network; clients are at .254
"""

import ctypes
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from tests.xen.process import CACHE, run

Network = Literal["mgmt", "guest"]
NETWORKS: dict[Network, str] = {"mgmt": "10.77.0", "guest": "10.78.0"}
OUTSIDE = 254
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3


def lab_name() -> str:
    """Return a name for this working copy's lab: namespace and runtime folder."""
    return "colod-lab-" + hashlib.sha256(str(CACHE).encode()).hexdigest()[:6]


class Namespace:
    """A network namespace of the lab's own."""

    def __init__(self) -> None:
        self.name = lab_name()

    @property
    def prefix(self) -> list[str]:
        """Return the words that run a program inside; they exec it, so its PID is theirs."""
        return ["ip", "netns", "exec", self.name]

    def create(self) -> None:
        """Make the namespace with its two bridges, replacing what an earlier lab left."""
        self.destroy()
        run(["ip", "netns", "add", self.name])
        self._ip("link", "set", "lo", "up")
        for network, prefix in NETWORKS.items():
            self._ip("link", "add", network, "type", "bridge")
            self._ip("address", "add", f"{prefix}.{OUTSIDE}/24", "dev", network)
            self._ip("link", "set", network, "up")

    def destroy(self) -> None:
        """Remove the namespace; processes inside must have ended."""
        run(["ip", "netns", "delete", self.name], check=False)

    def exists(self) -> bool:
        """Return whether the namespace is there."""
        return Path("/run/netns", self.name).exists()

    def add_tap(self, host: str, network: Network) -> str:
        """Make (or find) the tap that joins a host to a network; return its name."""
        tap = f"{host}-{network}"
        if not self._ip("link", "show", tap, check=False):
            self._ip("tuntap", "add", tap, "mode", "tap")
            self._ip("link", "set", tap, "master", network)
        self.set_link(host, network, is_up=True)
        return tap

    def set_link(self, host: str, network: Network, *, is_up: bool) -> None:
        """Cut a host off from a network, or join it again."""
        self._ip("link", "set", f"{host}-{network}", "up" if is_up else "down")

    def set_apart(self, hosts: Sequence[str], network: Network, *, is_apart: bool) -> None:
        """Cut hosts off from each other on a network, but not from what is outside both."""
        for host in hosts:
            port = ("link", "set", "dev", f"{host}-{network}", "type", "bridge_slave")
            self._ip(*port, "isolated", "on" if is_apart else "off")

    def tcp(self, address: str, port: int, timeout_s: float = 5) -> socket.socket:
        """Connect over TCP from inside the namespace; OSError when that fails."""

        def connect() -> socket.socket:
            return socket.create_connection((address, port), timeout_s)

        return self._inside(connect)

    def udp(self, timeout_s: float = 5) -> socket.socket:
        """Return a UDP socket that lives in the namespace."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.settimeout(timeout_s)
            return made

        return self._inside(make)

    def packets(self, interface: str, timeout_s: float = 5) -> socket.socket:
        """Return a socket for whole Ethernet frames on an interface of the namespace."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(_ETH_P_ALL))
            made.bind((interface, 0))
            made.settimeout(timeout_s)
            return made

        return self._inside(make)

    def icmpv6(self) -> socket.socket:
        """Return a raw ICMPv6 socket that lives in the namespace."""
        return self._inside(
            lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        )

    def index_of(self, interface: str) -> int:
        """Return the index of an interface of the namespace."""
        words = ["ip", "-n", self.name, "-o", "link", "show", interface]
        return int(run(words).stdout.split(":")[0])

    def _inside(self, make: Callable[[], socket.socket]) -> socket.socket:
        """Call `make` on a thread that entered the namespace: a socket stays where it was made."""
        outcome: list[socket.socket | OSError] = []

        def body() -> None:
            try:
                _enter(self.name)
                outcome.append(make())
            except OSError as error:
                outcome.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if isinstance(outcome[0], OSError):
            raise outcome[0]
        return outcome[0]

    def _ip(self, *words: str, check: bool = True) -> bool:
        return run(["ip", "-n", self.name, *words], check=check).status == 0


def _enter(namespace: str) -> None:
    """Move the calling thread into a named network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open() as handle:
        if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
