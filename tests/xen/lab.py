"""The lab: two nested hosts with real Xen, a witness and a client, on this machine alone.

python -m tests.xen.lab image             build image and booted snapshot
python -m tests.xen.lab up                start the pair and leave it running
python -m tests.xen.lab status            what runs
python -m tests.xen.lab ssh N [CMD...]    a command, or a shell, on host 1 (alpha) or 2 (beta)
python -m tests.xen.lab down              end it
"""

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TextIO

from tests.xen import wheel
from tests.xen.guest import CONFIG, CONFIGS, NAME, GuestClient, Kind
from tests.xen.host import LINUX_LINE, MACHINE, NUMBERS, XEN_LINE, Host
from tests.xen.image import Image, build_image, hashed, made
from tests.xen.net import NETWORKS, Namespace
from tests.xen.process import (
    CACHE,
    CommandFailed,
    LabUnavailableError,
    ensure_packages,
    require_root,
    run,
)
from tests.xen.witness import Etcd

SNAPSHOT = "lab"
KEPT = CACHE / "kept"
LOCK_S = 3600.0
BOOT_ATTEMPTS = 2


class Lab:
    """Two hosts, `alpha` and `beta`, their networks, the witness and the guest's client.

    One lab runs per working copy at a time: a second one waits for the first to end, and is
    refused while one that `up` started is kept running.
    """

    def __init__(self, image: Image, say: Callable[[str], None] = print) -> None:
        self._say = say
        self._image = image
        self._lock: TextIO | None = None
        self.namespace = Namespace()
        runtime = CACHE / "run"
        self.alpha = Host("alpha", self.namespace, image, runtime / "alpha")
        self.beta = Host("beta", self.namespace, image, runtime / "beta")
        self.witness = Etcd(self.namespace, runtime / "etcd")
        self.client = GuestClient(self.namespace)

    @classmethod
    def start(cls, say: Callable[[str], None] = print) -> Self:
        """Prepare image, networks and booted snapshot; then call `restore` to get hosts.

        Raises:
            LabUnavailableError: When this machine cannot run the lab.
        """
        require_root()
        ensure_packages()
        lock = _locked(say)
        _refuse_a_lab_in_use()
        lab = cls(build_image(say), say)
        lab._lock = lock
        lab._replace_earlier()
        lab._boot_once()
        return lab

    @property
    def hosts(self) -> list[Host]:
        """Return both hosts, alpha first."""
        return [self.alpha, self.beta]

    def restore(self, *, installed: bool = True) -> None:
        """Give both hosts a known state: the guest runs on alpha, the witness is empty.

        Args:
            installed: Whether colod, as it is in the working tree, is installed there.
        """
        folder = self.installed_folder if installed else self._ready_folder()
        if not folder.exists():
            self.deploy()
        self._restore_from(folder)

    def replace_guest(self, kind: Kind) -> None:
        """Start a guest of another kind on alpha in the place of the one that runs there."""
        self.alpha.run(f"xl destroy {NAME}", timeout_s=120)
        self.alpha.run(f"xl create {CONFIGS[kind]}", timeout_s=300)
        self.client.wait_for_answer(400)

    def deploy(self, path: Path | None = None) -> None:
        """Install a wheel (the working tree's by default) and keep the result as a snapshot."""
        self._say("lab: installing colod in both hosts")
        folder = self.installed_folder
        package = path or wheel.build_wheel(folder.name.partition("-")[2])
        self._restore_from(self._ready_folder())
        self._both(lambda host: wheel.install_wheel(host, package))
        self._keep_snapshot(folder)

    @functools.cached_property
    def installed_folder(self) -> Path:
        """Where hosts with the working tree's colod are kept; one tree for the lab's life."""
        key = hashed([self._ready_folder().name, *wheel.source_inputs()])
        return CACHE / f"installed-{key}"

    def client_counter(self) -> int:
        """Return the guest's counter, as a client outside sees it."""
        return self.client.read().counter

    def running_copies(self) -> list[str]:
        """Return the hosts on which a copy of a guest may execute instructions now."""
        return [
            f"{host.name}:{domain.name}"
            for host in self.hosts
            if host.pid() is not None
            for domain in host.domains().values()
            if domain.domid != 0 and not domain.is_paused() and not domain.is_suspended()
        ]

    def runs_only_on(self, host: Host, *, limit_s: float = 60.0) -> bool:
        """Wait until the guest is seen to run there, since checkpoints suspend it again and again.

        Returns:
            Whether that came about, and nothing else was seen to run in the meantime.
        """
        wanted, end = [f"{host.name}:{NAME}"], time.monotonic() + limit_s
        while time.monotonic() < end:
            found = self.running_copies()
            if found:
                return found == wanted
        return False

    def save_logs(self, name: str) -> Path:
        """Keep serial logs, journals and the witness's log under `.lab/logs/NAME`."""
        folder = CACHE / "logs" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for host in self.hosts:
            host.save_logs(folder)
        with contextlib.suppress(OSError):
            shutil.copy(CACHE / "run/etcd/etcd.log", folder)
        return folder

    def power_off(self) -> None:
        """Switch hosts and witness off."""
        for host in self.hosts:
            host.power_off()
        self.witness.kill()

    def close(self) -> None:
        """End everything that the lab started."""
        self.power_off()
        self.namespace.destroy()
        if self._lock:
            self._lock.close()

    def _replace_earlier(self) -> None:
        self.power_off()
        self.namespace.create()

    def _ready_folder(self) -> Path:
        version = run(["qemu-system-x86_64", "--version"]).stdout
        key = hashed(["guest", self._image.key, version, XEN_LINE, LINUX_LINE, *MACHINE])
        return CACHE / f"ready-{key}"

    def _boot_once(self) -> None:
        """Boot both hosts and keep their running state, unless that was done before."""
        folder = self._ready_folder()
        if folder.exists():
            return
        self._say("lab: first boot of both hosts (a minute or two)")
        for attempt in range(1, BOOT_ATTEMPTS + 1):
            try:
                self._both(_boot)
                self._start_guest()
                break
            except (LabUnavailableError, CommandFailed, subprocess.TimeoutExpired) as error:
                self._say(f"lab: boot {attempt} failed: {error}")
                if attempt == BOOT_ATTEMPTS:
                    raise LabUnavailableError(f"the hosts do not boot: {error}") from error
        self._keep_snapshot(folder)

    def _start_guest(self) -> None:
        self.alpha.run(f"xl create {CONFIG}", timeout_s=120)
        self.client.wait_for_answer(120)

    def _keep_snapshot(self, folder: Path) -> None:
        with made(folder) as unfinished:
            if unfinished:
                self._both(lambda host: host.save(SNAPSHOT))
                self._both(lambda host: host.copy_disk_to(unfinished / f"{host.name}.qcow2"))

    def _restore_from(self, folder: Path) -> None:
        self._both(lambda host: host.restore(folder / f"{host.name}.qcow2", SNAPSHOT))
        self.witness.start()

    def _both(self, action: Callable[[Host], None]) -> None:
        """Do something on both hosts at once; the first error is raised when both ended."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(action, self.hosts))


def _boot(host: Host) -> None:
    host.create_disk()
    host.power_on()
    host.run("systemctl is-system-running --wait", check=False, timeout_s=300)
    host.run("sync")


def _refuse_a_lab_in_use() -> None:
    """Leave alone what `up` started for a person; what a dead test run left is replaced."""
    image = next(CACHE.glob("image-*"), None)
    if KEPT.exists() and image and any(host.pid() for host in Lab(Image(image)).hosts):
        raise LabUnavailableError("the lab that `up` started is running; end it by `down`")
    KEPT.unlink(missing_ok=True)


def _locked(say: Callable[[str], None]) -> TextIO:
    """Take this working copy's lab lock, waiting for another lab to end."""
    CACHE.mkdir(parents=True, exist_ok=True)
    handle = (CACHE / "lock").open("w")
    deadline = time.monotonic() + LOCK_S
    for attempt in range(int(LOCK_S)):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        if attempt == 0:
            say("lab: another one is running in this working copy; waiting")
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    raise LabUnavailableError("another lab is running in this working copy")


