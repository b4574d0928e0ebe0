"""Shift the secondary's TCP sequence numbers to the primary's, and back.

A connection that begins while both copies run gets another initial sequence number (ISN) in each.
The client sees only the primary's, so on the secondary's host

    offset = the secondary's ISN - the primary's ISN

is added to what comes in for the secondary (acknowledgements, SACK blocks, and what ICMP errors
quote of its own segments) and subtracted from what it sends (sequence numbers, and what its ICMP
errors quote of the client's). A checkpoint makes both copies equal, and all offsets zero. After a
failover the offsets of the connections that exist then stay for as long as these live.

Checksums are adjusted by the difference (RFC 1624), so the caller's frames must carry whole ones.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Hashable

from colod.output.compare import checksums
from colod.output.compare.packet import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IpPacket,
    parse_ethernet,
    parse_ip,
)
from colod.output.compare.segment import (
    ACK,
    ACK_AT,
    CHECKSUM_AT,
    FIN,
    FLAGS_AT,
    MIN_HEADER_BYTES,
    RST,
    SEQ_AT,
    SYN,
    Segment,
    parse_options,
    parse_segment,
)
from colod.output.compare.sequence import MODULUS
from colod.output.compare.silent import forget_silent

_SACK = 5
_U32 = struct.Struct(">I")

_ICMP_HEADER_BYTES = 8
_ICMP_CHECKSUM_AT = 2
_ERRORS = {
    IPPROTO_ICMP: frozenset({3, 4, 5, 11, 12}),
    IPPROTO_ICMPV6: frozenset({1, 2, 3, 4}),
}
"""Types that quote a packet. Spec: RFC 792, RFC 4443 section 2.1."""


class _Connection:
    """One connection of the guest.

    Attributes:
        peer_isn: Of the other end's SYN, None if none came in.
        own_isn: Of the secondary's SYN or SYN-ACK, None before it.
        offset: None until the other end has acknowledged the primary's SYN.
        fins: Directions in which a FIN went.
        is_reset: Whether a RST went in either direction.
    """

    __slots__ = ("fins", "is_reset", "offset", "own_isn", "peer_isn")

    def __init__(self) -> None:
        """Begin before the handshake."""
        self.peer_isn: int | None = None
        self.own_isn: int | None = None
        self.offset: int | None = None
        self.fins: set[bool] = set()
        self.is_reset = False

    @property
    def is_dispensable(self) -> bool:
        """Whether it needs no shift, now or ever, or has ended."""
        return self.is_reset or len(self.fins) == 2 or self.offset == 0


class Rewriter:
    """The shifts of one secondary copy, over all its interfaces' frames.

    Attributes:
        is_full: Whether a connection found no room: it is not shifted, so it will diverge. Ask for
            a checkpoint.
    """

    def __init__(self, max_connections: int) -> None:
        """Begin right after a checkpoint, when nothing is shifted.

        Args:
            max_connections: How many are remembered, at least 1; one that is in use is never
                forgotten.
        """
        self.is_full = False
        self._max_connections = max_connections
        self._connections: OrderedDict[Hashable, _Connection] = OrderedDict()
        self._is_alone = False

    def __len__(self) -> int:
        """Return how many connections are remembered."""
        return len(self._connections)

    def outbound(self, frame: bytes) -> bytes:
        """Return a frame of the secondary as the primary would number it."""
        return self._rewritten(frame, is_outbound=True)

    def inbound(self, frame: bytes) -> bytes:
        """Return a frame for the guest as the secondary expects it."""
        return self._rewritten(frame, is_outbound=False)

    def checkpoint_committed(self) -> None:
        """Forget all shifts: the secondary has the primary's numbers now."""
        self._connections.clear()
        self.is_full = False

    def failed_over(self) -> None:
        """Keep the shifts of the connections that exist, and shift no new ones.

        A handshake that is half done is learned from the client's next acknowledgement, which says
        whose SYN it got.
        """
        self._is_alone = True
        for key, connection in list(self._connections.items()):
            if connection.own_isn is None:
                del self._connections[key]

    def _rewritten(self, frame: bytes, *, is_outbound: bool) -> bytes:
        ethernet = parse_ethernet(frame)
        packet = None if ethernet is None else parse_ip(frame, ethernet)
        if packet is None or (packet.fragment is not None and packet.fragment.offset):
            return frame
        if packet.protocol == IPPROTO_TCP:
            segment = parse_segment(packet.body)
            return frame if segment is None else self._segment(frame, packet, segment, is_outbound)
        if packet.body and packet.body[0] in _ERRORS.get(packet.protocol, ()):
            return self._error(frame, packet, is_outbound)
        return frame

    # -- segments

    def _segment(
        self, frame: bytes, packet: IpPacket, segment: Segment, is_outbound: bool
    ) -> bytes:
        ends = (packet.source, packet.destination)
        key = _key(packet, *ends, segment.ports, is_from_guest=is_outbound)
        if segment.flags & SYN and not segment.flags & (ACK | RST):
            self._note_syn(key, segment, is_outbound)
        connection = self._connections.get(key)
        if connection is None:
            return frame
        self._connections.move_to_end(key)
        _learn(connection, segment, is_outbound)
        if not connection.offset:
            return frame
        header = packet.body[: len(packet.body) - len(segment.payload)]
        shifted = _shifted(header, connection.offset, is_outbound)
        return frame[: packet.at] + shifted + frame[packet.at + len(header) :]

    def _note_syn(self, key: Hashable, segment: Segment, is_outbound: bool) -> None:
        """Begin a new connection, if this is not another copy of a SYN that is known."""
        known = self._connections.get(key)
        if known is not None:
            isn = known.own_isn if is_outbound else known.peer_isn
            is_simultaneous = isn is None and known.offset is None
            if segment.seq == isn or is_simultaneous:
                if not is_outbound:
                    known.peer_isn = segment.seq
                return
            del self._connections[key]
        if self._is_alone:
            return
        if len(self._connections) >= self._max_connections and not self._forget_one():
            self.is_full = True
            return
        connection = self._connections[key] = _Connection()
        if not is_outbound:
            connection.peer_isn = segment.seq

    def _forget_one(self) -> bool:
        return forget_silent(self._connections, lambda each: each.is_dispensable) is not None

    # -- errors

    def _error(self, frame: bytes, packet: IpPacket, is_outbound: bool) -> bytes:
        """Shift what an ICMP error quotes: it is of the other direction than the error.

        Without that, the secondary ignores errors about its connections (path MTU above all), since
        they quote numbers that it never sent.
        """
        quoted = _quoted(packet.body)
        if quoted is None:
            return frame
        source, destination, at = quoted
        header = packet.body[at:]
        key = _key(packet, source, destination, header[:4], is_from_guest=not is_outbound)
        connection = self._connections.get(key)
        if connection is None or not connection.offset:
            return frame
        # What the secondary quotes came in shifted, so the shift is undone; what is quoted to it
        # went out shifted back, so the shift is done again.
        shifted = _shifted(header, -connection.offset, is_outbound=not is_outbound)
        octets = bytearray(frame)
        begin = packet.at
        checksums.replace(octets, begin + at, shifted, begin, begin + _ICMP_CHECKSUM_AT)
        return bytes(octets)


