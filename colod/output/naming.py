"""What colod calls its own network devices, and what it writes on them, to know them again."""

from __future__ import annotations

import hashlib
import re

EMULATED_SUFFIX = "-emu"
"""What libxl appends to the vif's name for an HVM guest's emulated twin.

Source: Xen tools/libs/light/libxl_nic.c, libxl__device_nic_devname().
"""

MAX_ALIAS_BYTES = 255
"""Longest alias of a device. Source: Linux include/uapi/linux/if.h, IFALIASZ."""

_VIF = re.compile(r"vif(\d{1,5})\.(\d{1,3})(-emu)?")
_IFB = re.compile(r"colod(\d{1,5})\.(\d{1,3})(e?)")
_HASHED = re.compile(r"colod-[0-9a-f]{8}")
_PARENT = re.compile(r"vif-(\d+)-\d+")


def ifb_of(interface: str) -> str:
    """Return the name of the interface's ifb: always the same, at most 15 characters.

    Such names are colod's: an ifb that has one is taken for what colod left.
    """
    if match := _VIF.fullmatch(interface):
        return f"colod{match[1]}.{match[2]}{'e' if match[3] else ''}"
    return f"colod-{hashlib.sha256(interface.encode()).hexdigest()[:8]}"


def alias_of(interface: str, label: str) -> str:
    """Return what is written on that ifb.

    Args:
        interface: Its interface.
        label: Whose gate it is, for people: the guest and the pairing.
    """
    return f"colod vif={interface} {label}".strip()[:MAX_ALIAS_BYTES]


def read_back(ifb: str, alias: str) -> tuple[str, str] | None:
    """Return the interface and the label of an ifb, None if it is none of colod's.

    A crash between creating and labelling leaves one without alias, whose interface is told by its
    name, or is "": nothing is redirected to it yet.
    """
    plain = _IFB.fullmatch(ifb)
    if plain is None and not _HASHED.fullmatch(ifb):
        return None
    mark, _, rest = alias.partition(" ")
    if mark == "colod" and rest.startswith("vif="):
        interface, _, label = rest.removeprefix("vif=").partition(" ")
        return interface, label
    if plain is None:
        return "", ""
    return f"vif{plain[1]}.{plain[2]}{EMULATED_SUFFIX if plain[3] else ''}", ""


def domid_of(name: str, parent: str) -> int | None:
    """Return the domain whose vif a device of dom0 is, None if it is none.

    Args:
        name: Its name, which the operator may have chosen.
        parent: The device that it belongs to, as netback's `vif-3-0`; "" if it has none.
    """
    match = _PARENT.fullmatch(parent) or _VIF.fullmatch(name)
    return int(match[1]) if match else None
