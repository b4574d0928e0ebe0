"""A link in a process, for kernels without netem: `python -m tests.bench.wire PID GBIT MS LOSS`.

It makes the device `near` here and `far` in the namespace of PID, and moves packets between them:
each is sent when the line is free, arrives so much later, and is lost by chance from a fixed seed.
What waits for the line is bounded like a switch's memory; beyond that the newest is dropped.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from random import Random
from typing import Final

from tests.bench.links import WIRE_MTU

# Source: Linux include/uapi/linux/if_tun.h.
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_CLONE_NEWNET: Final = 0x40000000
_QUEUE_S: Final = 0.02
_QUEUE_LEAST_BYTES: Final = 1 << 20


class Way:
    """One direction."""

    def __init__(self, source: int, target: int, link: tuple[float, float, float]) -> None:
        """Carry from the descriptor `source` to `target` as (gbit, delay_ms, loss) say."""
        gbit, delay_ms, self._loss = link
        self.source, self._target = source, target
        self._byte_s = 8e-9 / gbit
        self._delay_s = delay_ms / 1000
        self._queue_s = max(_QUEUE_S, _QUEUE_LEAST_BYTES * self._byte_s)
        self._free_at = 0.0
        self._chance = Random(1)
        self._due: deque[tuple[float, bytes]] = deque()

    def take(self, now: float) -> None:
        """Take what the device has."""
        while True:
            try:
                packet = os.read(self.source, WIRE_MTU + 64)
            except BlockingIOError:
                return
            if self._free_at - now > self._queue_s or self._chance.random() < self._loss:
                continue
            self._free_at = max(now, self._free_at) + len(packet) * self._byte_s
            self._due.append((self._free_at + self._delay_s, packet))

    def deliver(self, now: float) -> float | None:
        """Deliver what is due; return when the next one is, None for none."""
        while self._due and self._due[0][0] <= now:
            _, packet = self._due.popleft()
            try:
                os.write(self._target, packet)
            except OSError:
                continue  # full, or not up yet: lost, as on a wire
        return self._due[0][0] if self._due else None


def main() -> None:
    """Carry packets until killed."""
    pid, *numbers = sys.argv[1:]
    gbit, delay_ms, loss = map(float, numbers)
    near = _device("near")
    _enter(int(pid))
    far = _device("far")
    ways = [Way(near, far, (gbit, delay_ms, loss)), Way(far, near, (gbit, delay_ms, loss))]
    print("laid", flush=True)
    while True:
        now = time.monotonic()
        dues = [due for way in ways if (due := way.deliver(now)) is not None]
        wait_s = max(0.0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select([near, far], [], [], wait_s)
        now = time.monotonic()
        for way in ways:
            if way.source in ready:
                way.take(now)


def _device(name: str) -> int:
    number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(number, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    subprocess.run(
        ["ip", "link", "set", name, "mtu", str(WIRE_MTU), "txqueuelen", "2000"], check=True
    )
    return number


def _enter(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the other network namespace")
    os.close(namespace)


if __name__ == "__main__":
    main()
