"""The client of the lab's guest: reads its counter over the guests' network."""

import time
from dataclasses import dataclass
from typing import Literal

from tests.xen.net import NETWORKS, Namespace
from tests.xen.process import CommandFailed

Kind = Literal["pv", "pvh", "hvm"]
NAME = "guest"
REPLICA = f"{NAME}--incoming"
CONFIG = "/etc/xen/guest.cfg"
CONFIGS: dict[Kind, str] = {
    "pv": CONFIG,
    "pvh": "/etc/xen/guest-pvh.cfg",
    "hvm": "/etc/xen/guest-hvm.cfg",
}
ADDRESS = f"{NETWORKS['guest']}.10"
MAC = "00:16:3e:77:00:10"
LINK_LOCAL = "fe80::216:3eff:fe77:10"
PORT = 7000
HELD_S = 20.0
"""A connection takes some epochs where output is held, and an epoch seconds on a busy lab."""


@dataclass(frozen=True)
class Reading:
    """One answer of the guest.

    Attributes:
        counter: Grows about every 10 ms of the guest's life.
        reply: Grows by one with every answer; the same number twice means lost state.
        boot_id: Differs after every boot of the guest's kernel.
    """

    counter: int
    reply: int
    boot_id: str


class GuestClient:
    """Talks to the guest from outside both hosts."""

    def __init__(self, namespace: Namespace, address: str = ADDRESS) -> None:
        self.namespace = namespace
        self.address = address

    def read(self, timeout_s: float = HELD_S) -> Reading:
        """Return one answer over TCP.

        Raises:
            OSError: When none came within `timeout_s` seconds.
        """
        with self.namespace.tcp(self.address, PORT, timeout_s) as connection:
            return parse_answer(connection.recv(256))

    def read_datagram(self, timeout_s: float = 5) -> Reading:
        """Return one answer over UDP; OSError when none came in time."""
        with self.namespace.udp(timeout_s) as channel:
            channel.sendto(b"get\n", (self.address, PORT))
            return parse_answer(channel.recv(256))

    def answer(self, timeout_s: float = HELD_S) -> Reading | None:
        """Return one answer, or None when the guest is mute for `timeout_s` seconds."""
        try:
            return self.read(timeout_s)
        except OSError:
            return None

    def wait_for_answer(self, limit_s: float = 120) -> Reading:
        """Ask until the guest answers; CommandFailed after `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if reading := self.answer():
                return reading
            time.sleep(0.1)
        raise CommandFailed(f"the guest was mute for {limit_s} s")

    def tell(self, line: str) -> None:
        """Send a command: `reboot`, `poweroff`, `crash` or `dirty KIB`."""
        with self.namespace.tcp(self.address, PORT) as connection:
            connection.recv(256)
            connection.sendall(line.encode() + b"\n")


def parse_answer(answer: bytes) -> Reading:
    """Return what one answer says; ConnectionError when it is no whole answer."""
    words = answer.decode().split()
    if len(words) != 6:
        raise ConnectionError(f"the guest said {answer!r}")
    return Reading(int(words[1]), int(words[3]), words[5])
