"""Redirect, ifb and plug in a network namespace, as far as this kernel has the parts.

Where it has no `plug` qdisc or no `matchall` filter, stand-ins (`tbf` that is out of tokens, `u32`
that matches everything) take their place behind the same code. What then is *not* shown here is
what sch_plug does with barriers and releases: tests/xen/gate_check.py shows that on kernels that
have it, and runs here too where this is one.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from colod.errors import NetworkError
from colod.output.announce import announce
from colod.output.frames import Guest, announcement, parse_mac
from colod.output.naming import ifb_of
from colod.output.plug import IFB_QUEUE_PACKETS, Kernel, Netlink, PlugAction
from colod.output.plugs import KernelPlugs, found_in_kernel
from tests.xen import gate_check
from tests.xen.gate_check import PROTOCOLS, VIF, Bed, enter_own_network, ip

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

LIMIT_BYTES = 1 << 20
_INGRESS = 0xFFFF0000
_ETH_P_ALL = 3
# At the stand-in's rate of one byte a second, a long frame passes at once and the next in 800 s.
_BURST_BYTES = 2000
_LONG_BYTES = 1400

_made: list[KernelPlugs] = []


class StandIn(Netlink):
    """`u32` for `matchall`, and `tbf` for `plug`: next to nothing passes when closed."""

    filter_kind = "u32"
    queue_kind = "tbf"
    actions = "TCA_U32_ACT"

    def add_qdisc(self, index: int, limit_bytes: int) -> None:
        _limit("add", socket.if_indextoname(index), "8bit")

    def add_filter(self, index: int, action: Mapping[str, Any]) -> None:
        self._route.tc(
            "add-filter",
            "u32",
            index,
            parent=_INGRESS,
            prio=1,
            protocol=_ETH_P_ALL,
            target=0x10000,
            keys=["0x0/0x0+0"],
            action=dict(action),
        )

    def filters(self, index: int) -> list[Any]:
        found = super().filters(index)
        return [f for f in found if f.get("TCA_OPTIONS").get("TCA_U32_DIVISOR") is None]

    def change(self, interface: str, action: PlugAction) -> None:
        if action is PlugAction.RELEASE_INDEFINITE:
            _limit("change", ifb_of(interface), "100mbit")
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((ifb_of(interface), 0))
                raw.send(bytes(60))  # tbf looks at its new rate when the next packet comes


def _limit(command: str, device: str, rate: str) -> None:
    """Use `tc`, for pyroute2 cannot express so long a burst."""
    argv = ["tc", "qdisc", command, "dev", device, "root", "tbf", "rate", rate]
    argv += ["burst", str(_BURST_BYTES), "limit", str(LIMIT_BYTES)]
    subprocess.run(argv, check=True)


def in_own_network(test: Callable[[Bed], None]) -> None:
    """Run `test` in a thread with a network namespace that ends with it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            enter_own_network()
            bed = Bed()
            try:
                test(bed)
            finally:
                bed.close()
                while _made:
                    _made.pop().disconnect()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def make_plugs(*interfaces: str, kernel: Callable[[], Kernel] = StandIn) -> KernelPlugs:
    """Return plugs that let go of the kernel at the end of the test, as a dead process does."""
    plugs = KernelPlugs(interfaces or [VIF], LIMIT_BYTES, "guest=web pairing=0123", kernel)
    _made.append(plugs)
    return plugs


def held_packets(bed: Bed) -> list[int]:
    """Send until a packet is held, and all that come after it; return what is held."""
    while True:
        (number,) = bed.send(1, size=_LONG_BYTES)
        if not bed.passes(number):
            return [number, *bed.send(2)]


def test_output_flows_until_the_redirect_and_all_of_it_is_held_after() -> None:
    def test(bed: Bed) -> None:
        plugs = make_plugs()
        plugs.prepare()
        sent = bed.send(3)
        assert bed.receive(3) == sent
        plugs.close()
        held = held_packets(bed)
        for protocol in PROTOCOLS:
            held += bed.send(1, protocol)
        assert bed.is_silent(), "ARP, IPv6, VLAN-tagged and unknown frames are held like IPv4"
        assert plugs.survey().packets == len(held)
        assert bed.reaches_guest()
        plugs.open()
        assert bed.receive(len(held)) == held, "nothing is lost or reordered"
        sent = bed.send(3)
        assert bed.receive(3) == sent

    in_own_network(test)


def test_the_ifb_is_like_its_interface_and_tells_what_it_is_for() -> None:
    def test(bed: Bed) -> None:
        del bed
        ip("link", "set", VIF, "mtu", "9000")
        plugs = make_plugs()
        plugs.prepare()
        (link,) = json.loads(ip("-j", "link", "show", ifb_of(VIF)))
        assert link["mtu"] == 9000
        assert link["txqlen"] == IFB_QUEUE_PACKETS
        assert link["ifalias"] == f"colod vif={VIF} guest=web pairing=0123"
        assert "UP" in link["flags"]
        assert not json.loads(ip("-j", "addr", "show", ifb_of(VIF)))[0]["addr_info"]
        (found,) = found_in_kernel(StandIn)
        assert (found.interface, found.label) == (VIF, "guest=web pairing=0123")
        assert not found.is_held
        plugs.close()
        assert found_in_kernel(StandIn)[0].is_held
        plugs.open()
        assert found_in_kernel(StandIn) == ()

    in_own_network(test)


