"""Put fragmented IP datagrams together again, so that fragmentation itself is not compared."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from colod.output.compare.entry import Entry
from colod.output.compare.packet import IpPacket

_MAX_DATAGRAM_BYTES = 0xFFFF


@dataclass(slots=True)
class _Datagram:
    """Pieces of one datagram.

    Attributes:
        pieces: Their bytes by offset.
        entries: The frames that they came in, in the order of arrival.
        first: The piece at offset 0, whose header tells the protocol of an IPv6 datagram.
        octets: Sum of their lengths.
        size: Of the whole, in bytes; None until the last piece came.
        is_bad: Whether pieces contradict each other: the datagram then stays incomplete.
    """

    pieces: dict[int, bytes] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    first: IpPacket | None = None
    octets: int = 0
    size: int | None = None
    is_bad: bool = False

    def add(self, packet: IpPacket, entry: Entry) -> None:
        """Take one more piece.

        Spec: RFC 8200 section 4.5: overlapping pieces void the datagram, exact copies do not.
        RFC 791 lets newer IPv4 pieces win, which receivers do differently; so here, too, an overlap
        proves nothing.
        """
        assert packet.fragment is not None
        self.entries.append(entry)
        offset, has_more = packet.fragment.offset, packet.fragment.has_more
        end = offset + len(packet.body)
        known = self.pieces.get(offset)
        if known is not None:
            self.is_bad |= known != packet.body
        else:
            self.is_bad |= not packet.body or end > _MAX_DATAGRAM_BYTES
            self.pieces[offset] = packet.body
            self.octets += len(packet.body)
        if not has_more:
            self.is_bad |= self.size not in (None, end)
            self.size = end
        if offset == 0:
            self.first = packet

    def whole(self) -> IpPacket | None:
        """Return the datagram if it is complete."""
        if self.is_bad or self.first is None or self.octets != self.size:
            return None
        end = 0
        for offset in sorted(self.pieces):
            self.is_bad |= offset != end
            end = offset + len(self.pieces[offset])
        if self.is_bad:
            return None
        body = b"".join(self.pieces[offset] for offset in sorted(self.pieces))
        return self.first._replace(body=body, fragment=None)


class Reassembly:
    """The fragmented datagrams of one side."""

    def __init__(self, max_datagrams: int) -> None:
        """Begin with none.

        Args:
            max_datagrams: How many may be incomplete at a time, at least 1.
        """
        self._max_datagrams = max_datagrams
        self._datagrams: dict[Hashable, _Datagram] = {}

    def __len__(self) -> int:
        """Return how many are incomplete."""
        return len(self._datagrams)

    def has_room(self, packet: IpPacket) -> bool:
        """Whether `add` may be called for this fragment."""
        return len(self._datagrams) < self._max_datagrams or _key(packet) in self._datagrams

    def add(self, packet: IpPacket, entry: Entry) -> tuple[IpPacket, list[Entry]] | None:
        """Take a fragment, and return the datagram that it completes with the frames of all.

        Args:
            packet: Has a `fragment`; ask `has_room` before.
            entry: The frame that it came in.
        """
        key = _key(packet)
        datagram = self._datagrams.setdefault(key, _Datagram())
        datagram.add(packet, entry)
        whole = datagram.whole()
        if whole is None:
            return None
        del self._datagrams[key]
        return whole, datagram.entries

    def clear(self) -> None:
        """Forget all that is incomplete."""
        self._datagrams.clear()


def _key(packet: IpPacket) -> Hashable:
    """Spec: RFC 791 section 3.2 (with the protocol), RFC 8200 section 4.5 (without)."""
    assert packet.fragment is not None
    protocol = packet.protocol if len(packet.source) == 4 else None
    place = (packet.vlan, packet.source, packet.destination)
    return (place, protocol, packet.fragment.identification)
