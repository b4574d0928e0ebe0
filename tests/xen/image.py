"""The lab hosts' disk image: a Debian dom0 with Xen, colod's dependencies and the lab's guest.

Everything is kept in `.lab/` under names that hold a hash of what it was made from, so that a
part is rebuilt exactly when its inputs change.
"""

import contextlib
import gzip
import hashlib
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.xen.process import CACHE, REPOSITORY, LabUnavailableError, run

SUITE = "bookworm"
PACKAGES = [
    "systemd",
    "systemd-sysv",
    "udev",
    "kmod",
    "iproute2",
    "linux-image-amd64",
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "qemu-system-xen",
    "xenstore-utils",
    "bridge-utils",
    "python3",
    "python3-venv",
    "openssh-server",
    "procps",
    "dbus",
    "tcpdump",
    "iputils-ping",
    "nftables",
]
EXTRA_DEPENDENCIES = ["numpy", "zstandard"]
GUEST_MODULES = [
    "drivers/net/xen-netfront.ko",
    "drivers/block/xen-blkfront.ko",
    "drivers/net/ethernet/intel/e1000/e1000.ko",
]
INITRD_MODULES = "virtio_pci\nvirtio_blk\nvirtio_net\next4\n"
MASKED_UNITS = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "getty@tty1.service",
    "xendomains.service",
]
USELESS = ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"]
USELESS += ["usr/share/locale", "wheels"]
DISK_SIZE = "4G"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Image:
    """What a host boots from, and the key of what it was made from."""

    folder: Path

    @property
    def key(self) -> str:
        """Return the hash of everything that the image was made from."""
        return self.folder.name.partition("-")[2]

    @property
    def disk(self) -> Path:
        """Return the raw disk image; nothing may write to it."""
        return self.folder / "dom0.img"

    @property
    def ssh_key(self) -> Path:
        """Return the private key that every host trusts."""
        return self.folder / "id_ed25519"

    def boot_file(self, name: str) -> Path:
        """Return one of `xen`, `vmlinuz`, `initrd.img`."""
        return self.folder / name


def build_image(say: Callable[[str], None] = print) -> Image:
    """Build the image, or find it built from the same inputs.

    Raises:
        LabUnavailableError: When this machine cannot build it.
    """
    own = file_inputs(HERE / "dom0", HERE / "guest_image")
    key = hashed([*_tree_inputs(), *_wheel_inputs(), *own])
    image = Image(CACHE / f"image-{key}")
    with made(image.folder) as unfinished:
        if unfinished:
            _fill(unfinished, say)
    return image


def hashed(parts: Iterable[str]) -> str:
    """Return a short hash of an ordered list of strings."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def file_inputs(*folders: Path) -> list[str]:
    """Return names, modes and contents of all files below some folders, in a fixed order."""
    return [
        f"{path.relative_to(folder)} {path.stat().st_mode:o} {_digest(path)}"
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def made(folder: Path) -> Iterator[Path | None]:
    """Give a scratch folder that becomes `folder` at the end; None when it exists already.

    Folders of the same kind (the part of the name before the first `-`) with another hash are
    removed: only the newest is kept.
    """
    if folder.exists():
        yield None
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    for other in folder.parent.glob(folder.name.partition("-")[0] + "-*"):
        if other != unfinished:
            shutil.rmtree(other)
    unfinished.rename(folder)


def _tree_inputs() -> list[str]:
    return [SUITE, *PACKAGES]


def _wheel_inputs() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*sorted(project["dependencies"]), *EXTRA_DEPENDENCIES]


def _fill(folder: Path, say: Callable[[str], None]) -> None:
    root = folder / "root"
    run(["cp", "-a", _debian_tree(say) / "root", root], timeout_s=300)
    say("lab image: colod's dependencies, guest, configuration")
    shutil.copytree(HERE / "dom0", root, dirs_exist_ok=True, symlinks=True)
    _install_dependencies(root, _wheelhouse())
    _install_guest(root)
    _install_ssh_key(root, folder)
    _configure(root)
    _copy_boot_files(root, folder)
    for path in USELESS:
        shutil.rmtree(root / path, ignore_errors=True)
    say("lab image: file system")
    run(["mke2fs", "-q", "-t", "ext4", "-d", root, "-F", folder / "dom0.img", DISK_SIZE])
    shutil.rmtree(root)


def mirror() -> str:
    """Return the Debian mirror that this machine's own apt uses."""
    line_format = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    targets = run(["apt-get", "indextargets", "--format", line_format, "Created-By: Packages"])
    for line in targets.stdout.splitlines():
        release, component, uri = line.split(maxsplit=2)
        if (release, component) == (SUITE, "main"):
            return uri
    raise LabUnavailableError(f"apt knows no mirror of Debian {SUITE}")


