"""Make of a guest's own configuration what COLO's keys are made of, or say why it cannot be. Pure.

COLO as libxl has it is narrower than Remus: an HVM guest with one interface that QEMU emulates, and
one disk or none. Each refusal is a whole sentence with its remedy; all are found at once.

Spec: Xen tools/libs/light/libxl_types.idl, device_nic and device_disk (names of the fields);
libxl_colo_save.c, libxl__colo_save_setup() (HVM only; nics[0]); libxl_checkpoint_device.c,
device_setup_iterate() (a disk that is not replicated is an error); libxl_dm.c,
libxl__build_device_model_args_new() and qemu_disk_*_drive_string(); libxl_device.c,
disk_try_backend() (no block script); tools/xl/xl_parse.c, parse_nic_config().
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from colod.errors import ConfigError, PreflightRefused
from colod.output.colo.guest_keys import ColoDisk, ColoGuest, ColoPorts, Keys
from colod.output.colo.guest_ports import numbers
from colod.toolstack.libxl_json import Config, driver_domain, is_true, table, tables

BY_REMUS = "or protect it by Remus, which needs none of this"

_DEFAULT_MODEL = "rtl8139"
"""libxl's. Source: libxl_nic.c, libxl__device_nic_setdefault()."""

_DEFAULT_BRIDGE = "xenbr0"
_DEFAULT_MTU = 1500
_LAST_PORT = 65_535

_EMULATED_DISK = re.compile(r"(hd|xvd)[a-d]|sd[a-z]")
"""Names of disks that QEMU emulates as a whole. Source: libxl_dm.c, `disk < 4` and `sd`."""

_KEPT = (("script", "script"), ("vifname", "ifname"), ("ip", "ip"), ("gatewaydev", "gatewaydev"))
"""Keys of xl beside libxl's names for them; what is not kept has no effect on an emulated
interface (`rate`), or libxl's default is right (`trusted`)."""

_PORT_KEYS: Mapping[str, str] = {
    "mirror": "colo_sock_mirror_port",
    "primary": "colo_sock_compare_pri_in_port",
    "out": "colo_sock_redirector0_port",
    "secondary": "colo_sock_sec_redirector1_port",
    "notify": "colo_checkpoint_port",
}


def colo_guest(
    config: Config, *, primary: str, secondary: str, ports: ColoPorts, overlays: PurePosixPath
) -> ColoGuest:
    """Return what the keys of the guest are made of.

    Args:
        config: The guest's configuration, as libxl writes it.
        primary: IPv4 address of the host that runs it.
        secondary: Of the other one.
        ports: Its TCP ports.
        overlays: Directory of what the secondary writes between checkpoints, on both hosts.

    Raises:
        PreflightRefused: With every reason why COLO cannot have this guest.
    """
    if reasons := list(_refusals(config)):
        raise refused(reasons)
    name = name_of(config)
    (nic,) = tables(config, "nics")
    return ColoGuest(
        name=name,
        mac=str(nic["mac"]),
        bridge=str(nic.get("bridge") or _DEFAULT_BRIDGE),
        primary=primary,
        secondary=secondary,
        disks=[_disk(each, name, overlays) for each in tables(config, "disks")],
        ports=ports,
        model=str(nic.get("model") or _DEFAULT_MODEL),
        more=_kept(nic),
    )


def refused(reasons: Sequence[str]) -> PreflightRefused:
    """Return the error that names all reasons."""
    error = PreflightRefused(reasons)
    error.advice = "change its configuration as said; COLO needs what docs/colo.md lists"
    return error


def from_problems(error: ConfigError) -> PreflightRefused:
    """Return the error for values of the guest's that no configuration file can hold."""
    return refused([f"The guest's {problem}." for problem in error.problems])


def name_of(config: Config) -> str:
    """Return the guest's name, empty if it has none."""
    return str(table(config, "c_info").get("name", ""))


def ports_in(config: Config) -> frozenset[int]:
    """Return every TCP port that COLO's keys name in a configuration, whoever wrote them."""
    found = [
        value
        for nic in tables(config, "nics")
        for key, value in nic.items()
        if key.startswith("colo_") and key.endswith("_port")
    ]
    found += [disk.get("colo_port", 0) for disk in tables(config, "disks")]
    return frozenset(filter(None, map(_port, found)))


def ports_of(config: Config) -> ColoPorts | None:
    """Return the ports that the guest has already, None unless it has all of them."""
    nics, disks = tables(config, "nics"), tables(config, "disks")
    if len(nics) != 1:
        return None
    given = {name: _port(nics[0].get(key)) for name, key in _PORT_KEYS.items()}
    # A guest without disks has no use for the last one.
    given["disk"] = _port(disks[0].get("colo_port")) if disks else given["notify"] + 1
    ports = ColoPorts(**given)
    return ports if all(given.values()) and len(set(numbers(ports))) == len(given) else None


def is_as_made(config: Config, guest: ColoGuest, *, keys: Keys) -> bool:
    """Tell whether xl reads a file that was made as it was meant.

    Args:
        config: What xl makes of the file.
        guest: What it was made of.
        keys: Those that have to be in the interface, as `interface_keys` gives them.
    """
    nics, disks = tables(config, "nics"), tables(config, "disks")
    if name_of(config) != guest.name or len(nics) != 1:
        return False
    targets = [disk.get("pdev_path") for disk in disks]
    return (
        str(nics[0].get("mac", "")).lower() == guest.mac.lower()
        and targets == [disk.target for disk in guest.disks]
        and all(str(nics[0].get(key)) == value for key, value in keys)
    )


