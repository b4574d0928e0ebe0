"""What makes two packets that are not TCP equal."""

from __future__ import annotations

from colod.output.compare.packet import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_UDP,
    Ethernet,
    IpPacket,
    arp_identity,
)

Identity = tuple[object, ...]

_UDP_HEADER_BYTES = 8
_ICMP_MIN_BYTES = 4


def frame_identity(frame: bytes, ethernet: Ethernet | None) -> Identity:
    """Return the identity of a frame without an IP packet that is understood.

    ARP says the same with other padding and to whichever Ethernet address; anything else is
    compared whole.
    """
    if ethernet is not None:
        arp = arp_identity(frame, ethernet)
        if arp is not None:
            return ("arp", ethernet.vlan, arp)
    return ("frame", frame)


def packet_identity(packet: IpPacket) -> Identity:
    """Return the identity of an IP packet: its flow and payload, without checksums.

    The headers' other fields differ between equal services: identification, TTL, DSCP, flow label.
    ICMP errors and neighbour discovery are compared whole, too: the packet that an error quotes
    came to both copies alike, once `rewriter` has undone its shift there.
    """
    body = packet.body
    if packet.protocol == IPPROTO_UDP and len(body) >= _UDP_HEADER_BYTES:
        body = body[:6] + body[8:]
    elif packet.protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6) and len(body) >= _ICMP_MIN_BYTES:
        body = body[:2] + body[4:]
    place = (packet.vlan, packet.source, packet.destination)
    return (place, packet.protocol, packet.extensions, body)
