"""Cut a copy of a guest off from everything that its original has: for drills.

What is not known to be harmless is refused: a drill's guest believes that it is the original, and
goes on with what that one was about to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from colod.toolstack.port import Vif
from colod.toolstack.preflight import overhead_bytes

Config = Mapping[str, Any]

DEFAULT_BRIDGE: Final = "xenbr0"
"""What libxl takes where an interface names none. Source: Xen tools/libs/light/libxl_nic.c."""

_HARMLESS: Final = frozenset({"nics", "disks", "vfbs", "vkbs"})
"""Lists of devices that can be cut off, or reach nobody; any other one is refused."""
_NIC_KEYS: Final = ("devid", "mac", "model", "nictype", "mtu")
"""What a drill's interface keeps: no script, no name and no address of the original's backend."""
_DISK_KEYS: Final = ("vdev", "format", "removable", "is_cdrom", "readwrite", "discard_enable")
_ENDS: Final = ("on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset")
_EXTRA: Final = ("extra", "extra_pv", "extra_hvm", "device_model_override")
_MEMBER: Final = re.compile(r"vif[0-9]+\.[0-9]+(-emu)?|tap[0-9]+\.[0-9]+")
"""How Xen names the interfaces of guests. Source: Xen tools/libs/light/libxl_nic.c."""
_HARDWARE: Final = ("iomem", "ioports", "irqs")
_HVM_HARDWARE: Final = ("usbdevice", "usbdevice_list")
_BRIDGE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


def refusals(config: Config, *, bridge: str, targets: Mapping[str, str]) -> Sequence[str]:
    """Return why a copy with this configuration cannot be cut off as it is wanted.

    Args:
        config: The original's.
        bridge: The isolated bridge, "" for no network at all.
        targets: What each disk (by `vdev`) is replaced by.
    """
    return [
        *_device_refusals(config),
        *_network_refusals(config, bridge),
        *_disk_refusals(config, targets),
    ]


def cut_off(
    config: Config, *, name: str, uuid: str, bridge: str, targets: Mapping[str, str]
) -> dict[str, Any]:
    """Return the configuration of the copy; nothing of `refusals` may hold.

    Args:
        config: The original's.
        name: The copy's name.
        uuid: Its own; libxl keeps things by it in xenstore.
        bridge: The isolated bridge, "" for no network at all.
        targets: What each disk (by `vdev`) is replaced by.
    """
    copy = {key: value for key, value in config.items() if key not in ("nics", "disks")}
    copy["c_info"] = {**config["c_info"], "name": name, "uuid": uuid}
    # It must not come up again, let alone from a disk, whatever it does.
    copy |= dict.fromkeys(_ENDS, "destroy")
    if bridge and (nics := _tables(config, "nics")):
        copy["nics"] = [{**_picked(nic, _NIC_KEYS), "bridge": bridge} for nic in nics]
    if disks := _tables(config, "disks"):
        copy["disks"] = [_replaced(disk, targets) for disk in disks]
    return copy


def differences(plan: Config, found: Config, vifs: Sequence[Vif]) -> Sequence[str]:
    """Return in what a restored copy is not cut off as it was planned; it may not run then.

    Args:
        plan: What `cut_off` returned.
        found: The configuration that xl keeps of the copy.
        vifs: Its interfaces, from xenstore.
    """
    wanted = {nic["bridge"] for nic in _tables(plan, "nics")}
    bridges = {vif.bridge for vif in vifs} | {
        str(nic.get("bridge", DEFAULT_BRIDGE)) for nic in _tables(found, "nics")
    }
    disks = {str(disk.get("pdev_path")) for disk in _present(found)}
    planned = {str(disk.get("pdev_path")) for disk in _present(plan)}
    texts = [f"it is on the bridge {each}" for each in sorted(bridges - wanted)]
    texts += [f"it has the disk {each}" for each in sorted(disks - planned)]
    texts += [f"it has {len(_tables(found, key))} {key}" for key in _foreign(found)]
    if len(vifs) > len(_tables(plan, "nics")):
        texts.append(f"it has {len(vifs)} interfaces")
    return texts


def wanted_bytes(config: Config) -> int:
    """Return the memory that a copy needs."""
    build = config["b_info"]
    memory = (int(build["max_memkb"]) + int(build.get("video_memkb", 0))) << 10
    return memory + overhead_bytes(config, memory)


def bridge_refusals(bridge: str, root: Path = Path("/")) -> Sequence[str]:
    """Return why a bridge of this host is not isolated; looks at the host."""
    if not _BRIDGE_NAME.fullmatch(bridge):
        return [f"{bridge!r} is no name of a bridge."]
    device = root / "sys/class/net" / bridge
    if not (device / "bridge").is_dir():
        return [f"This host has no bridge {bridge}; make one, and give it no uplink."]
    members = sorted(each.name for each in (device / "brif").iterdir())
    found = [
        f"The bridge {bridge} has the member {name}, which may lead out; use one that has guests "
        "only."
        for name in members
        if not _MEMBER.fullmatch(name)
    ]
    for family in ("ipv4", "ipv6"):
        if _is_on(root / "proc/sys/net" / family / "conf" / bridge / "forwarding"):
            setting = f"net.{family}.conf.{bridge}.forwarding"
            found.append(f"This host forwards what comes from {bridge}; set {setting}=0.")
    return found


# --- inside --------------------------------------------------------------------------------------


def _device_refusals(config: Config) -> Sequence[str]:
    found = [
        f"The guest has {key}, of which a drill cannot be cut off; drills of such guests are not "
        "there yet."
        for key in _foreign(config)
    ]
    build = config.get("b_info", {})
    found += [
        f"The guest has b_info.{key}, which could lead out." for key in _EXTRA if build.get(key)
    ]
    hvm = build.get("type.hvm", {})
    found += [
        f"The guest has {key}, hardware that the running one uses."
        for table, keys in ((build, _HARDWARE), (hvm, _HVM_HARDWARE))
        for key in keys
        if table.get(key)
    ]
    serial = hvm.get("serial_list") or ([hvm["serial"]] if hvm.get("serial") else [])
    found += [
        f"The guest's serial port is {each}; only pty leads nowhere."
        for each in serial
        if each != "pty"
    ]
    return found


def _network_refusals(config: Config, bridge: str) -> Sequence[str]:
    nics = _tables(config, "nics")
    own = {str(nic.get("bridge", DEFAULT_BRIDGE)) for nic in nics}
    if bridge in own:
        return [f"{bridge} is the guest's own bridge; a drill needs one that leads nowhere."]
    if not bridge and any(_is_emulated(config, nic) for nic in nics):
        return [
            "The guest has an emulated network card, whose state QEMU restores only where the card "
            "is; give --bridge the name of a bridge without an uplink."
        ]
    return []


def _is_emulated(config: Config, nic: Config) -> bool:
    return config["c_info"].get("type") == "hvm" and nic.get("nictype") != "vif"


def _disk_refusals(config: Config, targets: Mapping[str, str]) -> Sequence[str]:
    disks = {_vdev(disk): str(disk["pdev_path"]) for disk in _present(config)}
    lacking = [vdev for vdev in disks if vdev not in targets]
    found = [f"The guest has no disk {vdev}." for vdev in targets if vdev not in disks]
    if lacking:
        found.append(
            f"The guest has the disks {', '.join(lacking)}. A drill never gets them: the running "
            "guest writes to them, or its takeover would. Give it copies, one for each: "
            "--disk-override VDEV=PATH"
        )
    for vdev, target in targets.items():
        if not target.startswith("/"):
            found.append(f"--disk-override {vdev}: {target!r} is no absolute path.")
        for other in disks.values():
            if _is_same(target, other):
                found.append(f"--disk-override {vdev}: {target} is the guest's own disk {other}.")
    return found


def _is_same(one: str, other: str) -> bool:
    """Tell whether two paths lead to one file or device, as far as can be seen from here."""
    paths = Path(one), Path(other)
    try:
        if paths[0].resolve() == paths[1].resolve():
            return True
        first, second = paths[0].stat(), paths[1].stat()
    except (OSError, RuntimeError):  # a loop of links, or not there
        return False
    is_same_device = first.st_rdev == second.st_rdev and first.st_rdev != 0
    return is_same_device or (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _foreign(config: Config) -> Sequence[str]:
    """Return the lists of devices that are neither known nor empty."""
    return [
        key
        for key, value in config.items()
        if isinstance(value, list) and value and key not in _HARMLESS
    ]


def _tables(config: Config, key: str) -> Sequence[Config]:
    found = config.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _present(config: Config) -> Sequence[Config]:
    """Return the disks that have something behind them; an empty drive has not."""
    return [disk for disk in _tables(config, "disks") if disk.get("pdev_path")]


def _replaced(disk: Config, targets: Mapping[str, str]) -> dict[str, Any]:
    """Return a disk with another one behind it; an empty drive stays: QEMU's state has it."""
    kept = _picked(disk, _DISK_KEYS)
    return kept | {"pdev_path": targets[_vdev(disk)]} if disk.get("pdev_path") else kept


def _vdev(disk: Config) -> str:
    return str(disk.get("vdev", "?"))


def _picked(table: Config, keys: Sequence[str]) -> dict[str, Any]:
    return {key: table[key] for key in keys if key in table}


def _is_on(path: Path) -> bool:
    try:
        return path.read_text().strip() == "1"
    except OSError:
        return False
