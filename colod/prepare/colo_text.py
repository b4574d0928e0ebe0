"""Write a guest's xl configuration with COLO's keys: its own, and a block that overrides. Pure.

The file is not parsed: xl takes the last of several settings of one name, so what follows the
guest's own lines replaces its `vif` and `disk`, and everything else stays as it is.

Source: Xen tools/libs/util/libxlu_cfg.c, xlu__cfg_set_store() puts a setting first, and find()
takes the first; xl.cfg(5) and xl(1), `create`, where KEY=VALUE overrides the file the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from colod.output.colo.guest_keys import ColoGuest, guest_lines
from colod.output.colo.guest_ports import numbers

BEGIN = "# >>> COLO, made by `colodctl colo config`; what is between these lines is made anew"
END = "# <<< COLO"


def with_colo(own: str, guest: ColoGuest, comments: Iterable[str]) -> str:
    """Return a configuration with COLO's keys.

    Args:
        own: The guest's own file, or "" for the block alone. A block in it is replaced.
        guest: What the keys are made of.
        comments: What is to be said there, one line each.

    Raises:
        ConfigError: If the keys have a value that no configuration can hold.
    """
    lines = [BEGIN, *(f"# {each}" for each in comments), *guest_lines(guest).splitlines(), END]
    kept = without_colo(own)
    head = f"{kept.rstrip()}\n\n" if kept.strip() else ""
    return head + "\n".join(lines) + "\n"


def without_colo(text: str) -> str:
    """Return a configuration without the block, if both of its lines are there."""
    before, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    return before + after if begin and end else text


def notes(guest: ColoGuest, size_bytes: int | None) -> Sequence[str]:
    """Return what has to be so besides, for both hosts.

    Args:
        guest: The guest.
        size_bytes: Of its disk; None where it is not known, or there is none.
    """
    ports = ", ".join(map(str, numbers(guest.ports)))
    found = [
        f"TCP ports {ports} are this guest's on both hosts; nothing else may listen there.",
        "Only what QEMU emulates is compared: the guest must not use PV drivers (Linux: "
        "xen_emul_unplug=never on its command line).",
    ]
    for disk in guest.disks:
        size = str(size_bytes) if size_bytes else "SIZE"
        found += [
            f"{disk.target} has to be on both hosts, and the same on both when COLO begins.",
            *(
                f"On both hosts, empty when COLO begins: qemu-img create -f qcow2 {path} {size}"
                for path in (disk.active, disk.hidden)
            ),
        ]
        if not size_bytes:
            found.append(f"SIZE is that of {disk.target} in bytes.")
    return found