def test_what_a_dead_process_left_stays_closed_until_it_is_opened() -> None:
    def test(bed: Bed) -> None:
        left = make_plugs()
        left.prepare()
        left.close()
        held = held_packets(bed)
        assert found_in_kernel(StandIn)[0].is_held
        make_plugs().open()
        assert bed.receive(len(held)) == held
        left.open()

    in_own_network(test)


def test_a_discarded_gate_drops_what_it_held_and_stays_mute() -> None:
    def test(bed: Bed) -> None:
        plugs = make_plugs()
        plugs.prepare()
        plugs.close()
        held_packets(bed)
        plugs.discard()
        bed.send(2)
        assert bed.is_silent()
        make_plugs().open()
        sent = bed.send(2)
        assert bed.receive(2) == sent

    in_own_network(test)


def test_devices_and_qdiscs_of_others_are_refused_and_kept() -> None:
    def test(bed: Bed) -> None:
        ip("link", "add", ifb_of(VIF), "type", "bridge")
        with pytest.raises(NetworkError, match="there already"):
            make_plugs().prepare()
        assert ifb_of(VIF) in ip("link", "show", "type", "bridge")
        ip("link", "del", ifb_of(VIF))
        subprocess.run(["tc", "qdisc", "add", "dev", VIF, "ingress"], check=True)
        with pytest.raises(NetworkError, match="there already"):
            make_plugs().prepare()
        assert "ingress" in qdiscs()
        assert ifb_of(VIF) not in ip("link", "show")
        sent = bed.send(2)
        assert bed.receive(2) == sent

    in_own_network(test)


def test_a_second_interface_of_the_guest_is_seen_and_covered() -> None:
    def test(bed: Bed) -> None:
        del bed
        plugs = make_plugs()
        plugs.prepare()
        plugs.close()
        assert plugs.survey().added == frozenset()
        ip("link", "add", "vif9.1", "type", "veth", "peer", "name", "g1")
        ip("link", "add", "vif9.0-emu", "type", "veth", "peer", "name", "g2")
        ip("link", "add", "vif8.0", "type", "veth", "peer", "name", "g3")
        assert plugs.survey().appeared == {"vif9.1", "vif9.0-emu"}
        for name in ("vif9.1", "vif9.0-emu"):
            plugs.cover(name)
        assert plugs.survey().appeared == frozenset()
        assert plugs.survey().added == {"vif9.1"}, "an emulated twin is no interface of its own"
        ip("link", "del", "vif9.1")
        assert plugs.survey().vanished == {"vif9.1"}
        plugs.set_barrier()
        plugs.open()
        assert found_in_kernel(StandIn) == ()

    in_own_network(test)


def test_an_interface_that_is_not_there_leaves_nothing_behind() -> None:
    def test(bed: Bed) -> None:
        del bed
        plugs = make_plugs(VIF, "vif9.7")
        with pytest.raises(NetworkError, match=r"vif9\.7"):
            plugs.prepare()
        assert "colod" not in ip("link", "show")
        assert "ingress" not in qdiscs()

    in_own_network(test)


def test_a_kernel_without_plug_is_told_which_module_it_lacks() -> None:
    if has_plug():
        pytest.skip("this kernel has sch_plug")

    def test(bed: Bed) -> None:
        del bed
        with pytest.raises(NetworkError, match="sch_plug") as caught:
            make_plugs(kernel=Netlink).prepare()
        assert "modprobe" in caught.value.advice
        assert "colod" not in ip("link", "show")
        assert "ingress" not in qdiscs()

    in_own_network(test)


def test_the_real_plug_counts_as_the_gate_expects() -> None:
    if not has_plug():
        pytest.skip(
            "NOT TESTED: this kernel has no sch_plug; run tests/xen/gate_check.py in a dom0"
        )
    script = str(Path(gate_check.__file__))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_announcements_leave_by_the_bridge() -> None:
    guest = Guest(parse_mac("00:16:3e:01:02:03"))

    def test(bed: Bed) -> None:
        assert asyncio.run(announce("br0", [guest], rounds=2)) == 2
        frames = bed.receive_frames(2)
        assert frames == [announcement(guest)[0]] * 2

    in_own_network(test)


def test_an_announcement_on_a_device_that_is_not_there_is_an_error() -> None:
    def test(bed: Bed) -> None:
        del bed
        with pytest.raises(NetworkError, match="br7"):
            asyncio.run(announce("br7", [Guest(parse_mac("00:16:3e:01:02:03"))]))

    in_own_network(test)


def qdiscs() -> str:
    return subprocess.run(["tc", "qdisc"], capture_output=True, text=True, check=True).stdout


def has_plug() -> bool:
    """Whether a plug can be put on a device of this kernel."""
    found: list[bool] = []

    def test(bed: Bed) -> None:
        del bed
        try:
            plugs = make_plugs(kernel=Netlink)
            plugs.prepare()
        except NetworkError:
            found.append(False)
        else:
            plugs.open()
            found.append(True)

    in_own_network(test)
    return found[0]
