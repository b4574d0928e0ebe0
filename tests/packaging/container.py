"""A throwaway Debian 12 under systemd-nspawn: its own systemd, network and processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.xen.image import SUITE, hashed, made, mirror
from tests.xen.process import CACHE, Completed, LabUnavailableError, run

PACKAGES = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-apt",
    "iproute2",
    "man-db",
    "kmod",
    "ansible-core",
    "python3-cffi-backend",  # debootstrap does not look for who provides its virtual names
]
NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
}
BOOT_S = 180.0


def base_tree() -> Path:
    """Return a Debian 12 that has what the package depends on; made once, in minutes.

    Raises:
        LabUnavailableError: When this machine cannot make it.
    """
    missing = [package for name, package in NEEDED.items() if shutil.which(name) is None]
    if missing:
        raise LabUnavailableError(f"apt-get install {' '.join(missing)}")
    folder = CACHE / f"container-{hashed([SUITE, *PACKAGES])}"
    with made(folder) as unfinished:
        if unfinished:
            argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE]
            done = run([*argv, unfinished / "root", mirror()], timeout_s=3600, check=False)
            run(["umount", unfinished / "root/proc"], check=False)
            if done.status != 0:
                raise LabUnavailableError(f"debootstrap failed: {done.stdout[-2000:]}")
            # Empty: one is made at boot. Missing would be a first boot, with its questions.
            (unfinished / "root/etc/machine-id").write_text("")
    return folder / "root"


class Container:
    """A tree that looks like `base` and keeps its changes in `scratch`, booted."""

    def __init__(self, base: Path, scratch: Path) -> None:
        """Mount the tree; nothing runs before `boot`."""
        self.root = scratch / "root"
        for name in ("root", "upper", "work"):
            (scratch / name).mkdir()
        layers = f"lowerdir={base},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
        run(["mount", "-t", "overlay", "overlay", "-o", layers, self.root])
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        """Start its systemd and wait until that has started everything."""
        options = ["--register=no", "--keep-unit", "--private-network", "--link-journal=no"]
        self._nspawn = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", self.root, *options, "--console=pipe", "--boot"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        until(lambda: bool(children.read_text().split()), "the container has a first process")
        self._leader = int(children.read_text().split()[0])
        until(lambda: self.run("systemctl is-system-running", check=False).status == 0, "it booted")

    def run(self, command: str, *, check: bool = True, timeout_s: float = 300) -> Completed:
        """Run a command of the shell in it, as root."""
        inside = [
            "nsenter",
            f"--target={self._leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        ]
        return run([*inside, "sh", "-c", command], check=check, timeout_s=timeout_s)

    def put(self, path: str, text: str) -> None:
        """Write a file in it, with the folders above it."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def copy_in(self, source: Path) -> str:
        """Copy a file into its /root and return its path there."""
        shutil.copy(source, self.root / "root")
        return f"/root/{source.name}"

    def close(self) -> None:
        """End everything in it and unmount it."""
        if self._leader:  # with the first process of its namespace the kernel ends all others
            os.kill(self._leader, signal.SIGKILL)
        if self._nspawn is not None:
            self._nspawn.send_signal(signal.SIGKILL)
            self._nspawn.wait(60)
        until(lambda: run(["umount", self.root], check=False).status == 0, "it is unmounted")


def until(check: Callable[[], bool], what: str, *, limit_s: float = BOOT_S) -> None:
    """Poll until `check` holds."""
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.2)
