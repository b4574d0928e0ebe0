"""Say why a guest cannot be protected, before anything is done to it. Pure.

Every refusal is a whole sentence with its remedy; all are found at once. `local_refusals` is asked
on the guest's host, `peer_refusals` on the one that shall hold the replica. What each of the two
has and lacks is looked up by `inventory`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from colod.model import INCOMING_SUFFIX, Disks
from colod.toolstack.libxl_json import Config, driver_domain, is_true, table, tables
from colod.toolstack.port import HostFacts, Vif

TESTED_XEN = frozenset({"4.17"})
"""Versions of Xen that the lab runs colod on."""

GATEABLE_VIFS = frozenset({"vif", "vif_ioemu"})
"""Types whose output passes an interface of dom0 where it can be held."""

GATE_MODULES = ("ifb", "sch_plug", "act_mirred")

_MIGRATABLE_TYPES = frozenset({"pv", "pvh", "hvm"})
_MIB = 1 << 20

# Lists in libxl's configuration of what ties a guest to its host, and what to do about it.
_UNMOVABLE = {
    "pcidevs": ("a PCI device passed through", "take it out with xl pci-detach"),
    "dtdevs": ("a device-tree device passed through", "remove dtdev from its configuration"),
    "usbdevs": ("a USB device passed through", "take it out with xl usbdev-detach"),
    "vtpms": ("a virtual TPM, whose state is not replicated", "remove vtpm from its configuration"),
    "pvcallsifs": ("a PV calls interface, which no gate can hold", "use a vif instead"),
    "virtios": ("a virtio device, which xl cannot migrate", "use PV devices instead"),
}

# Lists in libxl's configuration of outputs that the gate does not see.
_UNSEEN = {
    "channels": "channels",
    "p9s": "9pfs shares",
    "vsnds": "sound devices",
    "vdispls": "PV displays",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a guest needs on a host to run there, and to boot there again.

    Attributes:
        bridges: Bridges of its interfaces.
        files: Kernel, ramdisk, firmware.
        disks: Devices or images of its disks.
    """

    bridges: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a host lacks of that, and what it has.

    Attributes:
        missing: Of the needs, those that it lacks.
        missing_modules: Of GATE_MODULES, those that its kernel cannot load.
        dom0_available_bytes: Memory that processes in dom0 can still have.
    """

    missing: Needs
    missing_modules: tuple[str, ...]
    dom0_available_bytes: int


def needs_of(config: Config) -> Needs:
    """Return what the guest with this configuration needs on a host.

    What is not a path (a disk behind a block script, a boot loader by its name) is left out:
    whether it is there only its own tool can tell.
    """
    build = table(config, "b_info")
    hvm = table(build, "type.hvm")
    candidates = [
        *(build.get(key) for key in ("kernel", "ramdisk", "bootloader", "device_model")),
        *(hvm.get(key) for key in ("firmware", "smbios_firmware", "acpi_firmware")),
        table(build, "type.pv").get("bootloader"),
    ]
    disks = [disk.get("pdev_path") for disk in tables(config, "disks") if not disk.get("script")]
    return Needs(
        bridges=_distinct(nic.get("bridge") for nic in tables(config, "nics")),
        files=_distinct(path for path in candidates if str(path).startswith("/")),
        disks=_distinct(path for path in disks if str(path).startswith("/")),
    )


def local_refusals(
    *,
    config: Config,
    facts: HostFacts,
    vifs: Sequence[Vif],
    disks: Disks,
    has_fencing: bool,
) -> Sequence[str]:
    """Return why this guest cannot be protected from here.

    Args:
        config: The guest's configuration as xl keeps it.
        facts: Of this host.
        vifs: The guest's interfaces.
        disks: What the operator said of its disks.
        has_fencing: Whether a fencing method that proves the other host's end is configured.
    """
    return [
        *_host_refusals(facts, "this host"),
        *_guest_refusals(config),
        *_interface_refusals(config, vifs),
        *_disk_refusals(config, disks, has_fencing=has_fencing),
    ]


def peer_refusals(
    *,
    config: Config,
    facts: HostFacts,
    inventory: Inventory,
    domain_names: Sequence[str],
    xen_version: str,
    memory_bytes: int,
    cpu_features: Sequence[str],
    staging_bytes: int,
) -> Sequence[str]:
    """Return why this host cannot take the replica.

    Args:
        config: The guest's configuration as its own host has it.
        facts: Of this host, the one that is asked.
        inventory: Of this host, for `needs_of(config)`.
        domain_names: Names of this host's domains.
        xen_version: Of the guest's host.
        memory_bytes: The guest's memory.
        cpu_features: Of the guest's host.
        staging_bytes: Most that the session here keeps of one epoch.
    """
    return [
        *_host_refusals(facts, "the other host"),
        *_version_refusals(xen_version, facts.xen_version),
        *_cpu_refusals(cpu_features, facts.cpu_features),
        *_name_refusals(config, domain_names),
        *_memory_refusals(config, facts, inventory, memory_bytes, staging_bytes),
        *_missing_refusals(inventory.missing),
    ]


def warnings(*, config: Config, facts: HostFacts, inventory: Inventory) -> Sequence[str]:
    """Return what the operator should know although it does not prevent protection."""
    unseen = ["its console", *(text for key, text in _UNSEEN.items() if tables(config, key))]
    if _has_display(config):
        unseen.append("its graphical display (VNC or SPICE)")
    text = "Not held until an epoch is safe: what the guest says over "
    found = [f"{text}{', '.join(unseen)}, or over vchan."]
    if not tables(config, "nics"):
        found.append(
            "The guest has no network interface, so there is no output to hold: it is replicated, "
            "and never shown as PROTECTED."
        )
    if inventory.missing_modules:
        modules = " ".join(inventory.missing_modules)
        found.append(
            f"The kernel has no module {modules}: output cannot be held on this host; "
            f"run: modprobe -a {modules}."
        )
    if _series(facts.xen_version) not in TESTED_XEN:
        found.append(
            f"Xen {facts.xen_version} is not among the versions that colod is tested on "
            f"({', '.join(sorted(TESTED_XEN))})."
        )
    return found


# --- the host ----------------------------------------------------------------------------------


def _host_refusals(facts: HostFacts, where: str) -> Sequence[str]:
    found = []
    if facts.machine.startswith(("arm", "aarch64")):
        found.append(f"On {where} Xen runs on {facts.machine}, where it has no migration.")
    elif facts.machine not in {"x86_64", "i686"}:
        found.append(f"On {where} Xen runs on {facts.machine}; colod knows x86 only.")
    if facts.autoballoon:
        found.append(
            f"On {where} autoballoon is on: xl then holds its global lock during the whole "
            'replication and no other domain can be started; set autoballoon="off" in '
            "/etc/xen/xl.conf, or start Xen with dom0_mem=."
        )
    return found


def _version_refusals(theirs: str, ours: str) -> Sequence[str]:
    found = []
    if _series(theirs) != _series(ours):
        found.append(
            f"Xen's versions differ, {theirs} there and {ours} here; "
            "run the same major and minor version on both hosts."
        )
    if ("simulated" in theirs) != ("simulated" in ours):
        found.append("One host is simulated and the other is not; a guest cannot move between.")
    return found


def _series(version: str) -> str:
    match = re.match(r"\d+\.\d+", version)
    return match[0] if match else version


def _cpu_refusals(theirs: Sequence[str], ours: Sequence[str]) -> Sequence[str]:
    """Find features of the guest's host that this one lacks: the guest may rely on any of them."""
    try:
        there = [int(word, 16) for word in theirs if word]
        here = [int(word, 16) for word in ours if word]
    except ValueError:
        return ["The processors' features (hw_caps of xl info) are not readable; compare by hand."]
    here += [0] * (len(there) - len(here))
    pairs = enumerate(zip(there, here, strict=False))
    lacking = [f"word {number}: {a & ~b:08x}" for number, (a, b) in pairs if a & ~b]
    if not lacking:
        return []
    return [
        f"This host's processor lacks features that the guest's host has ({'; '.join(lacking)} of "
        "hw_caps); level them with Xen's cpuid= option and start the guest anew."
    ]


