"""What COLO can have, by what xl itself makes of configurations, and why it refuses the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from colod.errors import PreflightRefused
from colod.output.colo.guest_keys import ColoGuest, ColoPorts, interface_keys
from colod.toolstack.colo_guest import colo_guest, is_as_made, ports_in, ports_of
from tests.unit.xl_samples import sample

PORTS = ColoPorts()


def made(config: dict[str, Any]) -> ColoGuest:
    return colo_guest(
        config,
        primary="192.0.2.1",
        secondary="192.0.2.2",
        ports=PORTS,
        overlays=PurePosixPath("/over"),
    )


def reasons(config: dict[str, Any]) -> list[str]:
    """Return why the guest is refused, [] if it is not."""
    try:
        made(config)
    except PreflightRefused as error:
        return list(error.reasons)
    return []


def changed(part: str, **values: object) -> dict[str, Any]:
    """Return the HVM sample with values of its first interface or disk changed; None drops one."""
    config = sample("hvm")
    device = config[part][0]
    device.update(values)
    config[part][0] = {key: value for key, value in device.items() if value is not None}
    return config


def with_keys(config: dict[str, Any], guest: ColoGuest) -> dict[str, Any]:
    """Return what xl makes of the file with the guest's keys."""
    config["nics"][0].update(interface_keys(guest, has_qemu_comparator=False))
    config["disks"][0].update(
        colo_enable="True",
        colo_host=guest.secondary,
        colo_port=guest.ports.disk,
        colo_export="colodisk0",
        active_disk="/over/a",
        hidden_disk="/over/h",
    )
    return config


def test_an_hvm_guest_keeps_what_it_has() -> None:
    guest = made(sample("hvm"))
    assert (guest.name, guest.mac, guest.bridge) == ("web", "00:16:3e:77:00:10", "br6-2001db8")
    assert guest.model == "e1000"
    assert guest.more == (("script", "vif-openvswitch"), ("vifname", "web0"))
    (disk,) = guest.disks
    assert (disk.device, disk.target) == ("hda", "/srv/web.raw")
    assert (disk.active, disk.hidden) == (
        "/over/web-hda-active.qcow2",
        "/over/web-hda-hidden.qcow2",
    )


def test_what_xl_leaves_out_has_libxls_default() -> None:
    guest = made(sample("plain"))
    assert (guest.bridge, guest.model, guest.more, guest.disks) == ("xenbr0", "rtl8139", (), [])


def test_an_mtu_is_kept_unless_it_is_the_default() -> None:
    assert ("mtu", "9000") in made(changed("nics", mtu=9000)).more
    assert "mtu" not in dict(made(changed("nics", mtu=1500)).more)


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_only_hvm_guests_can_have_it(kind: str) -> None:
    first = reasons(sample(kind))[0]
    assert f"The guest's type is {kind}" in first
    assert "protect it by Remus" in first


