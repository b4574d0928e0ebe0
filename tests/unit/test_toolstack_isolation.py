"""What a drill's copy has in common with the guest that runs: nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colod.toolstack import isolation
from colod.toolstack.port import Vif

CONFIG: dict[str, Any] = {
    "c_info": {"type": "pv", "name": "web", "uuid": "11111111-2222-3333-4444-555555555555"},
    "b_info": {"max_memkb": 1 << 20, "max_vcpus": 2},
    "nics": [
        {
            "devid": 0,
            "mac": "00:16:3e:00:00:01",
            "bridge": "br0",
            "script": "/etc/xen/scripts/vif-route",
            "ifname": "web0",
            "gatewaydev": "eth0",
        }
    ],
    "disks": [
        {"pdev_path": "/dev/vg/web", "vdev": "xvda", "format": "raw", "script": "block-iscsi"},
        {"vdev": "hdc", "is_cdrom": 1},
    ],
    "on_reboot": "restart",
    "pcidevs": [],
}
DISKLESS = {key: value for key, value in CONFIG.items() if key != "disks"}
HVM = {**DISKLESS, "c_info": {**CONFIG["c_info"], "type": "hvm"}}
COPY = {"xvda": "/dev/vg/web-copy"}


def refused(config: dict[str, Any], bridge: str = "", **targets: str) -> str:
    return " ".join(isolation.refusals(config, bridge=bridge, targets=targets))


def cut_off(config: dict[str, Any], bridge: str = "", **targets: str) -> dict[str, Any]:
    assert not refused(config, bridge, **targets)
    return isolation.cut_off(config, name="web--drill", uuid="u", bridge=bridge, targets=targets)


def test_a_copy_has_another_name_and_no_network_unless_a_bridge_is_named() -> None:
    copy = cut_off(DISKLESS)
    assert copy["c_info"] == {"type": "pv", "name": "web--drill", "uuid": "u"}
    assert "nics" not in copy
    assert "11111111" not in json.dumps(copy)


def test_on_a_bridge_nothing_of_the_original_backend_is_left() -> None:
    assert cut_off(DISKLESS, "drill0")["nics"] == [
        {"devid": 0, "mac": "00:16:3e:00:00:01", "bridge": "drill0"}
    ]


@pytest.mark.parametrize("end", ["poweroff", "reboot", "watchdog", "crash", "soft_reset"])
def test_a_copy_never_comes_up_again_by_itself(end: str) -> None:
    assert cut_off(DISKLESS)[f"on_{end}"] == "destroy"


def test_the_guests_own_bridge_is_refused_also_where_it_is_the_default() -> None:
    assert "own bridge" in refused(DISKLESS, "br0")
    nameless = {**DISKLESS, "nics": [{"devid": 0}]}
    assert "own bridge" in refused(nameless, isolation.DEFAULT_BRIDGE)
    assert not refused(nameless, "drill0")


def test_a_disk_is_never_the_guests_own() -> None:
    assert "--disk-override" in refused(CONFIG)
    assert "own disk" in refused(CONFIG, xvda="/dev/vg/web")
    assert "own disk" in refused(CONFIG, xvda="/dev/vg/../vg/web")
    assert "no disk xvdb" in refused(CONFIG, **COPY, xvdb="/x")
    assert "no absolute path" in refused(CONFIG, xvda="web-copy")
    assert cut_off(CONFIG, **COPY)["disks"] == [
        {"vdev": "xvda", "format": "raw", "pdev_path": "/dev/vg/web-copy"},
        {"vdev": "hdc", "is_cdrom": 1},
    ]


def test_a_link_to_the_guests_own_disk_is_that_disk(tmp_path: Path) -> None:
    disk, link, hard = tmp_path / "disk", tmp_path / "link", tmp_path / "hard"
    disk.touch()
    link.symlink_to(disk)
    hard.hardlink_to(disk)
    config = {**DISKLESS, "disks": [{"vdev": "xvda", "pdev_path": str(disk)}]}
    for path in (link, hard):
        assert "own disk" in refused(config, xvda=str(path))
    assert not refused(config, xvda=str(tmp_path / "other"))


@pytest.mark.parametrize("key", ["pcidevs", "usbdevs", "channels", "p9s", "vtpms", "new_in_4_30"])
def test_a_device_that_is_not_known_to_be_harmless_is_refused(key: str) -> None:
    assert f"The guest has {key}" in refused({**DISKLESS, key: [{"x": 1}]})


def test_ways_out_of_the_device_model_are_refused() -> None:
    build = CONFIG["b_info"]
    assert "extra" in refused({**HVM, "b_info": {**build, "extra_hvm": ["-netdev", "user"]}}, "d0")
    serial = {**build, "type.hvm": {"serial_list": ["pty", "tcp:10.0.0.1:99"]}}
    assert "tcp:10.0.0.1:99" in refused({**HVM, "b_info": serial}, "d0")
    assert not refused({**HVM, "b_info": {**build, "type.hvm": {"serial": "pty"}}}, "d0")


def test_an_emulated_card_needs_a_bridge_since_its_state_is_in_the_image() -> None:
    assert "emulated" in refused(HVM)
    assert not refused(HVM, "drill0")
    only_pv = {**HVM, "nics": [{**CONFIG["nics"][0], "nictype": "vif"}]}
    assert not refused(only_pv)


def vif(bridge: str) -> Vif:
    return Vif(devid=0, mac="00:16:3e:00:00:01", bridge=bridge, name="vif9.0", backend_domid=0)


def test_what_xl_made_is_compared_with_what_was_planned() -> None:
    plan = cut_off(DISKLESS, "drill0")
    assert not isolation.differences(plan, plan, [vif("drill0")])
    assert isolation.differences(plan, plan, [vif("br0")]) == ["it is on the bridge br0"]
    alone = cut_off(DISKLESS)
    assert isolation.differences(alone, DISKLESS, []) == ["it is on the bridge br0"]
    assert isolation.differences(alone, alone, [vif("br0")])
    assert isolation.differences(alone, {**alone, "disks": CONFIG["disks"]}, []) == [
        "it has the disk /dev/vg/web"
    ]
    assert isolation.differences(alone, {**alone, "pcidevs": [{}]}, []) == ["it has 1 pcidevs"]


@pytest.mark.parametrize(
    ("table", "key"),
    [("b_info", "iomem"), ("b_info", "ioports"), ("b_info", "irqs"), ("hvm", "usbdevice_list")],
)
def test_hardware_of_this_host_is_not_given_to_a_copy(table: str, key: str) -> None:
    hvm = {**HVM["b_info"].get("type.hvm", {}), **({key: ["x"]} if table == "hvm" else {})}
    build = {**HVM["b_info"], "type.hvm": hvm, **({key: ["x"]} if table == "b_info" else {})}
    assert f"The guest has {key}, hardware" in refused({**HVM, "b_info": build}, "drill0")


def test_the_memory_of_a_copy_is_counted_with_what_libxl_adds() -> None:
    assert isolation.wanted_bytes(CONFIG) == (1 << 30) + (2 << 20) + (8 << 20)


def bridge(root: Path, *members: str, forwarding: str = "0") -> None:
    device = root / "sys/class/net/drill0"
    (device / "bridge").mkdir(parents=True)
    (device / "brif").mkdir()
    for name in members:
        (device / "brif" / name).touch()
    conf = root / "proc/sys/net/ipv4/conf/drill0"
    conf.mkdir(parents=True)
    (conf / "forwarding").write_text(f"{forwarding}\n")


def test_a_bridge_without_an_uplink_is_isolated(tmp_path: Path) -> None:
    assert isolation.bridge_refusals("drill0", tmp_path)
    bridge(tmp_path, "vif3.0", "vif3.0-emu", "tap3.0")
    assert not isolation.bridge_refusals("drill0", tmp_path)


@pytest.mark.parametrize("member", ["eth0", "bond0", "vlan7", "veth1", "tap0", "tapvpn", "vif3.0x"])
def test_a_bridge_that_may_lead_out_is_refused(tmp_path: Path, member: str) -> None:
    bridge(tmp_path, member)
    assert member in isolation.bridge_refusals("drill0", tmp_path)[0]


def test_a_bridge_that_this_host_routes_is_refused(tmp_path: Path) -> None:
    bridge(tmp_path, forwarding="1")
    assert "net.ipv4.conf.drill0.forwarding" in isolation.bridge_refusals("drill0", tmp_path)[0]


def test_a_name_that_is_a_path_is_no_bridge(tmp_path: Path) -> None:
    assert "no name" in isolation.bridge_refusals("../../x", tmp_path)[0]
