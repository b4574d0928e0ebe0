"""The COLO keys of a guest, as xl reads them and libxl uses them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.errors import ConfigError
from colod.output.colo.guest_keys import (
    ColoDisk,
    ColoGuest,
    ColoPorts,
    guest_lines,
    interface_keys,
)

DISK = ColoDisk(device="hda", target="/g/disk.raw", active="/g/active", hidden="/g/hidden")
GUEST = ColoGuest(
    name="web",
    mac="00:16:3e:01:02:03",
    bridge="br0",
    primary="192.0.2.1",
    secondary="192.0.2.2",
    disks=[DISK],
)

_ENDS = ("id", "ip", "port")
XL_KEYS = {
    *(
        f"colo_sock_{name}_{end}"
        for name in (
            *("mirror", "compare_sec_in", "compare_pri_in", "compare_notify"),
            *("redirector0", "redirector1", "redirector2", "sec_redirector0", "sec_redirector1"),
        )
        for end in _ENDS
    ),
    *(
        f"colo_filter_{name}_{end}"
        for name in ("redirector0", "redirector1", "sec_redirector0", "sec_redirector1")
        for end in ("queue", "indev", "outdev")
    ),
    *("colo_filter_mirror_queue", "colo_filter_mirror_outdev", "colo_filter_sec_rewriter0_queue"),
    *(f"colo_compare_{name}" for name in ("pri_in", "sec_in", "out", "notify_dev")),
    *("colo_checkpoint_host", "colo_checkpoint_port"),
}
"""All that xl knows. Source: Xen tools/xl/xl_parse.c, parse_nic_config()."""


def vif_of(lines: str) -> dict[str, str]:
    """Return what xl reads of the line `vif`: words between commas, a key and a value each."""
    line = lines.splitlines()[0]
    assert line.startswith("vif = [ '")
    assert line.endswith("' ]")
    words = line[len("vif = [ '") : -len("' ]")].split(",")
    keys = [word.partition("=")[0] for word in words]
    assert len(set(keys)) == len(keys), "each key once"
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize("has_qemu_comparator", [False, True])
def test_xl_knows_every_key(has_qemu_comparator: bool) -> None:
    keys = set(vif_of(guest_lines(GUEST, has_qemu_comparator=has_qemu_comparator)))
    assert keys - {"mac", "bridge", "model", "type"} <= XL_KEYS
    assert all(key.startswith("colo_") for key in keys & XL_KEYS)


def test_with_qemus_comparator_all_keys_are_there_that_were_seen_to_work() -> None:
    keys = set(vif_of(guest_lines(GUEST, has_qemu_comparator=True)))
    unused = {
        *("colo_filter_redirector0_outdev", "colo_filter_redirector1_indev"),
        *("colo_filter_sec_redirector0_outdev", "colo_filter_sec_redirector1_indev"),
    }
    assert keys & XL_KEYS == XL_KEYS - unused


def test_with_the_proxy_qemu_has_no_comparator_and_no_socket_in_its_place() -> None:
    vif = vif_of(guest_lines(GUEST))
    assert not [key for key in vif if key.startswith("colo_compare_")]
    assert "colo_sock_compare_notify_port" not in vif, "libxl must find the proxy there"
    assert "colo_sock_compare_sec_in_port" not in vif, "and so must the secondary"
    assert vif["colo_checkpoint_host"] == "127.0.0.1"
    assert vif["colo_checkpoint_port"] == "9009"
    assert vif["colo_sock_sec_redirector1_ip"] == "192.0.2.1"
    assert vif["colo_sock_sec_redirector1_port"] == "9004"


@pytest.mark.parametrize("has_qemu_comparator", [False, True])
def test_every_filter_has_a_socket_and_the_ends_of_one_link_agree(
    has_qemu_comparator: bool,
) -> None:
    vif = dict(interface_keys(GUEST, has_qemu_comparator))
    made = {value for key, value in vif.items() if key.endswith("_id")}
    ends = ("_indev", "_outdev", "compare_pri_in", "compare_sec_in", "compare_out", "_notify_dev")
    used = {value for key, value in vif.items() if key.endswith(ends)}
    assert used <= made
    assert vif["colo_sock_sec_redirector0_port"] == vif["colo_sock_mirror_port"]
    assert vif["colo_sock_sec_redirector0_ip"] == vif["colo_sock_mirror_ip"]
    if has_qemu_comparator:
        for client, server in (
            ("redirector1", "compare_pri_in"),
            ("redirector2", "redirector0"),
            ("sec_redirector1", "compare_sec_in"),
        ):
            ports = [vif[f"colo_sock_{name}_port"] for name in (client, server)]
            assert ports[0] == ports[1]
        assert vif["colo_checkpoint_port"] == vif["colo_sock_compare_notify_port"]


def test_the_disk_is_as_it_was_seen_to_work_with_its_path_last() -> None:
    assert guest_lines(GUEST).splitlines()[1] == (
        "disk = [ 'format=raw,devtype=disk,access=w,vdev=hda,backendtype=qdisk,colo,"
        "colo-host=192.0.2.2,colo-port=9999,colo-export=colodisk0,"
        "active-disk=/g/active,hidden-disk=/g/hidden,target=/g/disk.raw' ]"
    )


def test_a_guest_without_disks_has_no_line_for_them() -> None:
    assert len(guest_lines(replace(GUEST, disks=())).splitlines()) == 1


def test_all_problems_are_named_at_once() -> None:
    wrong = ColoGuest(
        name="web, two",
        mac="00:16:3e",
        bridge="br0,rate=1Mb/s",
        primary="primary.example",
        secondary="2001:db8::2",
        disks=[
            replace(DISK, device="hd a", active="active", hidden="/g/it's"),
            replace(DISK, target="/g/a,b"),
        ],
        ports=ColoPorts(mirror=0, out=9004),
    )
    with pytest.raises(ConfigError) as caught:
        guest_lines(wrong)
    assert [each.partition(": ")[0] for each in caught.value.problems] == [
        *("name", "bridge", "mac", "primary", "secondary", "ports.mirror", "ports.secondary"),
        "disks",
        *("disks.0.device", "disks.0.active", "disks.0.hidden", "disks.1.export", "disks.1.target"),
    ]


@pytest.mark.parametrize(
    "more", [("script", "a,b"), ("ip", ""), ("vif name", "x"), ("ip", "a\nb"), ("ip", "it's")]
)
def test_what_is_kept_of_the_interface_cannot_break_out_of_it(more: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="xl's syntax has no place for that"):
        guest_lines(replace(GUEST, more=(more,)))


def test_what_is_kept_of_the_interface_stands_before_the_keys_of_colo() -> None:
    line = guest_lines(replace(GUEST, more=(("script", "vif-route"), ("vifname", "web0"))))
    assert ",type=ioemu,script=vif-route,vifname=web0,colo_sock_mirror_id=" in line


def _with(place: str, value: str) -> ColoGuest:
    """Return the guest with one value changed."""
    disk: Any
    guest: Any
    if place == "script":
        return replace(GUEST, more=((place, value),))
    if place in ("target", "active", "export"):
        disk = {place: value}
        return replace(GUEST, disks=[replace(DISK, **disk)])
    guest = {place: value}
    return replace(GUEST, **guest)


@given(
    st.sampled_from(["name", "mac", "bridge", "model", "script", "target", "active", "export"]),
    st.one_of(
        st.text(),
        st.text(alphabet="ab/,'\"\\\\=[]#;\n\r\t \0:%-"),
        st.text(alphabet="ab/,=\n'").map("/".__add__),
    ),
)
def test_whatever_a_value_is_it_stays_where_it_belongs(place: str, value: str) -> None:
    """It is refused, or xl reads one line of each kind, and the very value in its place."""
    guest = _with(place, value)
    try:
        lines = guest_lines(guest)
    except ConfigError:
        return
    vif_line, disk_line = lines.removesuffix("\n").split("\n")
    assert (vif_line.count("'"), disk_line.count("'")) == (2, 2)
    vif, plain = vif_of(lines), vif_of(guest_lines(GUEST))
    changed = {key for key in vif if vif[key] != plain.get(key)}
    assert changed <= {place}
    assert all(vif[key] == value for key in changed)
    inside = disk_line[len("disk = [ '") : -len("' ]")]
    keys = [word.partition("=")[0] for word in inside.split(",")]
    assert keys[-1] == "target"
    assert len(keys) == len(set(keys)) == 12


@pytest.mark.parametrize("bridge", ["2001:db8::1", "br0,x", "br 0", "", "br0\n", "br'"])
def test_a_bridge_is_named_as_an_interface_is(bridge: str) -> None:
    with pytest.raises(ConfigError, match="bridge: "):
        guest_lines(replace(GUEST, bridge=bridge))


def test_a_disk_is_three_files() -> None:
    with pytest.raises(ConfigError, match=r"disks\.0: want three files"):
        guest_lines(replace(GUEST, disks=[replace(DISK, hidden=DISK.active)]))


def test_a_pair_is_two_hosts() -> None:
    with pytest.raises(ConfigError, match="the primary's address, too"):
        guest_lines(replace(GUEST, secondary=GUEST.primary))