@pytest.mark.parametrize(
    ("part", "values", "reason", "remedy"),
    [
        ("nics", {"nictype": "vif"}, "not emulated by QEMU", "type=ioemu"),
        ("nics", {"model": "virtio-net-pci"}, "the model virtio-net-pci", "model=e1000"),
        ("nics", {"backend_domname": "netdom"}, "driver domain netdom", "into dom0"),
        ("nics", {"mac": None}, "no address of its own", "set mac="),
        ("disks", {"format": "qcow2"}, "the format qcow2", "qemu-img convert"),
        ("disks", {"format": "vhd"}, "the format vhd", "qemu-img convert"),
        ("disks", {"script": "block-nbd"}, "a block script", "dom0 itself"),
        ("disks", {"backend": "tap"}, "the backend tap", "backendtype=qdisk"),
        ("disks", {"is_cdrom": 1}, "CD-ROM", "take it out"),
        ("disks", {"readwrite": None}, "read-only", "take it out"),
        ("disks", {"vdev": "xvdf"}, "not among those that QEMU emulates", "name it hda"),
        ("disks", {"vdev": "hda1"}, "not among those that QEMU emulates", "name it hda"),
        ("disks", {"pdev_path": None}, "no target", "a file"),
        ("disks", {"specification": "virtio"}, "a virtio device", "specification=xen"),
        ("disks", {"backend_domid": 3}, "driver domain 3", "into dom0"),
    ],
)
def test_what_has_no_filter_or_no_replication_is_refused_with_a_remedy(
    part: str, values: dict[str, object], reason: str, remedy: str
) -> None:
    (found,) = reasons(changed(part, **values))
    assert reason in found
    assert remedy in found


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("nics", {"nictype": "vif_ioemu", "model": "rtl8139"}),
        ("nics", {"backend_domid": 0}),
        ("disks", {"backend": "phy", "pdev_path": "/dev/vg/web"}),
        ("disks", {"backend": "qdisk", "vdev": "xvda"}),
        ("disks", {"vdev": "sda"}),
    ],
)
def test_what_qemu_can_do_is_not_refused(part: str, values: dict[str, object]) -> None:
    assert reasons(changed(part, **values)) == []


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("device_model_version", "qemu_xen_traditional", "the old one"),
        ("device_model_stubdomain", "True", "stub domain"),
        ("type.hvm", {"hdtype": "ahci"}, "on AHCI"),
    ],
)
def test_a_device_model_that_cannot_replicate_is_refused(
    key: str, value: object, reason: str
) -> None:
    config = sample("hvm")
    config["b_info"][key] = value
    (found,) = reasons(config)
    assert reason in found


def test_without_an_interface_there_is_nothing_to_compare() -> None:
    config = sample("hvm")
    del config["nics"]
    (found,) = reasons(config)
    assert "no network interface" in found


def test_all_reasons_are_named_at_once() -> None:
    found = reasons(sample("many"))
    assert all(each.endswith(".") for each in found)
    for part in (
        *("2 network interfaces", "interface 0 is not emulated", "model virtio-net"),
        *("driver domain netdom", "interface 1 has no address", "5 disks (hda, hdb, hdc, xvdf"),
        *("hda has the format qcow2", "hda is on AHCI", "hdb is read-only", "hdc is a CD-ROM"),
        *("xvdf has a block script", "sda1 has the backend tap"),
    ):
        assert any(part in each for each in found), part


def test_ports_that_the_guest_has_are_found_and_kept() -> None:
    ports = ColoPorts(mirror=1, primary=2, out=3, secondary=4, notify=5, disk=6)
    config = with_keys(sample("hvm"), replace(made(sample("hvm")), ports=ports))
    assert ports_of(config) == ports
    assert ports_in(config) == {1, 2, 3, 4, 5, 6}
    again = made(config)
    assert (again.disks[0].active, again.disks[0].hidden) == ("/over/a", "/over/h")


@pytest.mark.parametrize("port", ["", "x", "0", "5", "65536", "٣", "-1"])
def test_a_guest_that_lacks_one_of_its_ports_gets_others(port: str) -> None:
    ports = ColoPorts(mirror=1, primary=2, out=3, secondary=4, notify=5, disk=6)
    config = with_keys(sample("hvm"), replace(made(sample("hvm")), ports=ports))
    config["nics"][0]["colo_sock_mirror_port"] = port
    assert ports_of(config) is None


def test_a_guest_without_colo_has_no_ports() -> None:
    assert ports_of(sample("hvm")) is None
    assert ports_of(sample("many")) is None
    assert ports_in(sample("many")) == frozenset()


def test_what_xl_reads_back_must_be_what_was_meant() -> None:
    guest = made(sample("hvm"))
    keys = interface_keys(guest, has_qemu_comparator=False)
    assert is_as_made(with_keys(sample("hvm"), guest), guest, keys=keys)
    assert not is_as_made(sample("hvm"), guest, keys=keys)
    assert not is_as_made(sample("plain"), guest, keys=())
    assert not is_as_made(changed("disks", pdev_path="/srv/other.raw"), guest, keys=())
    assert not is_as_made(changed("nics", mac="00:16:3e:77:00:99"), guest, keys=())