def _port(value: object) -> int:
    """Read a port: libxl keeps those of interfaces as text; 0 for what is none."""
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number <= _LAST_PORT else 0


def _kept(nic: Config) -> Keys:
    kept = [(key, str(nic[name])) for key, name in _KEPT if nic.get(name)]
    if nic.get("vlan"):
        kept.append(("vlan", str(nic["vlan"])))
    if nic.get("mtu") not in (None, 0, _DEFAULT_MTU):
        kept.append(("mtu", str(nic["mtu"])))
    return tuple(kept)


def _disk(disk: Config, guest: str, overlays: PurePosixPath) -> ColoDisk:
    """Return the disk; what it has of COLO already stays."""
    device = str(disk["vdev"])
    base = f"{guest}-{device}"
    return ColoDisk(
        device=device,
        target=str(disk["pdev_path"]),
        active=str(disk.get("active_disk") or overlays / f"{base}-active.qcow2"),
        hidden=str(disk.get("hidden_disk") or overlays / f"{base}-hidden.qcow2"),
        export=str(disk.get("colo_export") or "colodisk0"),
    )


# --- why not --------------------------------------------------------------------------------------


def _refusals(config: Config) -> Iterator[str]:
    build = table(config, "b_info")
    kind = str(table(config, "c_info").get("type", "")) or "unknown"
    if kind != "hvm":
        yield (
            f"The guest's type is {kind}, and libxl does COLO with HVM guests only; install it "
            f'with type="hvm", {BY_REMUS}.'
        )
    if build.get("device_model_version", "qemu_xen") not in ("qemu_xen", "unknown"):
        yield (
            "The guest's device model is the old one, without filters and replication; set "
            'device_model_version="qemu-xen".'
        )
    if is_true(build.get("device_model_stubdomain")):
        yield "The guest's device model has a stub domain; set device_model_stubdomain_override=0."
    yield from _interface_refusals(tables(config, "nics"))
    yield from _disk_refusals(tables(config, "disks"), str(table(build, "type.hvm").get("hdtype")))


def _interface_refusals(nics: Sequence[Config]) -> Iterator[str]:
    if not nics:
        yield f"The guest has no network interface: nothing is compared; add one, {BY_REMUS}."
    if len(nics) > 1:
        yield (
            f"The guest has {len(nics)} network interfaces, and COLO compares one: the others "
            f"would not be held; leave one vif, {BY_REMUS}."
        )
    for number, nic in enumerate(nics):
        where = f"The guest's interface {nic.get('devid', number)}"
        if nic.get("nictype", "vif_ioemu") not in ("vif_ioemu", "unknown"):
            yield (
                f"{where} is not emulated by QEMU, which alone sees what is compared; set "
                "type=ioemu and model=e1000."
            )
        if str(nic.get("model", "")).startswith("virtio"):
            yield (
                f"{where} has the model {nic['model']}, whose frames QEMU's filters would take "
                "with a header that libxl cannot tell them of; set model=e1000."
            )
        if owner := driver_domain(nic):
            yield f"{where} is backed by the driver domain {owner}; put its backend into dom0."
        if not nic.get("mac"):
            yield f"{where} has no address of its own, and each host would make one up; set mac=."


def _disk_refusals(disks: Sequence[Config], hdtype: str) -> Iterator[str]:
    if len(disks) > 1:
        names = ", ".join(str(disk.get("vdev", "?")) for disk in disks)
        yield (
            f"The guest has {len(disks)} disks ({names}), and libxl replicates one at most: it "
            f"gives all of them the same name in QEMU; leave one, {BY_REMUS}."
        )
    for disk in disks:
        yield from _one_disk_refusals(disk, f"The guest's disk {disk.get('vdev', '?')}", hdtype)


def _one_disk_refusals(disk: Config, where: str, hdtype: str) -> Iterator[str]:
    if disk.get("is_cdrom"):
        yield (
            f"{where} is a CD-ROM drive, which libxl cannot replicate, and it then refuses COLO "
            "altogether; take it out of the configuration."
        )
        return
    if not disk.get("pdev_path"):
        yield f"{where} has no target; give it a file or a block device."
    if disk.get("script"):
        yield f"{where} has a block script, which QEMU cannot run; attach it to dom0 itself."
    if disk.get("format", "raw") not in ("raw", "unknown"):
        yield (
            f"{where} has the format {disk['format']}, and only raw is known to be replicated; "
            "convert it: qemu-img convert -O raw."
        )
    if disk.get("backend", "unknown") not in ("unknown", "phy", "qdisk"):
        yield (
            f"{where} has the backend {disk['backend']}, and only QEMU replicates; set "
            "backendtype=qdisk."
        )
    if disk.get("specification", "xen") not in ("xen", "unknown"):
        yield f"{where} is a virtio device; set specification=xen."
    # libxl leaves out numbers that are 0.
    if not disk.get("readwrite"):
        yield f"{where} is read-only, and libxl replicates what is written; take it out."
    if not _EMULATED_DISK.fullmatch(str(disk.get("vdev", ""))):
        yield f"{where} is not among those that QEMU emulates; name it hda."
    elif hdtype == "ahci" and not str(disk["vdev"]).startswith("sd"):
        yield f'{where} is on AHCI, where libxl silently replicates nothing; set hdtype="ide".'
    if owner := driver_domain(disk):
        yield f"{where} is backed by the driver domain {owner}; put its backend into dom0."
