"""The COLO keys of a guest's xl configuration: its interface's and its disks'. Pure.

    primary                                                      secondary
    net0 ─ m1 mirror ──────────────▶ mirror (listens) ◀──────── red0 ─ rs1 ─▶ net0
    net0 ─ r2 redirector ─▶ primary (listens) ◀── proxy
    net0 ◀─ r1 redirector ── out (listens) ◀──── proxy
                             secondary: proxy (listens) ◀────── red1 ─ rs2 ◀─ rs3 rewriter ◀─ net0
                             notify:    proxy (listens) ◀── libxl

One configuration has the keys of both hosts: xl sends it over, and libxl heeds those of the primary
where it creates a guest and those of the secondary where it receives one.

With QEMU's own comparator, QEMU listens at the places where the proxy does, and the objects that
connect to it are clients in the same process. libxl takes either set: it makes a socket where id,
address and port of it are given, a filter where its queue and socket are, and colo-compare where
all four of its sockets are.

Spec: Xen tools/xl/xl_parse.c, parse_nic_config() (names of the keys; each has the prefix `colo_`);
tools/libs/light/libxl_dm.c, APPEND_COLO_SOCK_SERVER and _CLIENT (what becomes of them);
tools/libs/light/libxl_create.c (`colo_restore_enable`); tools/xl/xl_vmcontrol.c, create_domain();
tools/libs/util/libxlu_disk_l.l (keys of the disk; "should be considered unstable").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from ipaddress import AddressValueError, IPv4Address
from pathlib import PurePosixPath

from colod.errors import ConfigError

Keys = tuple[tuple[str, str], ...]
"""Keys and values in the order in which they are written."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_UNSAFE = re.compile(r"[,'\"\\\s\x00-\x1f\x7f]")
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoPorts:
    """TCP ports of one guest; each guest on a pair of hosts needs others.

    Attributes:
        mirror: Of the primary's QEMU, for the secondary's: what comes in for the guest.
        primary: Of the primary's QEMU, for the proxy: what the primary's copy sends.
        out: The same: what may leave.
        secondary: Of the proxy, for the secondary's QEMU: what the secondary's copy sends.
        notify: Of the proxy, for libxl.
        disk: Of the secondary's QEMU, for the primary's: what is written (NBD).
    """

    mirror: int = 9003
    primary: int = 9001
    out: int = 9005
    secondary: int = 9004
    notify: int = 9009
    disk: int = 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoDisk:
    """One disk, which both hosts have at the same path, equal at the start.

    Attributes:
        device: What the guest sees, such as `hda`.
        target: The file.
        active: On the secondary: what its copy writes since the last checkpoint, qcow2, empty.
        hidden: On the secondary: what the primary has overwritten since then, the same.
        export: The name by which both know it.
    """

    device: str
    target: str
    active: str
    hidden: str
    export: str = "colodisk0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoGuest:
    """What the keys are made of.

    Attributes:
        name: The guest's.
        mac: Of its one interface.
        bridge: To which that is connected.
        primary: IPv4 address of the host that runs it, on the replication network.
        secondary: Of the other host.
        disks: All that it has, one at most.
        ports: TCP ports.
        model: Of the interface that QEMU emulates.
        more: Further keys of the interface that the guest has, such as `script` and `vifname`.
    """

    name: str
    mac: str
    bridge: str
    primary: str
    secondary: str
    disks: Sequence[ColoDisk] = ()
    ports: ColoPorts = ColoPorts()
    model: str = "e1000"
    more: Keys = ()


def guest_lines(guest: ColoGuest, *, has_qemu_comparator: bool = False) -> str:
    """Return the lines `vif = …` and `disk = …` of a guest's xl configuration.

    They are for the host that runs the guest; after a failover, with both addresses exchanged, for
    the other one.

    Args:
        guest: The guest.
        has_qemu_comparator: Whether QEMU's colo-compare is used, and not colod's proxy.

    Raises:
        ConfigError: With every problem: a value that the syntax of xl cannot hold, an address that
            is none, the same port twice.
    """
    problems = list(_problems(guest))
    if problems:
        raise ConfigError(problems)
    vif = (("mac", guest.mac), ("bridge", guest.bridge), ("model", guest.model))
    # Only what QEMU emulates is compared, so there must be no PV interface beside it.
    own = (*vif, ("type", "ioemu"), *guest.more)
    keys = (*own, *interface_keys(guest, has_qemu_comparator))
    lines = [f"vif = [ '{','.join(f'{key}={value}' for key, value in keys)}' ]"]
    if guest.disks:
        disks = ", ".join(f"'{_disk(guest, each)}'" for each in guest.disks)
        lines.append(f"disk = [ {disks} ]")
    return "\n".join(lines) + "\n"


def interface_keys(guest: ColoGuest, has_qemu_comparator: bool) -> Keys:
    """Return the COLO keys of the guest's interface, with their prefix; nothing is checked."""
    primary = _qemu_comparator(guest) if has_qemu_comparator else _proxy(guest)
    keys = (*primary, *_checkpoint(guest), *_secondary(guest))
    return tuple((f"colo_{key}", value) for key, value in keys)


# -- interfaces


def _proxy(guest: ColoGuest) -> Keys:
    """Return the primary's keys: QEMU listens and the proxy connects, so that it can do so again.

    `sock_redirector0` is the way out, as it is with QEMU's comparator.
    """
    ports = guest.ports
    return (
        *_socket("sock_mirror", "mirror0", guest.primary, ports.mirror),
        *_socket("sock_compare_pri_in", "compare0", "127.0.0.1", ports.primary),
        *_socket("sock_redirector0", "compare_out", "127.0.0.1", ports.out),
        *_primary_filters(),
    )


def _qemu_comparator(guest: ColoGuest) -> Keys:
    ports = guest.ports
    return (
        *_socket("sock_mirror", "mirror0", guest.primary, ports.mirror),
        *_socket("sock_compare_pri_in", "compare0", "127.0.0.1", ports.primary),
        *_socket("sock_compare_sec_in", "compare1", guest.primary, ports.secondary),
        *_socket("sock_compare_notify", "notify", "127.0.0.1", ports.notify),
        *_socket("sock_redirector0", "compare_out", "127.0.0.1", ports.out),
        *_socket("sock_redirector1", "compare0-0", "127.0.0.1", ports.primary),
        *_socket("sock_redirector2", "compare_out0", "127.0.0.1", ports.out),
        *_primary_filters(),
        ("compare_pri_in", "compare0-0"),
        ("compare_sec_in", "compare1"),
        ("compare_out", "compare_out0"),
        ("compare_notify_dev", "notify"),
    )


def _primary_filters() -> Keys:
    """Return the filters of a primary; libxl makes them in this order whatever comes first here.

    A frame that may leave enters at redirector0, which stands behind redirector1 on the guest's way
    out, so it is not compared again. Source: QEMU net/net.c, filter_receive_iov().
    """
    return (
        ("filter_mirror_queue", "tx"),
        ("filter_mirror_outdev", "mirror0"),
        ("filter_redirector0_queue", "rx"),
        ("filter_redirector0_indev", "compare_out"),
        ("filter_redirector1_queue", "rx"),
        ("filter_redirector1_outdev", "compare0"),
    )


def _checkpoint(guest: ColoGuest) -> Keys:
    """Return where libxl finds the proxy. It takes an IPv4 address only, by inet_addr()."""
    return (("checkpoint_host", "127.0.0.1"), ("checkpoint_port", str(guest.ports.notify)))


def _secondary(guest: ColoGuest) -> Keys:
    ports = guest.ports
    return (
        *_socket("sock_sec_redirector0", "red0", guest.primary, ports.mirror),
        *_socket("sock_sec_redirector1", "red1", guest.primary, ports.secondary),
        ("filter_sec_redirector0_queue", "tx"),
        ("filter_sec_redirector0_indev", "red0"),
        ("filter_sec_redirector1_queue", "rx"),
        ("filter_sec_redirector1_outdev", "red1"),
        ("filter_sec_rewriter0_queue", "all"),
    )


def _socket(name: str, chardev: str, address: str, port: int) -> Keys:
    return ((f"{name}_id", chardev), (f"{name}_ip", address), (f"{name}_port", str(port)))


# -- disks


def _disk(guest: ColoGuest, disk: ColoDisk) -> str:
    """Return one disk; its path comes last, for xl takes the rest of the string for it."""
    return (
        f"format=raw,devtype=disk,access=w,vdev={disk.device},backendtype=qdisk,colo,"
        f"colo-host={guest.secondary},colo-port={guest.ports.disk},colo-export={disk.export},"
        f"active-disk={disk.active},hidden-disk={disk.hidden},target={disk.target}"
    )


# -- problems


def _problems(guest: ColoGuest) -> Iterable[str]:
    for path in ("name", "bridge", "model"):
        value = getattr(guest, path)
        if not _WORD.fullmatch(value):
            yield f"{path}: {value!r}: want letters, digits and _.+-, at most 63"
    if not _MAC.fullmatch(guest.mac):
        yield f"mac: {guest.mac!r}: want six pairs of hexadecimal digits"
    for path in ("primary", "secondary"):
        yield from _address_problems(path, getattr(guest, path))
    if guest.primary == guest.secondary:
        yield f"secondary: {guest.secondary}: the primary's address, too"
    for key, value in guest.more:
        if not _WORD.fullmatch(key) or not value or _UNSAFE.search(value):
            yield f"{key}: {value!r}: xl's syntax has no place for that"
    yield from _port_problems(guest.ports)
    yield from _disk_problems(guest.disks)


def _address_problems(path: str, value: str) -> Iterable[str]:
    try:
        IPv4Address(value)
    except AddressValueError:
        yield f"{path}: {value!r}: want an IPv4 address: libxl takes no other, and no name"


def _port_problems(ports: ColoPorts) -> Iterable[str]:
    seen: dict[int, str] = {}
    for field in fields(ports):
        port = getattr(ports, field.name)
        if not 0 < port <= _MAX_PORT:
            yield f"ports.{field.name}: {port}: want 1 to {_MAX_PORT}"
        elif port in seen:
            yield f"ports.{field.name}: {port}: taken by ports.{seen[port]}"
        seen.setdefault(port, field.name)


def _disk_problems(disks: Sequence[ColoDisk]) -> Iterable[str]:
    """Yield what is wrong with the disks.

    Source: libxl_dm.c, qemu_disk_ide_drive_string(): on the secondary each is `top-colo`, and QEMU
    takes a name once.
    """
    if len(disks) > 1:
        yield f"disks: {len(disks)}: want at most 1, as libxl gives all of them one name"
    seen: dict[tuple[str, str], int] = {}
    for number, disk in enumerate(disks):
        for path in ("device", "export"):
            value = getattr(disk, path)
            if not _WORD.fullmatch(value):
                yield f"disks.{number}.{path}: {value!r}: want letters, digits and _.+-"
            elif seen.setdefault((path, value), number) != number:
                yield f"disks.{number}.{path}: {value}: taken by disks.{seen[path, value]}"
        for path in ("target", "active", "hidden"):
            value = getattr(disk, path)
            if not PurePosixPath(value).is_absolute():
                yield f"disks.{number}.{path}: {value!r}: want an absolute path"
            elif _UNSAFE.search(value):
                yield f"disks.{number}.{path}: {value!r}: xl's syntax has no place for that"
        if len({disk.target, disk.active, disk.hidden}) < 3:
            yield f"disks.{number}: want three files, each another"
