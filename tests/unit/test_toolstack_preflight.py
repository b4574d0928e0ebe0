"""Each thing that forbids protection is refused with its own reason; a fit guest is not refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from colod.model import Disks
from colod.toolstack import preflight
from colod.toolstack.port import HostFacts, Vif
from colod.toolstack.preflight import Inventory, Needs

MIB = 1 << 20
FEATURES = ("0783fbff", "80802001", "20100800", "00000001")

# As real xl 4.17.5 prints it for the lab's guest.
CONFIG: dict[str, Any] = {
    "c_info": {"type": "pv", "name": "guest", "domid": 4294967295, "run_hotplug_scripts": "True"},
    "b_info": {
        "max_vcpus": 1,
        "max_memkb": 90112,
        "kernel": "/opt/lab/vmlinuz",
        "ramdisk": "/opt/lab/guest.cpio.gz",
        "type.pv": {},
    },
    "nics": [{"devid": 0, "mac": "00:16:3e:77:00:10", "bridge": "br0", "nictype": "vif"}],
    "on_reboot": "restart",
}
FACTS = HostFacts(
    xen_version="4.17.5",
    free_memory_bytes=912 * MIB,
    machine="x86_64",
    autoballoon=False,
    simulated=False,
    cpu_features=FEATURES,
)
VIF = Vif(devid=0, mac="00:16:3e:77:00:10", bridge="br0", name="vif1.0", backend_domid=0)
STOCK = Inventory(missing=Needs(), missing_modules=(), dom0_available_bytes=765 * MIB)
DISK = {"pdev_path": "/dev/vg/guest", "vdev": "xvda", "format": "raw", "readwrite": 1}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return CONFIG with one value changed; the parts of `path` are joined by `/`."""
    config = copy.deepcopy(CONFIG)
    table = config
    *parents, last = path.split("/")
    for each in parents:
        table = table.setdefault(each, {})
    table[last] = value
    return config


def local(
    config: dict[str, Any] | None = None,
    facts: HostFacts = FACTS,
    vifs: tuple[Vif, ...] = (VIF,),
    disks: Disks = Disks.NONE,
    *,
    has_fencing: bool = False,
) -> list[str]:
    found = preflight.local_refusals(
        config=config or CONFIG, facts=facts, vifs=vifs, disks=disks, has_fencing=has_fencing
    )
    return list(found)


def peer(config: dict[str, Any] | None = None, **terms: Any) -> list[str]:
    asked: dict[str, Any] = {
        "facts": FACTS,
        "inventory": STOCK,
        "domain_names": ("Domain-0", "other"),
        "xen_version": "4.17.5",
        "memory_bytes": 88 * MIB,
        "cpu_features": FEATURES,
        "staging_bytes": 256 * MIB,
    }
    return list(preflight.peer_refusals(config=config or CONFIG, **(asked | terms)))


def test_a_fit_guest_is_refused_nowhere() -> None:
    assert local() == []
    assert peer() == []


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("pcidevs", [{"bdf": "0000:03:00.0"}], "PCI device passed through"),
        ("dtdevs", [{"path": "/soc"}], "device-tree"),
        ("usbdevs", [{"ctrl": 0}], "USB device"),
        ("vtpms", [{"uuid": "1"}], "virtual TPM"),
        ("pvcallsifs", [{"devid": 0}], "PV calls"),
        ("virtios", [{"type": "x"}], "virtio"),
        ("c_info/name", "17", "takes the name 17"),
        ("c_info/type", "invalid", "type is invalid"),
        ("c_info/driver_domain", "True", "driver domain"),
        ("b_info/disable_migrate", "True", "nomigrate"),
        ("b_info/device_model_stubdomain", "True", "stub domain"),
        ("b_info/type.hvm", {"nested_hvm": "True"}, "nested HVM"),
        ("nics", [{"devid": 0, "backend_domname": "netvm"}], "driver domain netvm"),
        ("nics", [{"devid": 0, "backend_domid": 3}], "driver domain 3"),
    ],
)
def test_what_ties_a_guest_to_its_host_is_refused(path: str, value: object, reason: str) -> None:
    (refusal,) = local(changed(path, value))
    assert reason in refusal
    assert refusal.endswith(".")


@pytest.mark.parametrize("value", ["False", False, None, "<default>"])
def test_a_setting_that_is_off_is_no_reason(value: object) -> None:
    assert local(changed("b_info/disable_migrate", value)) == []
    assert local(changed("b_info/type.hvm", {"nested_hvm": value})) == []


def test_an_interface_behind_a_driver_domain_is_refused_once() -> None:
    (refusal,) = local(vifs=(replace(VIF, backend_domid=4),))
    assert "backed by domain 4" in refusal
    config = changed("nics", [{"devid": 0, "backend_domname": "netvm"}])
    assert len(local(config, vifs=(replace(VIF, backend_domid=4),))) == 1


def test_an_interface_that_no_gate_can_hold_is_refused() -> None:
    (refusal,) = local(vifs=(replace(VIF, kind="vif_macvtap"),))
    assert "vif1.0 is of type vif_macvtap" in refusal
    assert local(vifs=(replace(VIF, kind="vif_ioemu"),)) == []


def test_disks_must_be_as_the_operator_says() -> None:
    config = changed("disks", [DISK])
    (refusal,) = local(config, disks=Disks.NONE)
    assert "xvda" in refusal
    assert local(config, disks=Disks.EXTERNAL) == []
    assert local(changed("disks", [{"vdev": "hdc", "is_cdrom": 1}]), disks=Disks.NONE) == []