# --- the guest ---------------------------------------------------------------------------------


def _guest_refusals(config: Config) -> Sequence[str]:
    created, build = table(config, "c_info"), table(config, "b_info")
    name, kind = str(created.get("name", "")), str(created.get("type", ""))
    found = [
        f"The guest has {what}; {remedy}."
        for key, (what, remedy) in _UNMOVABLE.items()
        if tables(config, key)
    ]
    if name.isdecimal():
        found.append(f"xl takes the name {name} for a domain's number; rename the guest.")
    if kind not in _MIGRATABLE_TYPES:
        found.append(f"The guest's type is {kind or 'unknown'}; colod knows pv, pvh and hvm.")
    if is_true(created.get("driver_domain")):
        found.append("The guest is a driver domain; other domains would lose their devices.")
    if is_true(build.get("disable_migrate")):
        found.append("The guest has nomigrate=1; remove that and start it anew.")
    if is_true(build.get("device_model_stubdomain")):
        found.append("The guest's device model has a stub domain; set device_model_stubdomain=0.")
    if is_true(table(build, "type.hvm").get("nested_hvm")):
        found.append("The guest has nested HVM, which Xen cannot migrate; set nestedhvm=0.")
    return found


def _interface_refusals(config: Config, vifs: Sequence[Vif]) -> Sequence[str]:
    remedy = "put its backend into dom0"
    found = {
        f"The guest's interface {nic.get('devid', '?')} is backed by the driver domain "
        f"{driver_domain(nic)}; {remedy}.": None
        for nic in tables(config, "nics")
        if driver_domain(nic)
    }
    for vif in vifs:
        if vif.backend_domid and not any(f"interface {vif.devid} " in each for each in found):
            text = f"The guest's interface {vif.devid} is backed by domain {vif.backend_domid}"
            found[f"{text}; {remedy}."] = None
        if vif.kind not in GATEABLE_VIFS:
            text = f"The guest's interface {vif.name} is of type {vif.kind}, which no gate can hold"
            found[f"{text}; use type=vif or type=ioemu."] = None
    return list(found)


