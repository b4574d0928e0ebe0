"""What benchmarks of the relay stand on: a network of their own, streams, and the real sessions."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from colod.daemon.compose import session_environment
from tests.integration.session_pair import SESSION, Daemon, make_spec
from tests.integration.simxen_hosts import until
from tests.unit.stream_samples import Sample

MIB = 1 << 20
PAGES_IN_RECORD = 1024
TICKS = os.sysconf("SC_CLK_TCK")
_CLONE_NEWNET = 0x40000000


def enter_own_network() -> None:
    """Move this process into a network of its own, whose only interface is loopback.

    Raises:
        OSError: If that is not allowed: it takes root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace takes root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@contextmanager
def paced(bits_per_s: float) -> Iterator[None]:
    """Let loopback carry so much and no more, by the kernel's token bucket."""
    rate = f"{bits_per_s:.0f}bit"
    bucket = ["tbf", "rate", rate, "burst", "256k", "latency", "200ms"]
    subprocess.run(["tc", "qdisc", "replace", "dev", "lo", "root", *bucket], check=True)
    try:
        yield
    finally:
        subprocess.run(["tc", "qdisc", "delete", "dev", "lo", "root"], check=True)


def opening() -> bytes:
    """Return the stream's beginning, with a first epoch of a few pages."""
    return Sample().headers().pages().state().seal().data


def epoch(size: int) -> bytes:
    """Return a checkpoint of about `size` bytes, in whole records as libxc writes them."""
    sample = Sample()
    for _ in range(size // (4096 * PAGES_IN_RECORD)):
        sample.pages(PAGES_IN_RECORD)
    if rest := size % (4096 * PAGES_IN_RECORD) // 4096:
        sample.pages(rest)
    return sample.state().seal().data


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, blocking as libxl does."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and of its reaped children. Source: proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def own_cpu_s(pid: int) -> float:
    """Return the processor time of all threads of a process, exact where `cpu_s` counts in ticks.

    Source: Linux include/linux/posix-timers_types.h, `make_process_cpuclock` with CPUCLOCK_SCHED.
    """
    return time.clock_gettime((~pid << 3) | 2)


def tree_cpu_s(*pids: int) -> float:
    """Return the processor time of processes and of all that they have started and still have."""
    total_s, left = 0.0, list(pids)
    while left:
        pid = left.pop()
        with suppress(OSError):  # ended just now
            total_s += own_cpu_s(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
    return total_s


def memory_bytes(pid: int) -> int:
    """Return a process's proportional share of memory. Source: proc(5), smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"no Pss of {pid}")


class Relay:
    """A sender and a receiver process over TCP; the caller is libxl, and xl's end drops all."""

    def __init__(
        self, staging_bytes: int = 128 * MIB, *, far: Sequence[str] = (), **changes: Any
    ) -> None:
        """Start both, and have the first epoch acknowledged.

        Args:
            staging_bytes: Of each.
            far: Words that run a program where the receiver is; none for where the sender is.
            changes: Of both specifications, as `make_spec` takes them.
        """
        self._stack = ExitStack()
        base = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="colod-bench-")))
        common = {"staging_bytes": staging_bytes, "silence_s": 60.0, "ping_interval_s": 1.0}
        common |= changes
        spec = make_spec(
            base / "receive",
            "receive",
            receive_argv=["sh", "-c", "exec cat >/dev/null"],
            exists_argv=["true"],
            pause_argv=["true"],
            **common,
        )
        environment = {**os.environ, **session_environment()}
        command = [*far, SESSION, "receive", "--spec", str(spec)]
        self.receiver = subprocess.Popen(command, env=environment)
        self._receiving = Daemon(base / "receive")
        address = until(lambda: self._receiving.newest().listen_address, "it listens")
        spec = make_spec(base / "send", "send", address=address, **common)
        self.sender = subprocess.Popen(
            [SESSION, "send", "--spec", str(spec)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self._sending = Daemon(base / "send")
        assert self.sender.stdin is not None
        self.input = self.sender.stdin.fileno()
        self._epochs = self._acked = 0
        self.write(opening())
        self.await_ack()

    def write(self, data: bytes) -> None:
        """Write one whole epoch."""
        write_all(self.input, data)
        self._epochs += 1

    def await_ack(self, but: int = 0) -> None:
        """Wait until all that was written is acknowledged, but the newest `but` epochs."""
        while self._acked < self._epochs - but:
            self._acked = self._sending.next().progress.acked_epoch

    def wire_bytes(self) -> int:
        """Return what the last acknowledged epoch took on the link."""
        return self._sending.newest().progress.epoch_wire_bytes

    def cpu_s(self) -> float:
        """Return the processor time of both processes so far."""
        return own_cpu_s(self.sender.pid) + own_cpu_s(self.receiver.pid)

    def tree_cpu_s(self, *others: int) -> float:
        """Return the same with all that they have started, and `others` with what those have."""
        return tree_cpu_s(self.sender.pid, self.receiver.pid, *others)

    def memory_bytes(self) -> int:
        """Return the memory of both processes."""
        return memory_bytes(self.sender.pid) + memory_bytes(self.receiver.pid)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End both processes."""
        for daemon in (self._sending, self._receiving):
            daemon.close()
        for process in (self.sender, self.receiver):
            process.kill()
            process.wait()
        self._stack.close()


def timed() -> float:
    """Return the clock of all benchmarks, in seconds."""
    return time.perf_counter()
