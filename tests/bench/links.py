"""A second network namespace, and a link to it that is paced, late and lossy.

The kernel's netem does delay and loss where it is there. Where it is not, packets go through a
process that holds them (`tests.bench.wire`): it carries about 1 Gbit/s in packets of 9000 bytes, so
links of 10 Gbit/s are measured without delay then, by the kernel's token bucket alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.integration.simxen_hosts import until

HERE: Final = "10.98.0.1"
THERE: Final = "10.98.0.2"
WIRE_MTU: Final = 9000
_QUEUE_PACKETS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Link:
    """What lies between the two ends; delay and loss are each way's.

    Attributes:
        gbit: Rate, 0 for as fast as the kernel moves it.
        delay_ms: One way.
        loss: Share of packets that is lost, 0 to 1.
    """

    gbit: float = 0.0
    delay_ms: float = 0.0
    loss: float = 0.0

    @property
    def name(self) -> str:
        """What a table calls it."""
        rate = f"{self.gbit:g} Gbit/s" if self.gbit else "unpaced"
        delay = f", {self.delay_ms:g} ms" if self.delay_ms else ""
        return f"{rate}{delay}" + (f", {100 * self.loss:g} % lost" if self.loss else "")

    @property
    def is_plain(self) -> bool:
        """Whether it has neither delay nor loss."""
        return not (self.delay_ms or self.loss)


@dataclass(frozen=True, slots=True)
class Far:
    """The other namespace.

    Attributes:
        pid: Of a process in it.
    """

    pid: int

    @property
    def prefix(self) -> Sequence[str]:
        """Words that run a program there; they exec it, so its PID is theirs."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net")


@contextmanager
def far_host() -> Iterator[Far]:
    """Make the other namespace; it ends with the context.

    Raises:
        OSError: If that is not allowed: it takes root.
    """
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    try:
        own = Path("/proc/self/ns/net").readlink()
        theirs = Path(f"/proc/{holder.pid}/ns/net")
        until(lambda: theirs.readlink() != own, "another network namespace takes root")
        far = Far(holder.pid)
        _run(*far.prefix, "ip", "link", "set", "lo", "up")
        yield far
    finally:
        holder.kill()
        holder.wait()


@contextmanager
def laid(far: Far, link: Link) -> Iterator[None]:
    """Lay a link between HERE and THERE."""
    if link.is_plain or has_netem():
        _run(
            "ip",
            "link",
            "add",
            "near",
            "type",
            "veth",
            "peer",
            "name",
            "far",
            "netns",
            f"{far.pid}",
        )
        try:
            _address(far)
            for prefix, device in (((), "near"), (far.prefix, "far")):
                if shape := _shape(link):
                    _run(*prefix, "tc", "qdisc", "replace", "dev", device, "root", *shape)
            yield
        finally:
            _run("ip", "link", "delete", "near")
        return
    with _wire(far, link):
        yield


def can_be_laid(link: Link) -> bool:
    """Whether this kernel has what the link needs."""
    return link.is_plain or has_netem() or link.gbit <= 1


@cache
def has_netem() -> bool:
    """Whether the kernel has netem."""
    added = subprocess.run(
        ["tc", "qdisc", "replace", "dev", "lo", "root", "netem", "delay", "1us"],
        capture_output=True,
        check=False,
    )
    if added.returncode:
        return False
    _run("tc", "qdisc", "delete", "dev", "lo", "root")
    return True


def _shape(link: Link) -> Sequence[str]:
    rate = f"{link.gbit * 1e9:.0f}bit"
    if link.is_plain:
        return ("tbf", "rate", rate, "burst", "256k", "latency", "200ms") if link.gbit else ()
    delay = ("delay", f"{link.delay_ms * 1000:.0f}us")
    loss = ("loss", f"{100 * link.loss}%") if link.loss else ()
    return ("netem", *delay, *loss, "rate", rate, "limit", str(_QUEUE_PACKETS))


@contextmanager
def _wire(far: Far, link: Link) -> Iterator[None]:
    words = (str(far.pid), str(link.gbit), str(link.delay_ms), str(link.loss))
    argv = [sys.executable, "-m", "tests.bench.wire", *words]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "no link: see what it said"
        _address(far)
        yield
    finally:
        process.kill()
        process.wait()


def _address(far: Far) -> None:
    for prefix, device, address in (((), "near", HERE), (far.prefix, "far", THERE)):
        _run(*prefix, "ip", "address", "add", f"{address}/24", "dev", device)
        _run(*prefix, "ip", "link", "set", device, "up")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
