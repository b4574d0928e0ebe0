"""The `plug` qdisc, with the counting of Linux's sch_plug.

Only counts of packets separate epochs: BUFFER saves the current count and starts a new one,
RELEASE_ONE adds the saved count to what may leave from the head. A second BUFFER before the
RELEASE_ONE overwrites the saved count, and packets queued while INDEFINITE are not counted at
all; both shift every later release.

Source: Linux net/sched/sch_plug.c (its rules, told in docs/simulated-xen.md).
"""

from collections import deque
from typing import Generic, TypeVar

PacketT = TypeVar("PacketT")

DEFAULT_LIMIT_BYTES = 1000 * 1514
"""What the kernel takes without an explicit limit: tx_queue_len times the device's MTU."""


class Plug(Generic[PacketT]):
    """A queue of output packets that starts closed."""

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Start with nothing queued and nothing to release."""
        self.limit_bytes = limit_bytes
        self.backlog_bytes = 0
        self.dropped_packets = 0
        self.is_throttled = True
        self.is_indefinite = False
        self.current_epoch_packets = 0
        self.last_epoch_packets = 0
        self.to_release_packets = 0
        self._queue: deque[tuple[int, PacketT]] = deque()

    def enqueue(self, packet: PacketT, size_bytes: int) -> bool:
        """Take a packet in; False if it does not fit into the limit and is dropped."""
        if self.backlog_bytes + size_bytes > self.limit_bytes:
            self.dropped_packets += 1
            return False
        if not self.is_indefinite:
            self.current_epoch_packets += 1
        self._queue.append((size_bytes, packet))
        self.backlog_bytes += size_bytes
        return True

    def dequeue(self) -> PacketT | None:
        """Give out the next packet that may leave, or None."""
        if self.is_throttled:
            return None
        if not self.is_indefinite:
            if not self.to_release_packets:
                self.is_throttled = True
                return None
            self.to_release_packets -= 1
        if not self._queue:
            return None
        size_bytes, packet = self._queue.popleft()
        self.backlog_bytes -= size_bytes
        return packet

    def buffer(self) -> None:
        """TCQ_PLUG_BUFFER: end the current epoch and start the next."""
        self.last_epoch_packets = self.current_epoch_packets
        self.current_epoch_packets = 0
        if self.is_indefinite:
            self.is_throttled = True
        self.is_indefinite = False

    def release_one(self) -> None:
        """TCQ_PLUG_RELEASE_ONE: let the last ended epoch's packets leave."""
        self.to_release_packets += self.last_epoch_packets
        self.last_epoch_packets = 0
        self.is_throttled = False

    def release_indefinite(self) -> None:
        """TCQ_PLUG_RELEASE_INDEFINITE: let everything leave until the next BUFFER."""
        self.is_indefinite = True
        self.to_release_packets = 0
        self.last_epoch_packets = 0
        self.current_epoch_packets = 0
        self.is_throttled = False

    def limit(self, limit_bytes: int) -> None:
        """TCQ_PLUG_LIMIT: bound the queue; what it holds already stays."""
        self.limit_bytes = limit_bytes

    def summary(self) -> dict[str, int | bool]:
        """Return the state that a simulated plug, unlike the kernel's, can be asked for."""
        return {
            "queued_packets": len(self._queue),
            "backlog_bytes": self.backlog_bytes,
            "limit_bytes": self.limit_bytes,
            "dropped_packets": self.dropped_packets,
            "throttled": self.is_throttled,
            "indefinite": self.is_indefinite,
            "current_epoch_packets": self.current_epoch_packets,
            "last_epoch_packets": self.last_epoch_packets,
            "to_release_packets": self.to_release_packets,
        }
