"""Running programs for the lab, and saying why it cannot run."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("COLOD_LAB", REPOSITORY / ".lab"))

PROGRAM_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "debootstrap": "debootstrap",
    "cpio": "cpio",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "gcc": "gcc",
    "etcd": "etcd-server",
}
FILE_PACKAGES = {
    "/usr/lib/x86_64-linux-gnu/libc.a": "libc6-dev",
    "/usr/share/qemu/multiboot.bin": "qemu-system-data",
    "/usr/share/seabios/bios.bin": "seabios",
}


class LabUnavailableError(Exception):
    """This machine cannot run the lab; the message says why. Not a failure of what is tested."""


class CommandFailed(AssertionError):
    """A command that had to succeed did not."""


@dataclass(frozen=True)
class Completed:
    """What a finished command left: its exit status and its output as text."""

    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = 120,
    check: bool = True,
    stdin: str | bytes = b"",
) -> Completed:
    """Run a program to its end.

    Args:
        argv: Program and arguments; no shell.
        timeout_s: Seconds after which it is killed and `subprocess.TimeoutExpired` raised.
        check: Whether a status other than 0 is an error.
        stdin: What it reads.

    Raises:
        CommandFailed: With `check`, when the status is not 0.
    """
    done = subprocess.run(
        [str(word) for word in argv],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    completed = Completed(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check and completed.status != 0:
        raise CommandFailed(f"{list(map(str, argv))}: {completed}")
    return completed


def require_root() -> None:
    """Raise LabUnavailableError unless this process is root."""
    if os.geteuid() != 0:
        raise LabUnavailableError("it needs root (network namespaces, taps, chroot)")


def ensure_packages() -> None:
    """Install the Debian packages that are missing.

    Raises:
        LabUnavailableError: When they cannot be installed.
    """
    missing = {package for name, package in PROGRAM_PACKAGES.items() if not shutil.which(name)}
    missing |= {package for path, package in FILE_PACKAGES.items() if not Path(path).exists()}
    if not _static_busybox():
        missing.add("busybox-static")
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise LabUnavailableError(f"not a Debian machine, and {sorted(missing)} are missing")
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    options = ["-y", "-q", "--no-install-recommends"]
    install = ["apt-get", *wait, "install", *options, *sorted(missing)]
    run(["apt-get", "update", "-q"], timeout_s=300, check=False)
    done = run([*environment, *install], timeout_s=900, check=False)
    if done.status != 0:
        raise LabUnavailableError(f"apt-get could not install {sorted(missing)}: {done.stderr}")


def _static_busybox() -> bool:
    busybox = shutil.which("busybox")
    return busybox is not None and b"ld-linux" not in Path(busybox).read_bytes()
