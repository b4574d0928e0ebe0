"""One lab host: a QEMU machine that runs Xen with a Debian dom0."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tests.xen.image import Image
from tests.xen.net import NETWORKS, Namespace, Network
from tests.xen.process import CommandFailed, Completed, LabUnavailableError, run

NUMBERS = {"alpha": 1, "beta": 2}
BOOT_S = 420.0
RESTORE_S = 90.0
RESTORES = 3
# numpy's wheels want x86-64-v2; HVM guests need nested paging.
CPU = "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt"
XEN_LINE = "dom0_mem=1024M,max:1024M com1=115200,8n1 console=com1 loglvl=info noreboot"
MACHINE = ["-accel", "tcg,thread=multi", "-cpu", CPU, "-m", "2048", "-smp", "1"]
MACHINE += ["-display", "none", "-vga", "none", "-no-reboot", "-device", "virtio-rng-pci"]
LINUX_LINE = "root=/dev/vda rw console=hvc0 net.ifnames=0 quiet"


@dataclass(frozen=True)
class Domain:
    """A row of `xl list`."""

    name: str
    domid: int
    memory_mib: int
    vcpus: int
    state: str
    cpu_s: float

    def is_paused(self) -> bool:
        """Return whether the toolstack holds it paused."""
        return "p" in self.state

    def is_suspended(self) -> bool:
        """Return whether it has shut itself down to be saved ('s')."""
        return "s" in self.state


def parse_xl_list(text: str) -> list[Domain]:
    """Return the rows of `xl list`; a name has no white space in the lab."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [
        Domain(row[0], int(row[1]), int(row[2]), int(row[3]), row[4], float(row[5])) for row in rows
    ]


