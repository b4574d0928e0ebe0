"""What a host lacks is looked up in its file system."""

import platform
from pathlib import Path

from colod.toolstack.inventory import take_stock
from colod.toolstack.preflight import GATE_MODULES, Needs

NEEDS = Needs(bridges=("br0", "br1"), files=("/boot/there", "/boot/gone"), disks=("/dev/gone",))


def make_host(root: Path) -> None:
    (root / "sys/class/net/br0").mkdir(parents=True)
    (root / "sys/module/ifb").mkdir(parents=True)
    modules = root / "lib/modules" / platform.release()
    modules.mkdir(parents=True)
    dependencies = "kernel/net/sched/sch_plug.ko.xz: kernel/x.ko\nkernel/net/act-mirred.ko:\n"
    (modules / "modules.dep").write_text(dependencies, encoding="utf-8")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   783360 kB\n", "utf-8")
    (root / "boot").mkdir()
    (root / "boot/there").touch()


async def test_what_is_missing_is_found(tmp_path: Path) -> None:
    make_host(tmp_path)
    stock = await take_stock(NEEDS, simulated=False, root=tmp_path)
    assert stock.missing == Needs(bridges=("br1",), files=("/boot/gone",), disks=("/dev/gone",))
    assert stock.missing_modules == ()
    assert stock.dom0_available_bytes == 765 << 20


async def test_modules_that_are_nowhere_are_missing(tmp_path: Path) -> None:
    stock = await take_stock(NEEDS, simulated=False, root=tmp_path)
    assert stock.missing_modules == GATE_MODULES
    assert stock.dom0_available_bytes == 0


async def test_the_simulated_xen_needs_neither_bridges_nor_modules(tmp_path: Path) -> None:
    stock = await take_stock(NEEDS, simulated=True, root=tmp_path)
    assert stock.missing.bridges == ()
    assert stock.missing_modules == ()
    assert stock.missing.files == NEEDS.files


async def test_what_cannot_be_looked_at_is_missing(tmp_path: Path) -> None:
    """A stale mount below a guest's kernel is no reason for the daemon to die."""
    name = "/boot/" + "x" * 300  # ENAMETOOLONG, as ESTALE and ENOTCONN are, is raised by `exists`
    stock = await take_stock(Needs(files=(name,)), simulated=False, root=tmp_path)
    assert stock.missing.files == (name,)
