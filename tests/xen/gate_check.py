"""What the real `plug` qdisc does behind colod's own calls; for a dom0, or any host that has it.

    python3 gate_check.py        # root; prints JSON, exits with 1 if anything is not as it must be

It needs colod and the `ip` command, and works in a network namespace of its own that ends with it:

    g0 (the guest) == vif9.0 --[ingress: redirect]--> ifb with plug --> br0 == out0 == o0 (outside)
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colod.errors import NetworkError
from colod.output.naming import ifb_of
from colod.output.plugs import KernelPlugs, found_in_kernel

VIF = "vif9.0"
LIMIT_BYTES = 1 << 16
SILENCE_S = 0.5
PATIENCE_S = 30.0
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
_MARK = b"colod-gate-check"
_HEAD = bytes.fromhex("ffffffffffff 00163e010203")
PROTOCOLS = {
    "ipv4": bytes.fromhex("0800"),
    "ipv6": bytes.fromhex("86dd"),
    "arp": bytes.fromhex("0806"),
    "vlan": bytes.fromhex("8100 0005 0800"),
    "unknown": bytes.fromhex("88b5"),
}


def enter_own_network() -> None:
    """Move this thread into a new network namespace.

    Raises:
        OSError: If that is not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def ip(*arguments: str) -> str:
    """Run `ip` and return what it prints."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


class Bed:
    """A guest's interface on a bridge, and the network outside; of this thread's namespace."""

    def __init__(self) -> None:
        """Build it in the thread's namespace, which must be its own."""
        for name in ("iptables", "ip6tables", "arptables"):
            _disable(Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}"))
        ip("link", "add", VIF, "type", "veth", "peer", "name", "g0")
        ip("link", "add", "out0", "type", "veth", "peer", "name", "o0")
        ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        for name in (VIF, "out0"):
            ip("link", "set", name, "master", "br0")
        for name in (VIF, "g0", "out0", "o0", "br0"):
            ip("link", "set", name, "addrgenmode", "none")
            ip("link", "set", name, "up")
        self.guest = _packet_socket("g0")
        self.outside = _packet_socket("o0")
        self._numbers = 0
        self._wait_for_bridge()

    def close(self) -> None:
        """Close the sockets; the namespace goes with its thread."""
        self.guest.close()
        self.outside.close()

    def send(self, count: int = 1, protocol: str = "ipv4", size: int = 60) -> list[int]:
        """Send from the guest; return the numbers of the packets."""
        numbers = []
        for _ in range(count):
            self._numbers += 1
            body = PROTOCOLS[protocol] + _MARK + struct.pack(">I", self._numbers)
            self.guest.send((_HEAD + body).ljust(size, b"\0"))
            numbers.append(self._numbers)
        return numbers

    def receive(self, count: int) -> list[int]:
        """Return the numbers of the next `count` packets outside, fewer after a long wait."""
        return self._listen(self.outside, count, PATIENCE_S)

    def passes(self, number: int) -> bool:
        """Whether that packet, the newest one sent, arrives outside within a while."""
        return self._listen(self.outside, 1, SILENCE_S) == [number]

    def receive_frames(self, count: int) -> list[bytes]:
        """Return the next `count` frames outside, whatever they are; fewer after a long wait."""
        found: list[bytes] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < count and (rest := deadline - time.monotonic()) > 0:
            if select.select([self.outside], [], [], rest)[0]:
                found.append(self.outside.recv(2048))
        return found

    def is_silent(self) -> bool:
        """Whether nothing arrives outside for a while."""
        return not self._listen(self.outside, 1, SILENCE_S)

    def reaches_guest(self) -> bool:
        """Whether a packet from outside arrives at the guest."""
        self._numbers += 1
        body = PROTOCOLS["unknown"] + _MARK + struct.pack(">I", self._numbers)
        self.outside.send((_HEAD[:6] + bytes.fromhex("00163e0a0b0c") + body).ljust(60, b"\0"))
        return self._listen(self.guest, 1, PATIENCE_S) == [self._numbers]

    def _listen(self, raw: socket.socket, count: int, patience_s: float) -> list[int]:
        found: list[int] = []
        deadline = time.monotonic() + patience_s
        while len(found) < count and (rest := deadline - time.monotonic()) > 0:
            if select.select([raw], [], [], rest)[0]:
                frame, (_, _, kind, *_) = raw.recvfrom(2048)
                at = frame.find(_MARK)
                if at >= 0 and kind != socket.PACKET_OUTGOING:
                    found.append(struct.unpack_from(">I", frame, at + len(_MARK))[0])
        return found

    def _wait_for_bridge(self) -> None:
        """Send until the bridge forwards, then forget what came."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.send()
            if self._listen(self.outside, 1, 0.2):
                break
        while self._listen(self.outside, 1, 0.2):
            pass


def _disable(setting: Path) -> None:
    """Keep br_netfilter, where there is one, from dropping packets that are not quite IP."""
    if setting.exists():
        setting.write_text("0")


def _packet_socket(device: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    raw.bind((device, _ETH_P_ALL))
    return raw


@dataclass
class Report:
    """What was found.

    Attributes:
        checks: What must be true, and whether it is.
        facts: What is worth knowing, and how it is here.
    """

    checks: dict[str, bool] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, is_so: bool) -> None:
        """Note whether something is as it must be."""
        self.checks[what] = is_so

    def time(self, what: str, calls: Callable[[], object], count: int = 20) -> None:
        """Note the median and the maximum of how long a call takes, in ms."""
        took = []
        for _ in range(count):
            begin = time.perf_counter()
            calls()
            took.append((time.perf_counter() - begin) * 1000)
        self.facts[f"{what} ms"] = [round(statistics.median(took), 3), round(max(took), 3)]


def make_plugs() -> KernelPlugs:
    """Return plugs for the bed's one interface; nothing is touched yet."""
    return KernelPlugs([VIF], LIMIT_BYTES, "guest=check pairing=0")