def _disk_refusals(config: Config, disks: Disks, *, has_fencing: bool) -> Sequence[str]:
    present = [disk for disk in tables(config, "disks") if disk.get("pdev_path")]
    found = [
        f"The guest's disk {disk.get('vdev', '?')} is backed by the driver domain "
        f"{driver_domain(disk)}; put its backend into dom0."
        for disk in present
        if driver_domain(disk)
    ]
    if disks is Disks.NONE and present:
        names = ", ".join(str(disk.get("vdev", "?")) for disk in present)
        found.append(
            f"The guest has disks ({names}), but --disks none says that it has none; say "
            "--disks shared or --disks external."
        )
    if disks is Disks.SHARED and not has_fencing:
        found.append(
            "Shared disks need fencing: two copies must never write to one disk; configure a "
            "fencing method, or say --disks external if the hosts do not share them."
        )
    return found


def _name_refusals(config: Config, domain_names: Sequence[str]) -> Sequence[str]:
    name = str(table(config, "c_info").get("name", ""))
    return [
        f"A domain named {taken} exists on the other host; destroy or rename it there."
        for taken in (name, name + INCOMING_SUFFIX)
        if taken in domain_names
    ]


# --- memory and files --------------------------------------------------------------------------


def _memory_refusals(
    config: Config, facts: HostFacts, inventory: Inventory, memory_bytes: int, staging_bytes: int
) -> Sequence[str]:
    wanted = memory_bytes + overhead_bytes(config, memory_bytes)
    # One epoch lies in the receiving session until it is whole, and once more in libxc after that.
    epochs = 2 * min(memory_bytes, staging_bytes)
    found = []
    if facts.free_memory_bytes < wanted:
        found.append(
            f"The other host has {facts.free_memory_bytes // _MIB} MiB free for domains; the "
            f"replica needs {_mib_up(wanted)} MiB; free memory there, or shrink the guest."
        )
    if inventory.dom0_available_bytes < epochs:
        found.append(
            f"dom0 of the other host has {inventory.dom0_available_bytes // _MIB} MiB available; "
            f"the epochs in flight need {_mib_up(epochs)} MiB; give dom0 more memory."
        )
    return found


def overhead_bytes(config: Config, memory_bytes: int) -> int:
    """Return what libxl adds: 1 MiB for each vCPU and 8 KiB for each MiB of memory.

    Spec: Xen tools/libs/light/libxl_utils.c, libxl_get_required_shadow_memory.
    """
    vcpus = int(table(config, "b_info").get("max_vcpus", 1))
    return vcpus * _MIB + memory_bytes // 128


def _mib_up(size_bytes: int) -> int:
    return -(-size_bytes // _MIB)


def _missing_refusals(missing: Needs) -> Sequence[str]:
    return [
        *(f"The bridge {each} is missing on the other host; make it." for each in missing.bridges),
        *(
            f"{each} is missing on the other host, and the guest could not boot there again; "
            "copy it."
            for each in missing.files
        ),
        *(
            f"The disk {each} is missing on the other host; make it available there."
            for each in missing.disks
        ),
    ]


# --- small things --------------------------------------------------------------------------------


def _has_display(config: Config) -> bool:
    build = table(config, "b_info")
    displays = [table(build, "type.hvm"), *tables(config, "vfbs")]
    return any(
        is_true(table(each, kind).get("enable"))
        for each in displays
        for kind in ("vnc", "sdl", "spice")
    )


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values if value))
