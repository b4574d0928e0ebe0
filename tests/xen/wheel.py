"""colod's wheel, built from the working tree, and its installation in a dom0."""

import shutil
import sys
from pathlib import Path

from tests.xen.host import Host
from tests.xen.image import file_inputs, made
from tests.xen.process import CACHE, REPOSITORY, CommandFailed, run

SOURCES = ["colod", "systemd"]
BUILD_FILES = ["pyproject.toml", "README.md", "LICENSE"]
PROGRAMS = ["colod", "colodctl", "colod-session"]
PIP = "/opt/colod/bin/pip install --quiet --no-deps --no-index --force-reinstall --no-compile"


def source_inputs() -> list[str]:
    """Return what the installed colod is made from, for a cache key."""
    sources = [line for line in file_inputs(*_source_folders()) if "__pycache__" not in line]
    return [*sources, *((REPOSITORY / name).read_text() for name in BUILD_FILES)]


def build_wheel(key: str) -> Path:
    """Build colod's wheel from a clean copy of the working tree.

    A copy, because setuptools' `build/` would carry modules that no longer exist.
    """
    folder = CACHE / f"wheel-{key}"
    with made(folder) as unfinished:
        if unfinished:
            tree = unfinished / "tree"
            tree.mkdir()
            for name in BUILD_FILES:
                shutil.copy(REPOSITORY / name, tree)
            shutil.copytree(REPOSITORY / "colod", tree / "colod", ignore=_ignored)
            build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(unfinished)]
            run([*build, tree], timeout_s=600)
            shutil.rmtree(tree)
    return next(folder.glob("*.whl"))


def install_wheel(host: Host, wheel: Path) -> None:
    """Install colod in a dom0: package, programs on the path, systemd units."""
    remote = f"/root/{wheel.name}"
    host.put(wheel, remote)
    compiled = "/opt/colod/bin/python -m compileall -q /opt/colod/lib/python3*/site-packages/colod"
    host.run(f"{PIP} {remote} && {compiled}", timeout_s=300)
    programs = " ".join(f"/opt/colod/bin/{name}" for name in PROGRAMS)
    host.run(f"ln -sf {programs} /usr/local/bin/")
    _install_units(host)


def _install_units(host: Host) -> None:
    for path in sorted((REPOSITORY / "systemd").glob("*")):
        if path.is_file():
            host.put(path, f"{_unit_folder(path.name)}/{path.name}")
    host.run("systemd-sysusers; systemd-tmpfiles --create", check=False, timeout_s=120)
    host.run("systemctl daemon-reload", timeout_s=120)


def _unit_folder(name: str) -> str:
    if not name.endswith(".conf"):
        return "/etc/systemd/system"
    for kind in ("sysusers", "tmpfiles"):
        if kind in name:
            return f"/etc/{kind}.d"
    raise CommandFailed(f"systemd/{name}: the lab does not know where it belongs")


def _source_folders() -> list[Path]:
    return [REPOSITORY / name for name in SOURCES]


def _ignored(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}