def check_counts(bed: Bed, report: Report) -> None:
    """Releases let out what stood before their barrier, of every protocol, in order."""
    plugs = make_plugs()
    plugs.prepare()
    first = bed.send(2)
    report.check("output flows until the gate is closed", bed.receive(2) == first)
    plugs.close()
    epoch = [number for protocol in PROTOCOLS for number in bed.send(1, protocol)]
    report.check("a fresh plug holds every protocol", bed.is_silent())
    report.check("held packets are counted", plugs.survey().packets == len(epoch))
    report.check("input still reaches the guest", bed.reaches_guest())
    plugs.set_barrier()
    later = bed.send(2)
    plugs.release_one()
    report.check("a release lets out one epoch in order", bed.receive(len(epoch)) == epoch)
    report.check("and nothing of the next", bed.is_silent())
    plugs.release_one()
    report.check("a release without a barrier lets out nothing", bed.is_silent())
    plugs.set_barrier()
    plugs.release_one()
    report.check("the next epoch follows", bed.receive(2) == later)
    plugs.set_barrier()
    plugs.release_one()
    report.check("an empty epoch lets out nothing", bed.is_silent())
    rest = bed.send(3)
    plugs.open()
    report.check("opening lets out the rest", bed.receive(3) == rest)
    after = bed.send(1)
    report.check("output flows again", bed.receive(1) == after)
    report.check("opening leaves no device", ifb_of(VIF) not in ip("link", "show"))
    report.check("opening leaves no qdisc", "ingress" not in _qdiscs())


def check_trap(bed: Bed, report: Report) -> None:
    """Two barriers without a release between them leak: the rule against it is needed."""
    plugs = make_plugs()
    plugs.prepare()
    plugs.close()
    bed.send(1)
    plugs.set_barrier()
    bed.send(2)
    plugs.set_barrier()
    plugs.release_one()
    report.facts["two barriers, one packet before, two between: released"] = len(bed.receive(2))
    report.check("and no more than the second count", bed.is_silent())
    plugs.open()
    bed.receive(1)


def check_overflow(bed: Bed, report: Report) -> None:
    """A full plug drops, says so, and counts right nevertheless."""
    plugs = make_plugs()
    plugs.prepare()
    plugs.close()
    sent = bed.send(100, size=1000)
    survey = plugs.survey()
    report.facts["limit, held, dropped"] = [LIMIT_BYTES, survey.octets, survey.dropped]
    report.check("what does not fit is dropped and counted", survey.dropped > 0)
    report.check("nothing else is dropped", survey.packets + survey.dropped == len(sent))
    plugs.set_barrier()
    plugs.release_one()
    report.check("what fitted leaves", bed.receive(survey.packets) == sent[: survey.packets])
    held = bed.send(1)
    report.check("drops shift no release", bed.is_silent())
    plugs.open()
    report.check("nothing is lost by opening", bed.receive(1) == held)


