"""Look up what a host has of what a guest needs (the I/O of `preflight`)."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path

from colod.toolstack.preflight import GATE_MODULES, Inventory, Needs


async def take_stock(needs: Needs, *, simulated: bool, root: Path = Path("/")) -> Inventory:
    """Return which of `needs` this host lacks.

    Args:
        needs: Of the guest.
        simulated: Whether this is the simulated Xen: its bridges exist in the simulation only, and
            it asks nothing of the kernel.
        root: Where the host's file system begins.
    """
    return await asyncio.to_thread(_take_stock, needs, simulated, root)


def _take_stock(needs: Needs, simulated: bool, root: Path) -> Inventory:
    missing = Needs(
        bridges=() if simulated else _absent(needs.bridges, root / "sys/class/net"),
        files=_absent(needs.files, root),
        disks=_absent(needs.disks, root),
    )
    modules = () if simulated else _missing_modules(root)
    return Inventory(
        missing=missing, missing_modules=modules, dom0_available_bytes=_available_bytes(root)
    )


def _absent(names: tuple[str, ...], below: Path) -> tuple[str, ...]:
    return tuple(name for name in names if not _exists(below / name.lstrip("/")))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # what cannot be looked at, such as a stale mount, is no use to a guest
        return False


def _missing_modules(root: Path) -> tuple[str, ...]:
    """Return the gate's modules that are neither loaded nor built in nor on the disk."""
    directory = root / "lib/modules" / platform.release()
    known = {
        Path(line.partition(":")[0]).name.partition(".")[0].replace("-", "_")
        for index in ("modules.dep", "modules.builtin")
        for line in _lines(directory / index)
    }
    loaded = root / "sys/module"
    return tuple(name for name in GATE_MODULES if name not in known and not _exists(loaded / name))


def _available_bytes(root: Path) -> int:
    """Read MemAvailable. Spec: proc(5), /proc/meminfo."""
    for line in _lines(root / "proc/meminfo"):
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) << 10
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