class Host:
    """A nested Xen host. All methods are synchronous and bounded in time."""

    def __init__(self, name: str, namespace: Namespace, image: Image, folder: Path) -> None:
        """Describe a host; nothing is started.

        Args:
            name: `alpha` or `beta`.
            namespace: Where its taps are.
            image: What it boots from.
            folder: Where its disk, logs and sockets are kept.
        """
        self.name = name
        self.number = NUMBERS[name]
        self.address = f"{NETWORKS['mgmt']}.{self.number}"
        self.folder = folder
        self.serial_log = folder / "serial.log"
        self._namespace = namespace
        self._image = image
        self._disk = folder / "disk.qcow2"
        self._pid_file = folder / "pid"
        self._sockets = Path("/run", namespace.name)
        self._process: subprocess.Popen[bytes] | None = None

    # -- power

    def create_disk(self) -> None:
        """Give the host a fresh disk: an empty overlay of the image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._disk.unlink(missing_ok=True)
        backing = ["-b", str(self._image.disk), "-F", "raw"]
        run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, self._disk])

    def copy_disk_to(self, path: Path) -> None:
        """Keep a copy of the disk, snapshots included; the host must be off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy_sparse(self._disk, path)

    def restore(self, path: Path, snapshot: str) -> None:
        """Go back to a snapshot in a disk that was kept, and wait until the host is up.

        Always with a fresh QEMU: after `loadvm` into a running one, dom0's clock was seen to stand
        still. Whether it goes is checked, and the start is retried.

        Raises:
            LabUnavailableError: If the host's clock does not go after some starts.
        """
        for _ in range(RESTORES):
            self.power_off()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.serial_log.unlink(missing_ok=True)
            _copy_sparse(path, self._disk)
            self.power_on(snapshot)
            if self._clock_goes():
                return
        raise LabUnavailableError(f"{self.name}'s clock stands still after {RESTORES} starts")

    def _clock_goes(self) -> bool:
        try:
            self.run("sleep 0.5", timeout_s=30)
        except subprocess.TimeoutExpired:
            return False
        return True

    def power_on(self, snapshot: str | None = None, *, wait: bool = True) -> None:
        """Start the machine with the disk as it is.

        Args:
            snapshot: State to go on from; without it the host boots (a minute or more).
            wait: Whether to return only when ssh and the toolstack answer.
        """
        self.power_off()
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._qemu_argv(snapshot),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file.write_text(str(self._process.pid))
        if wait:
            self.wait_until_up(RESTORE_S if snapshot else BOOT_S)

    def kill(self) -> None:
        """End the host at once, as a power failure does. Its disk stays as it was."""
        self._signal(signal.SIGKILL)
        self._wait_until_off()
        self._forget_connection()

    def power_off(self) -> None:
        """Make sure that the machine is off."""
        if self.pid() is not None:
            self.kill()

    def freeze(self) -> None:
        """Stop the host in mid-instruction, as a hang does."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen host go on."""
        self._signal(signal.SIGCONT)

    def cut(self, network: Network) -> None:
        """Take the host off a network."""
        self._namespace.set_link(self.name, network, is_up=False)

    def join(self, network: Network) -> None:
        """Put the host back on a network."""
        self._namespace.set_link(self.name, network, is_up=True)

    def save(self, snapshot: str) -> None:
        """Save the running machine's state in its disk, and switch it off."""
        self._forget_connection()
        said = self.monitor(f"savevm {snapshot}")
        if said.strip():
            raise CommandFailed(f"savevm on {self.name}: {said}")
        with contextlib.suppress(ConnectionError, json.JSONDecodeError):
            self.monitor("quit")
        self._wait_until_off()

    def pid(self) -> int | None:
        """Return the PID of the running QEMU, or None when the host is off."""
        if self._process is not None and self._process.poll() is not None:
            return None
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._disk).encode() in command else None

    # -- commands

    def run(
        self,
        command: str,
        *,
        timeout_s: float = 60,
        check: bool = True,
        stdin: str | bytes = b"",
    ) -> Completed:
        """Run a shell command in dom0 as root.

        Raises:
            CommandFailed: With `check`, when its status is not 0.
            subprocess.TimeoutExpired: When it takes longer than `timeout_s` seconds.
        """
        argv = [*self._ssh("-S", str(self._control)), f"root@{self.address}", "--", command]
        return run(argv, timeout_s=timeout_s, check=check, stdin=stdin)

    def start(self, command: str) -> None:
        """Start a shell command in dom0 that outlives this call; its output is dropped."""
        self.run(f"setsid sh -c {_quoted(command)} </dev/null >/dev/null 2>&1 &")

    def put(self, content: bytes | Path, path: str, mode: int = 0o644) -> None:
        """Write a file in dom0, making its folders."""
        body = content.read_bytes() if isinstance(content, Path) else content
        target = _quoted(path)
        self.run(
            f"mkdir -p $(dirname {target}) && cat > {target} && chmod {mode:o} {target}",
            stdin=body,
            timeout_s=300,
        )

    def get(self, path: str) -> bytes:
        """Return the content of a file in dom0."""
        text = self.run(f"base64 {_quoted(path)}", timeout_s=300).stdout
        return base64.b64decode(text)

    def forward_socket(self, remote: str, local: Path) -> None:
        """Make a unix socket of dom0 reachable here, over the shared ssh connection."""
        local.unlink(missing_ok=True)
        argv = self._ssh("-S", str(self._control), "-O", "forward", "-L", f"{local}:{remote}")
        run([*argv, f"root@{self.address}"], timeout_s=60)

    def domains(self) -> dict[str, Domain]:
        """Return the domains that the hypervisor knows, by name."""
        return {domain.name: domain for domain in parse_xl_list(self.run("xl list").stdout)}

    def set_clock(self) -> None:
        """Set dom0's clock to this machine's; a restored host has the time of its snapshot."""
        self.run(f"date -s @{time.time():.3f}")

    def monitor(self, command: str) -> str:
        """Run a command of QEMU's human monitor and return what it printed."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(120)
            channel.connect(str(self._sockets / f"{self.name}.qmp"))
            stream: TextIO = channel.makefile("rw")
            stream.readline()
            _qmp(stream, "qmp_capabilities")
            return _qmp(stream, "human-monitor-command", **{"command-line": command})

    def save_logs(self, folder: Path) -> None:
        """Copy the serial log, and when the host still answers its journal, to a folder."""
        for path in (self.serial_log, self.folder / "qemu.log"):
            with contextlib.suppress(OSError):
                shutil.copy(path, folder / f"{self.name}-{path.name}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            said = self.run(_LOG_COMMANDS, check=False, timeout_s=60)
            (folder / f"{self.name}-dom0.log").write_text(said.stdout + said.stderr)

    def shell_argv(self, words: list[str]) -> list[str]:
        """Return the command line of a shell, or of a command, in dom0."""
        terminal = [] if words else ["-t"]
        return [*self._ssh(*terminal), f"root@{self.address}", *words]

    def wait_until_up(self, limit_s: float = BOOT_S) -> None:
        """Wait until dom0 takes commands and its toolstack answers.

        Raises:
            LabUnavailableError: When that takes longer than `limit_s` seconds.
        """
        deadline = time.monotonic() + limit_s
        while not self._connect():
            if self.pid() is None:
                raise LabUnavailableError(f"{self.name}'s QEMU ended: {self._last_words()}")
            if time.monotonic() > deadline:
                raise LabUnavailableError(f"{self.name} not up in {limit_s:.0f} s")
            time.sleep(0.3)
        self.set_clock()
        left_s = max(deadline - time.monotonic(), 30)
        self.run(f"timeout {left_s:.0f} sh -c '{_TOOLSTACK_READY}'", timeout_s=left_s + 10)

    # -- inside

    @property
    def _control(self) -> Path:
        return self._sockets / f"{self.name}.ssh"

    def _ssh(self, *options: str) -> list[str]:
        fixed = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
        }
        words = [word for name, value in fixed.items() for word in ("-o", f"{name}={value}")]
        key = ["-F", "none", "-i", str(self._image.ssh_key)]
        return [*self._namespace.prefix, "ssh", *key, *words, *options]

    def _connect(self) -> bool:
        """Open the connection that later commands share; say whether that worked."""
        try:
            self._namespace.tcp(self.address, 22, timeout_s=2).close()
        except OSError:
            return False
        self._forget_connection()
        argv = [*self._ssh("-M", "-N", "-f", "-S", str(self._control)), f"root@{self.address}"]
        with (self.folder / "ssh.log").open("ab") as log:
            # Not run(): the master that stays behind would hold the pipes open.
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=False
            )
        return done.returncode == 0

    def _forget_connection(self) -> None:
        if self._control.exists():
            argv = self._ssh("-S", str(self._control), "-O", "exit")
            run([*argv, f"root@{self.address}"], check=False)
            self._control.unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid()
        if pid is None:
            raise CommandFailed(f"{self.name} is off")
        os.kill(pid, number)

    def _wait_until_off(self) -> None:
        deadline = time.monotonic() + 60
        while self.pid() is not None:
            if time.monotonic() > deadline:
                raise CommandFailed(f"{self.name}'s QEMU did not end")
            time.sleep(0.05)
        if self._process is not None:
            self._process.wait(60)
            self._process = None
        self._pid_file.unlink(missing_ok=True)

    def _last_words(self) -> str:
        return (self.folder / "qemu.log").read_text(errors="replace")[-500:]

    def _qemu_argv(self, snapshot: str | None) -> list[str]:
        self._sockets.mkdir(exist_ok=True)
        linux = f"{LINUX_LINE} labhost={self.name}"
        modules = (
            f"{self._image.boot_file('vmlinuz')} {linux},{self._image.boot_file('initrd.img')}"
        )
        argv = [*self._namespace.prefix, "qemu-system-x86_64", "-name", f"lab-{self.name}"]
        argv += MACHINE
        argv += ["-kernel", str(self._image.boot_file("xen")), "-append", XEN_LINE]
        argv += ["-initrd", modules, "-drive", f"file={self._disk},if=virtio,format=qcow2"]
        argv += ["-chardev", f"file,id=serial,path={self.serial_log},append=on"]
        argv += ["-serial", "chardev:serial"]
        argv += ["-qmp", f"unix:{self._sockets / self.name}.qmp,server=on,wait=off"]
        for index, network in enumerate(NETWORKS):
            tap = self._namespace.add_tap(self.name, network)
            mac = f"52:54:00:00:0{index}:0{self.number}"
            argv += ["-netdev", f"tap,id=n{index},ifname={tap},script=no,downscript=no"]
            argv += ["-device", f"virtio-net-pci,netdev=n{index},mac={mac}"]
        return [*argv, "-loadvm", snapshot] if snapshot else argv


_LOG_COMMANDS = (
    "xl list; ps -ef --forest; ip -s link; xl dmesg | tail -50; journalctl -b --no-pager"
)
_TOOLSTACK_READY = (
    "until xl list >/dev/null 2>&1 && ip link show br0 >/dev/null; do sleep 0.5; done"
)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _copy_sparse(source: Path, target: Path) -> None:
    unfinished = target.with_suffix(".unfinished")
    run(["cp", "--reflink=auto", "--sparse=always", source, unfinished], timeout_s=300)
    shutil.move(unfinished, target)


def _qmp(stream: TextIO, command: str, **arguments: str) -> str:
    """Send one command and return its answer when that is a text; events are passed over."""
    json.dump({"execute": command, "arguments": arguments}, stream)
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "error" in answer:
            raise CommandFailed(f"{command}: {answer['error']}")
        if "return" in answer:
            return answer["return"] if isinstance(answer["return"], str) else ""