def _debian_tree(say: Callable[[str], None]) -> Path:
    folder = CACHE / f"debian-{hashed(_tree_inputs())}"
    with made(folder) as unfinished:
        if unfinished:
            say("lab image: debootstrap (minutes)")
            include = f"--include={','.join(PACKAGES)}"
            argv = ["debootstrap", "--variant=minbase", include, SUITE]
            done = run([*argv, unfinished / "root", mirror()], timeout_s=1800, check=False)
            run(["umount", unfinished / "root/proc"], check=False)
            if done.status != 0:
                raise LabUnavailableError(f"debootstrap failed: {done.stdout[-2000:]}")
    return folder


def _wheelhouse() -> Path:
    folder = CACHE / f"wheels-{hashed(_wheel_inputs())}"
    with made(folder) as unfinished:
        if unfinished:
            options = ["--quiet", "--only-binary=:all:", "--dest", str(unfinished)]
            argv = [sys.executable, "-m", "pip", "download", *options, *_wheel_inputs()]
            done = run(argv, timeout_s=900, check=False)
            if done.status != 0:
                raise LabUnavailableError(f"pip download failed: {done.stderr[-2000:]}")
    return folder


def _install_dependencies(root: Path, wheels: Path) -> None:
    shutil.copytree(wheels, root / "wheels")
    _chroot(root, "python3", "-m", "venv", "/opt/colod")
    pip = ["/opt/colod/bin/pip", "install", "--quiet", "--no-index", "--find-links=/wheels"]
    _chroot(root, *pip, *_wheel_inputs())
    _chroot(root, "python3", "-m", "compileall", "-q", "-j", "0", "/opt/colod", "/usr/lib/python3")


def _install_guest(root: Path) -> None:
    """Put kernel and initial file system of the lab's guest in /opt/lab."""
    tree = root / "opt/lab/guest"
    for name in ("bin", "proc", "sys", "dev", "modules", "sbin"):
        (tree / name).mkdir(parents=True)
    modules = next((root / "lib/modules").iterdir()) / "kernel"
    for module in GUEST_MODULES:
        shutil.copy(modules / module, tree / "modules")
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
    shutil.copy(HERE / "guest_image/init", tree / "init")
    source = HERE / "guest_image/counter.c"
    run(["gcc", "-O2", "-Wall", "-Werror", "-static", "-s", "-o", tree / "counter", source])
    # The kernel calls these two for `xl shutdown` and `xl reboot`.
    for name in ("poweroff", "reboot"):
        (tree / "sbin" / name).write_text(f"#!/bin/busybox sh\nexec /bin/busybox {name} -f\n")
        (tree / "sbin" / name).chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in [tree, *sorted(tree.rglob("*"))])
    archive = ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", "-D", str(tree)]
    run(["sh", "-c", f"{' '.join(archive)} > {tree}.cpio"], stdin=names)
    plain = tree.with_suffix(".cpio")
    (root / "opt/lab/guest.cpio.gz").write_bytes(gzip.compress(plain.read_bytes(), 9, mtime=0))
    plain.unlink()
    shutil.rmtree(tree)
    shutil.copy(next((root / "boot").glob("vmlinuz-*")), root / "opt/lab/vmlinuz")


def _install_ssh_key(root: Path, folder: Path) -> None:
    """Make the key that this machine and the two hosts use between each other."""
    key = folder / "id_ed25519"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key])
    home = root / "root/.ssh"
    home.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(key, home / "id_ed25519")
    shutil.copy(folder / "id_ed25519.pub", home / "authorized_keys")
    (home / "config").write_text(
        "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
    )


def _configure(root: Path) -> None:
    (root / "etc/machine-id").write_text("")
    (root / "var/log/journal").mkdir(parents=True, exist_ok=True)
    _chroot(root, "systemctl", "enable", "labhost.service", "ssh.service")
    _chroot(root, "systemctl", "mask", *MASKED_UNITS)
    _chroot(root, "update-rc.d", "xendomains", "disable")
    settings = root / "etc/initramfs-tools/initramfs.conf"
    settings.write_text(settings.read_text().replace("MODULES=most", "MODULES=list"))
    (root / "etc/initramfs-tools/modules").write_text(INITRD_MODULES)
    _chroot(root, "update-initramfs", "-u")


def _copy_boot_files(root: Path, folder: Path) -> None:
    boot = root / "boot"
    shutil.copy(next(boot.glob("vmlinuz-*")), folder / "vmlinuz")
    shutil.copy(next(boot.glob("initrd.img-*")), folder / "initrd.img")
    hypervisor = next(boot.glob("xen-*-amd64.gz"))
    (folder / "xen").write_bytes(gzip.decompress(hypervisor.read_bytes()))


def _chroot(root: Path, *argv: str) -> None:
    environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
    run(["chroot", root, *environment, *argv], timeout_s=900)
