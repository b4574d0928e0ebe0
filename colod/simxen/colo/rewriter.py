"""QEMU's filter-rewriter, for the simulated guest's frames: shifts a copy's sequence numbers.

offset = this copy's initial number - the one that the client knows: subtracted from what the guest
sends, added to what comes in. Source: QEMU net/filter-rewriter.c.
"""

from dataclasses import dataclass

from colod.simxen.colo import segments
from colod.simxen.colo.segments import ACK, MODULUS, RST, SYN


@dataclass(slots=True)
class _Shift:
    own_isn: int
    offset: int | None = None


class Rewriter:
    """The shifts of one copy; none before `begin`."""

    def __init__(self) -> None:
        """Shift nothing."""
        self._shifts: dict[bytes, _Shift] = {}
        self._is_learning = False

    def __len__(self) -> int:
        """Return how many connections are shifted."""
        return sum(1 for each in self._shifts.values() if each.offset)

    def begin(self) -> None:
        """Learn new connections: this copy is a secondary from now on."""
        self._is_learning = True

    def checkpointed(self) -> None:
        """Forget all: the copy has the primary's numbers now."""
        self._shifts.clear()

    def failed_over(self) -> None:
        """Keep the shifts that are there, and learn no new ones."""
        self._is_learning = False

    def outbound(self, frame: bytes, guest_mac: bytes) -> bytes:
        """Return a frame of the guest as the client knows its numbers."""
        segment = segments.decode(frame)
        if segment is None:
            return frame
        if segment.flags & SYN and self._is_learning:
            known = self._shifts.get(segment.client)
            if known is None or known.own_isn != segment.seq:
                self._shifts[segment.client] = _Shift(segment.seq)
            return frame
        offset = self._offset(segment.client)
        if not offset:
            return frame
        return segments.encode(segment._replace(seq=(segment.seq - offset) % MODULUS), guest_mac)

    def inbound(self, frame: bytes, guest_mac: bytes) -> bytes:
        """Return a frame for the guest as this copy knows its numbers."""
        segment = segments.decode(frame)
        if segment is None or segment.flags & SYN:
            return frame
        known = self._shifts.get(segment.client)
        if known is None:
            return frame
        if known.offset is None and segment.flags & ACK:
            # The client acknowledges the SYN that it got: the primary's.
            known.offset = (known.own_isn - (segment.ack - 1)) % MODULUS
        if segment.flags & RST:
            del self._shifts[segment.client]
        if not known.offset:
            return frame
        return segments.encode(
            segment._replace(ack=(segment.ack + known.offset) % MODULUS), guest_mac
        )

    def _offset(self, client: bytes) -> int:
        known = self._shifts.get(client)
        return 0 if known is None or known.offset is None else known.offset