def _learn(connection: _Connection, segment: Segment, is_outbound: bool) -> None:
    """Take from a segment what it says of the handshake and of the end."""
    flags = segment.flags
    if flags & RST:
        connection.is_reset = True
    elif is_outbound:
        if flags & SYN and connection.offset is None:
            connection.own_isn = segment.seq
    elif flags & ACK and connection.offset is None and connection.own_isn is not None:
        # The client acknowledges the primary's SYN, which was released only after the secondary's.
        connection.offset = (connection.own_isn - (segment.ack - 1)) % MODULUS
    if flags & FIN:
        connection.fins.add(is_outbound)


def _key(
    packet: IpPacket, source: bytes, destination: bytes, ports: bytes, *, is_from_guest: bool
) -> Hashable:
    """Return what names a connection: VLAN, the guest's end, the other end."""
    own, peer = source + ports[:2], destination + ports[2:]
    return (packet.vlan, own, peer) if is_from_guest else (packet.vlan, peer, own)


def _shifted(header: bytes, offset: int, is_outbound: bool) -> bytes:
    """Return a TCP header, or the first bytes of one, with its numbers shifted.

    Args:
        header: At least the first 8 bytes.
        offset: What to add to acknowledgements that come in, and take from numbers that go out.
        is_outbound: Which of the two it is.
    """
    octets = bytearray(header)
    if is_outbound:
        _add(octets, SEQ_AT, -offset)
        return bytes(octets)
    if len(octets) <= FLAGS_AT or octets[FLAGS_AT] & ACK:
        _add(octets, ACK_AT, offset)
    for kind, value, at in parse_options(header[MIN_HEADER_BYTES : _header_bytes(header)]):
        if kind == _SACK:
            for edge in range(0, len(value) - 3, 4):
                _add(octets, MIN_HEADER_BYTES + at + edge, offset)
    return bytes(octets)


def _header_bytes(header: bytes) -> int:
    return (header[FLAGS_AT - 1] >> 4) * 4 if len(header) >= FLAGS_AT else 0


def _add(octets: bytearray, at: int, offset: int) -> None:
    """Add to a number of a TCP header, and adjust the checksum if that is there, too."""
    if len(octets) < at + 4:
        return
    (number,) = _U32.unpack_from(octets, at)
    new = _U32.pack((number + offset) % MODULUS)
    if len(octets) < CHECKSUM_AT + 2:
        octets[at : at + 4] = new
    else:
        checksums.replace(octets, at, new, 0, CHECKSUM_AT)


def _quoted(body: bytes) -> tuple[bytes, bytes, int] | None:
    """Return source, destination and the TCP header's offset of the segment an error quotes.

    None if it quotes no TCP, or less than the 8 bytes that an error must quote (RFC 792). The
    quoted packet may be cut off.
    """
    at = _ICMP_HEADER_BYTES
    first = body[at] if len(body) > at else 0
    if first >> 4 == 4:
        header = at + (first & 0xF) * 4
        is_tcp = len(body) >= header + 8 and body[at + 9] == IPPROTO_TCP
        is_first = is_tcp and not (body[at + 6] & 0x1F or body[at + 7])
        found = (body[at + 12 : at + 16], body[at + 16 : at + 20], header)
        return found if is_first and header >= at + 20 else None
    if first >> 4 == 6 and len(body) >= at + 48 and body[at + 6] == IPPROTO_TCP:
        return body[at + 8 : at + 24], body[at + 24 : at + 40], at + 40
    return None
