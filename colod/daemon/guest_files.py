"""The guests' configuration files here: what a guest is started from, and what starts it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from colod.daemon.parts import Parts
from colod.errors import ToolstackError
from colod.model import GuestName

_AUTO: Final = "auto"
"""Directory beside the files: xendomains starts what is in it. Source: Xen's xendomains script."""
_MOST_LOOKED_AT: Final = 64


def file_of(parts: Parts, guest: GuestName) -> Path:
    """Return where the guest's configuration file is."""
    return parts.limits.guest_configs / f"{guest}.cfg"


async def check(parts: Parts, guest: GuestName) -> Path:
    """Return the guest's file, once xl has read it and it is this guest's.

    Raises:
        ToolstackError: If it is not there, or of no use, or of another guest.
    """
    await _config(parts, guest)
    return file_of(parts, guest)


async def warnings(parts: Parts, guest: GuestName) -> Sequence[str]:
    """Return what the operator should know of the guest's files."""
    found = []
    try:
        config = await _config(parts, guest)
    except ToolstackError as error:
        found.append(
            f"Once it is protected it stays down when it reboots: put its configuration to "
            f"{file_of(parts, guest)} on both hosts ({error.stderr_tail or error})."
        )
    else:
        if not all(map(_has_address, config.get("nics", []))):
            found.append(
                "A reboot gives it other network addresses: put mac= to each vif in "
                f"{file_of(parts, guest)}."
            )
    for path in await asyncio.to_thread(_entries, parts.limits.guest_configs / _AUTO):
        if await _is_of(parts, path, guest):
            found.append(
                f"xendomains starts it at boot, while the other host may run it: remove {path}, "
                "on both hosts."
            )
    return found


async def _config(parts: Parts, guest: GuestName) -> Mapping[str, Any]:
    file = file_of(parts, guest)
    config = await parts.toolstack.file_config(file)
    if (name := _name(config)) != guest:
        raise ToolstackError(("xl", "create", str(file)), 0, f"it is of {name!r}")
    return config


def _name(config: Mapping[str, Any]) -> str:
    created = config.get("c_info")
    return str(created.get("name", "")) if isinstance(created, dict) else ""


def _has_address(nic: object) -> bool:
    """Whether a network interface has an address of its own: libxl leaves out one to be made."""
    return isinstance(nic, dict) and bool(nic.get("mac"))


def _entries(directory: Path) -> Sequence[Path]:
    try:
        return sorted(directory.iterdir())[:_MOST_LOOKED_AT]
    except OSError:
        return ()


async def _is_of(parts: Parts, path: Path, guest: GuestName) -> bool:
    try:
        return _name(await parts.toolstack.file_config(path)) == guest
    except ToolstackError:
        return False