@contextlib.contextmanager
def _existing() -> Iterator[Lab]:
    """Give the lab that `up` left running."""
    require_root()
    image = next(CACHE.glob("image-*"), None)
    if image is None:
        raise LabUnavailableError("there is no lab: run `up` first")
    yield Lab(Image(image))


def _end_kept_lab() -> None:
    if not KEPT.exists():
        raise LabUnavailableError("`up` left no lab running")
    with _existing() as lab:
        lab.close()
    KEPT.unlink()


def _status(lab: Lab) -> None:
    for host in lab.hosts:
        pid = host.pid()
        print(f"{host.name}  {host.address}  {f'QEMU {pid}' if pid else 'off'}")
        if pid:
            print(host.run("xl list").stdout, end="")
    print(f"namespace {lab.namespace.name} ({', '.join(NETWORKS)}), etcd {lab.witness.endpoint}")


def _shell(lab: Lab, words: list[str]) -> int:
    names = {str(number): name for name, number in NUMBERS.items()}
    name = names.get(words[0], words[0])
    host = {host.name: host for host in lab.hosts}[name]
    argv = host.shell_argv(words[1:])
    os.execvp(argv[0], argv)


def main(words: list[str]) -> int:
    """Run one command of the lab's command line."""
    match words:
        case ["image"]:
            Lab.start().close()
        case ["up"]:
            lab = Lab.start()
            lab.restore()
            KEPT.touch()
            _status(lab)
        case ["down"]:
            _end_kept_lab()
        case ["status"]:
            with _existing() as lab:
                _status(lab)
        case ["ssh", *rest] if rest:
            with _existing() as lab:
                return _shell(lab, rest)
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabUnavailableError as reason:
        sys.exit(f"lab not run: {reason}")
