"""What comes from the guest: on its interface in dom0 before the gate, and outside its host."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections import Counter
from typing import Self

from tests.xen.guest import ADDRESS, LINK_LOCAL, MAC
from tests.xen.host import Host
from tests.xen.net import NETWORKS, OUTSIDE, Namespace

PROTOCOLS = {0x0800: "ipv4", 0x0806: "arp", 0x86DD: "ipv6"}
_GUEST = bytes.fromhex(MAC.replace(":", ""))
_ECHO = struct.pack(">BBHHH", 128, 0, 0, 0x0C01, 1)
_PCAP_HEAD = 24
_PCAP_RECORD = struct.Struct("<IIII")


class Sniffer:
    """Counts by protocol the frames of the guest that leave its host."""

    def __init__(self, namespace: Namespace, host: Host) -> None:
        """Begin to look at the host's link to the guests' network."""
        self._socket = namespace.packets(f"{host.name}-guest", 0.1)
        self._counts: Counter[str] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def counts(self) -> Counter[str]:
        """Return how many frames of each protocol were seen until now."""
        return Counter(self._counts)

    def _look(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                _count(self._socket.recv(2048), self._counts)


class Provoker:
    """Makes the guest speak ARP, IPv6 and IPv4."""

    def __init__(self, namespace: Namespace) -> None:
        """Make the sockets; nothing is sent."""
        self._arp = namespace.packets("guest")
        self._icmpv6 = namespace.icmpv6()
        self._udp = namespace.udp()
        self._scope = namespace.index_of("guest")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sockets."""
        for each in (self._arp, self._icmpv6, self._udp):
            each.close()

    def provoke(self, for_s: float) -> None:
        """Ask by every protocol, some times in a second, for `for_s` seconds."""
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            self._arp.send(_arp_request(self._arp.getsockname()[4]))
            self._udp.sendto(b"get\n", (ADDRESS, 7000))
            with contextlib.suppress(OSError):  # while the neighbour is not known yet
                self._icmpv6.sendto(_ECHO, (LINK_LOCAL, 0, 0, self._scope))
            time.sleep(0.1)


class Capture:
    """Counts by protocol what the guest sends, on its interface, before the gate takes it."""

    _FILE = "/run/vif.pcap"

    def __init__(self, host: Host, interface: str) -> None:
        """Begin to capture in dom0."""
        self._host = host
        host.run(f"rm -f {self._FILE}")
        filters = f"ether src {MAC}"
        host.start(f"exec tcpdump -Z root -U -i {interface} -w {self._FILE} {filters}")
        host.run(f"until test -s {self._FILE}; do sleep 0.1; done")

    def counts(self) -> Counter[str]:
        """Return how many frames of each protocol were captured until now."""
        counts: Counter[str] = Counter()
        content, at = self._host.get(self._FILE), _PCAP_HEAD
        while at + _PCAP_RECORD.size <= len(content):
            size = _PCAP_RECORD.unpack_from(content, at)[2]
            at += _PCAP_RECORD.size
            _count(content[at : at + size], counts)
            at += size
        return counts


def _count(frame: bytes, counts: Counter[str]) -> None:
    if frame[6:12] == _GUEST:
        protocol = int.from_bytes(frame[12:14])
        counts[PROTOCOLS.get(protocol, f"{protocol:#06x}")] += 1


def _arp_request(own: bytes) -> bytes:
    """Return a request for the guest's address. Source: RFC 826."""
    asked = bytes(map(int, ADDRESS.split(".")))
    asker = bytes(map(int, f"{NETWORKS['guest']}.{OUTSIDE}".split(".")))
    head = b"\xff" * 6 + own + bytes.fromhex("0806 0001 0800 06 04 0001")
    return head + own + asker + b"\0" * 6 + asked
