"""One simulated host: its state directory, its locks, the processes that belong to it.

Everything a simulated host knows lies below one directory, so that several hosts live on one
machine and a test can wipe one out:

    hypervisor.lock   held for moments, as Xen's own locks are
    xl.lock           xl's global lock (`/var/lock/xl`)
    xl.conf           read as `/etc/xen/xl.conf`
    next_domid
    domains/DOMID/    config.json, memory, dirty, vcpu, ctl (socket)
    guests/NAME.sock  where a running guest answers, besides its own address
    pids/PID          start time and role of each process of this host
    faults/COMMAND    what the next such xl command shall suffer
    log/
"""

import contextlib
import fcntl
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from colod.pidfd import open_pidfd

DIR_VARIABLE = "COLOD_SIMXEN_DIR"
BOOT_ID = "boot_id"
"""The file that takes the place of /proc/sys/kernel/random/boot_id once the power was cut."""


class HostProcess(NamedTuple):
    """A process that this host recorded as its own; `start_ticks` tells it from a later one."""

    pid: int
    start_ticks: int
    role: str


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


class Host:
    """The state directory of one simulated host, made on first use."""

    def __init__(self, root: Path) -> None:
        """Create what is missing below `root`."""
        self.root = root
        self.name = root.name
        for part in ("domains", "guests", "pids", "faults", "log"):
            (root / part).mkdir(parents=True, exist_ok=True)

    @classmethod
    def from_environment(cls) -> "Host":
        """Open the host that `COLOD_SIMXEN_DIR` names.

        Raises:
            LookupError: The variable is not set.
        """
        value = os.environ.get(DIR_VARIABLE, "")
        if not value:
            message = f"{DIR_VARIABLE} is not set: the simulated Xen has no host"
            raise LookupError(message)
        return cls(Path(value).resolve())

    @contextlib.contextmanager
    def hypervisor_lock(self) -> Iterator[None]:
        """Hold the lock under which domains come into being and change their names."""
        fd = os.open(self.root / "hypervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def next_domid(self) -> int:
        """Hand out the next domain number; call it under `hypervisor_lock`."""
        path = self.root / "next_domid"
        domid = int(path.read_text(encoding="ascii")) if path.exists() else 1
        path.write_text(str(domid + 1), encoding="ascii")
        return domid

    def boot_anew(self) -> None:
        """Be another boot of the host from now on."""
        path = self.root / f"{BOOT_ID}.new"
        path.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        path.rename(self.root / BOOT_ID)

    def setting(self, key: str, default: str) -> str:
        """Read one `key=value` of xl.conf; quotes are taken off."""
        with contextlib.suppress(OSError):
            for line in (self.root / "xl.conf").read_text(encoding="utf-8").splitlines():
                name, equals, value = line.partition("#")[0].partition("=")
                if equals and name.strip() == key:
                    return value.strip().strip("\"'")
        return default

    @property
    def is_autoballooning(self) -> bool:
        """Tell whether xl balloons dom0; `auto` means no, as Xen was booted with dom0_mem."""
        return self.setting("autoballoon", "auto") in {"on", "1"}

    @property
    def exists(self) -> bool:
        """Tell whether the directory still lies there: without it, all its processes end."""
        return (self.root / "pids").is_dir()

    def register(self, role: str, pid: int | None = None) -> None:
        """Record a process as one that dies with this host."""
        pid = pid or os.getpid()
        ticks = start_ticks(pid)
        if ticks is not None:
            (self.root / "pids" / str(pid)).write_text(f"{ticks} {role}\n", encoding="utf-8")

    def unregister(self, pid: int | None = None) -> None:
        """Forget a process that ends in good order."""
        with contextlib.suppress(OSError):
            (self.root / "pids" / str(pid or os.getpid())).unlink()

    def processes(self) -> list[HostProcess]:
        """List the recorded processes that still live, whose PID was not given to another."""
        found = []
        for entry in (self.root / "pids").iterdir():
            with contextlib.suppress(OSError, ValueError):
                ticks, _, role = entry.read_text(encoding="utf-8").partition(" ")
                if start_ticks(int(entry.name)) == int(ticks):
                    found.append(HostProcess(int(entry.name), int(ticks), role.strip()))
                else:
                    entry.unlink()
        return sorted(found)


def signal_process(process: HostProcess, number: int) -> None:
    """Signal a recorded process, and never another one that has its PID by now."""
    try:
        fd = open_pidfd(process.pid)
    except ProcessLookupError:
        return
    try:
        # The pidfd pins whatever has the PID now; only then is the start time worth checking.
        if start_ticks(process.pid) == process.start_ticks:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def kill_processes(host: Host, *, timeout_s: float = 10.0) -> bool:
    """SIGKILL every process of a host as a power cut would: none sees another one go.

    Returns:
        Whether all are gone within `timeout_s` seconds.
    """
    own = os.getpid()
    deadline = time.monotonic() + timeout_s
    while others := [each for each in host.processes() if each.pid != own]:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for each in others:
                signal_process(each, number)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