def test_shared_disks_need_fencing() -> None:
    config = changed("disks", [DISK])
    (refusal,) = local(config, disks=Disks.SHARED)
    assert "fencing" in refusal
    assert local(config, disks=Disks.SHARED, has_fencing=True) == []


def test_a_disk_behind_a_driver_domain_is_refused() -> None:
    config = changed("disks", [DISK | {"backend_domname": "storage"}])
    (refusal,) = local(config, disks=Disks.EXTERNAL)
    assert "driver domain storage" in refusal


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ({"machine": "aarch64"}, "no migration"),
        ({"machine": "armv7l"}, "no migration"),
        ({"machine": "riscv64"}, "x86 only"),
        ({"autoballoon": True}, 'autoballoon="off"'),
    ],
)
def test_a_host_that_cannot_replicate_is_refused_on_either_side(
    fact: dict[str, Any], reason: str
) -> None:
    for refusals in (local(facts=replace(FACTS, **fact)), peer(facts=replace(FACTS, **fact))):
        assert len(refusals) == 1
        assert reason in refusals[0]


def test_xens_series_must_be_the_same_on_both_hosts() -> None:
    assert peer(xen_version="4.17.3") == []
    (refusal,) = peer(xen_version="4.16.5")
    assert "4.16.5 there and 4.17.5 here" in refusal


def test_a_simulated_host_does_not_take_a_real_guest() -> None:
    (refusal,) = peer(xen_version="4.17.0-simulated")
    assert "simulated" in refusal


def test_features_that_the_receiver_lacks_are_refused_and_more_are_welcome() -> None:
    (refusal,) = peer(cpu_features=("0783fbff", "80802001", "a0100800", "00000001"))
    assert "word 2: 80000000" in refusal
    assert peer(cpu_features=("00000000", "80802001", "20100800", "00000001")) == []
    assert len(peer(cpu_features=(*FEATURES, "00000004"))) == 1
    assert len(peer(cpu_features=("what",))) == 1


def test_a_name_that_is_taken_over_there_is_refused() -> None:
    assert "named guest exists" in peer(domain_names=("guest",))[0]
    assert "named guest--incoming exists" in peer(domain_names=("guest--incoming",))[0]


def test_the_replica_and_its_epochs_need_memory() -> None:
    facts = replace(FACTS, free_memory_bytes=89 * MIB)
    (refusal,) = peer(facts=facts)
    assert "89 MiB free" in refusal
    assert "90 MiB" in refusal
    assert peer(facts=replace(FACTS, free_memory_bytes=90 * MIB)) == []
    (refusal,) = peer(inventory=replace(STOCK, dom0_available_bytes=100 * MIB))
    assert "dom0" in refusal
    assert peer(inventory=replace(STOCK, dom0_available_bytes=100 * MIB), staging_bytes=MIB) == []


def test_what_is_missing_over_there_is_named() -> None:
    missing = Needs(bridges=("br0",), files=("/opt/lab/vmlinuz",), disks=("/dev/vg/guest",))
    refusals = peer(inventory=replace(STOCK, missing=missing))
    assert len(refusals) == 3
    for name, refusal in zip(("br0", "/opt/lab/vmlinuz", "/dev/vg/guest"), refusals, strict=True):
        assert name in refusal


def test_all_reasons_are_given_at_once() -> None:
    config = changed("pcidevs", [{"bdf": "0000:03:00.0"}]) | {"disks": [DISK]}
    assert len(local(config, replace(FACTS, autoballoon=True))) == 3


def test_needs_are_read_from_the_configuration() -> None:
    config = changed("disks", [DISK, {"vdev": "hdc"}, DISK | {"script": "block-iscsi"}])
    config["b_info"]["type.hvm"] = {"firmware": "/opt/ovmf.fd"}
    config["b_info"]["bootloader"] = "pygrub"
    assert preflight.needs_of(config) == Needs(
        bridges=("br0",),
        files=("/opt/lab/vmlinuz", "/opt/lab/guest.cpio.gz", "/opt/ovmf.fd"),
        disks=("/dev/vg/guest",),
    )


@pytest.mark.parametrize("config", [{}, {"c_info": 1, "b_info": [], "nics": {}, "disks": [1]}])
def test_a_configuration_of_another_shape_is_refused_and_breaks_nothing(
    config: dict[str, Any],
) -> None:
    asked = preflight.local_refusals(
        config=config, facts=FACTS, vifs=(), disks=Disks.NONE, has_fencing=False
    )
    assert "type is unknown" in asked[0]
    assert preflight.needs_of(config) == Needs()
    preflight.warnings(config=config, facts=FACTS, inventory=STOCK)


def test_outputs_that_no_gate_sees_are_named() -> None:
    (plain,) = preflight.warnings(config=CONFIG, facts=FACTS, inventory=STOCK)
    assert "console" in plain
    assert "vchan" in plain
    assert "VNC" not in plain
    config = changed("p9s", [{"tag": "x"}]) | {"vfbs": [{"vnc": {"enable": "True"}}]}
    (text,) = preflight.warnings(config=config, facts=FACTS, inventory=STOCK)
    assert "9pfs" in text
    assert "VNC" in text


def test_a_guest_without_an_interface_is_told_that_it_is_never_protected() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "nics"}
    found = preflight.warnings(config=config, facts=FACTS, inventory=STOCK)
    assert "never shown as PROTECTED" in found[1]


def test_missing_modules_and_untested_versions_are_warned_of() -> None:
    inventory = replace(STOCK, missing_modules=("ifb", "sch_plug"))
    facts = replace(FACTS, xen_version="4.20.1")
    found = preflight.warnings(config=CONFIG, facts=facts, inventory=inventory)
    assert "modprobe -a ifb sch_plug" in found[1]
    assert "4.20.1" in found[2]