def check_left_over(bed: Bed, report: Report) -> None:
    """What a process left closed is found, stays closed, and can be opened or discarded."""
    left = make_plugs()
    left.prepare()
    left.close()
    left.set_barrier()
    held = bed.send(2)
    found = found_in_kernel()
    report.check("a gate that was left is found", [each.interface for each in found] == [VIF])
    report.check("and it is closed", found[0].is_held and bed.is_silent())
    make_plugs().open()
    report.check("another process opens it", bed.receive(2) == held)
    mute = make_plugs()
    mute.prepare()
    mute.close()
    bed.send(2)
    mute.discard()
    bed.send(1)
    report.check("a discarded gate lets nothing out", bed.is_silent())
    make_plugs().open()
    sent = bed.send(1)
    report.check("a discarded gate can be opened", bed.receive(1) == sent)


def check_conflicts(report: Report) -> None:
    """Devices and qdiscs of others are neither taken nor removed."""
    ip("link", "add", ifb_of(VIF), "type", "bridge")
    report.check("a name that is taken is refused", not _can_prepare())
    report.check("and left alone", ifb_of(VIF) in ip("link", "show", "type", "bridge"))
    ip("link", "del", ifb_of(VIF))
    subprocess.run(["tc", "qdisc", "add", "dev", VIF, "ingress"], check=True)
    report.check("a foreign ingress qdisc is refused", not _can_prepare())
    report.check("and kept, with no device left", _is_only_ingress())
    foreign = f"tc filter add dev {VIF} ingress matchall action mirred egress redirect dev out0"
    subprocess.run(foreign.split(), check=True)
    make_plugs().open()
    report.check("and a foreign redirect is no gate of ours", _is_only_ingress())
    subprocess.run(["tc", "qdisc", "del", "dev", VIF, "ingress"], check=True)


def check_reset(bed: Bed, report: Report) -> None:
    """What taking the ifb down does to counts: worth knowing, nobody should do it."""
    plugs = make_plugs()
    plugs.prepare()
    plugs.close()
    bed.send(2)
    plugs.set_barrier()
    ip("link", "set", ifb_of(VIF), "down")
    ip("link", "set", ifb_of(VIF), "up")
    bed.send(2)
    plugs.release_one()
    leaked = 0
    while not bed.is_silent():
        leaked += 1
    report.facts["ifb down and up with 2 before the barrier and 2 after: seen outside"] = leaked
    bed.send(2)
    plugs.survey()
    ip("link", "set", ifb_of(VIF), "down")
    ip("link", "set", ifb_of(VIF), "up")
    plugs.survey()
    report.check("a plug that was emptied from outside is not released", not _can_release(plugs))
    plugs.open()
    while not bed.is_silent():
        pass


def check_times(report: Report) -> None:
    """How long the calls take that a guest or its packets wait for."""
    plugs = make_plugs()
    plugs.prepare()
    plugs.close()
    report.time("barrier", plugs.set_barrier)
    report.time("release", plugs.release_one)
    report.time("survey", plugs.survey)
    plugs.open()
    report.time("prepare", plugs.prepare, 5)
    plugs.open()


def _can_release(plugs: KernelPlugs) -> bool:
    try:
        plugs.release_one()
    except NetworkError:
        return False
    return True


def _can_prepare() -> bool:
    try:
        make_plugs().prepare()
    except NetworkError:
        return False
    return True


def _qdiscs() -> str:
    return subprocess.run(["tc", "qdisc"], capture_output=True, text=True, check=True).stdout


def _is_only_ingress() -> bool:
    return "ingress" in _qdiscs() and ifb_of(VIF) not in ip("link", "show")


def main() -> int:
    """Run all checks and print the report as JSON."""
    enter_own_network()
    report = Report()
    bed = Bed()
    try:
        check_counts(bed, report)
        check_trap(bed, report)
        check_overflow(bed, report)
        check_left_over(bed, report)
        check_conflicts(report)
        check_reset(bed, report)
        check_times(report)
    except (NetworkError, OSError, subprocess.CalledProcessError) as error:
        report.check(f"the checks came to their end: {error!r}", False)
    finally:
        bed.close()
    is_good = all(report.checks.values())
    result = {"good": is_good, "checks": report.checks, "facts": report.facts}
    json.dump(result, sys.stdout, indent=1)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
