"""Ethernet frames taken apart as far as comparing needs it: VLAN tags, IPv4, IPv6, fragments.

What is not understood is not an error: it is compared as a whole frame.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from colod.output.frames import ETH_P_ARP, ETH_P_IPV6

ETH_HEADER_BYTES = 14
ETH_P_IP = 0x0800
_VLAN_TYPES = frozenset({0x8100, 0x88A8, 0x9100})
"""IEEE 802.1Q, 802.1ad, and what was used before 802.1ad."""
_VID_MASK = 0x0FFF

IPPROTO_ICMP = 1
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_ICMPV6 = 58
_IPPROTO_FRAGMENT = 44
_SKIPPED_EXTENSIONS = frozenset({0, 43, 60})
"""Hop-by-hop options, routing, destination options. Spec: RFC 8200 section 4."""

_IPV4_MIN_BYTES = 20
_IPV6_BYTES = 40
_U16 = struct.Struct(">H")
_IPV4 = struct.Struct(">BxHHHxB2x4s4s")
_IPV6 = struct.Struct(">IHBx16s16s")
_FRAGMENT = struct.Struct(">BxHI")


class Fragment(NamedTuple):
    """Where a piece of a datagram belongs.

    Attributes:
        identification: What all pieces of the datagram share.
        offset: In bytes.
        has_more: Whether it is not the last one.
    """

    identification: int
    offset: int
    has_more: bool


class IpPacket(NamedTuple):
    """An IP packet, or a piece of one.

    Attributes:
        vlan: The VLAN identifiers, outermost first; priority tags (identifier 0) do not count.
        source: 4 or 16 bytes.
        destination: As many.
        protocol: Of `body`; in an IPv6 fragment, of the whole datagram's.
        extensions: IPv6 extension headers before `body`, but for the fragment header.
        at: Where `body` begins in the frame.
        body: Transport header and payload, without the frame's padding.
        fragment: None for a whole packet.
    """

    vlan: tuple[int, ...]
    source: bytes
    destination: bytes
    protocol: int
    extensions: bytes
    at: int
    body: bytes
    fragment: Fragment | None


class Ethernet(NamedTuple):
    """What precedes the payload.

    Attributes:
        vlan: As in `IpPacket`.
        protocol: EtherType, or a length below 0x600.
        at: Where the payload begins.
    """

    vlan: tuple[int, ...]
    protocol: int
    at: int


def parse_ethernet(frame: bytes) -> Ethernet | None:
    """Return what precedes the payload, None if the frame is too short.

    Spec: IEEE 802.3 section 3, 802.1Q section 9.
    """
    if len(frame) < ETH_HEADER_BYTES:
        return None
    at = ETH_HEADER_BYTES
    protocol = frame[at - 2] << 8 | frame[at - 1]
    if protocol not in _VLAN_TYPES:
        return Ethernet((), protocol, at)
    vlan = []
    while protocol in _VLAN_TYPES:
        if len(frame) < at + 4:
            return None
        (tag,) = _U16.unpack_from(frame, at)
        (protocol,) = _U16.unpack_from(frame, at + 2)
        if tag & _VID_MASK:
            vlan.append(tag & _VID_MASK)
        at += 4
    return Ethernet(tuple(vlan), protocol, at)


def parse_ip(frame: bytes, ethernet: Ethernet) -> IpPacket | None:
    """Return the IP packet in a frame; None if there is none that can be understood."""
    if ethernet.protocol == ETH_P_IP:
        return _parse_ipv4(frame, ethernet)
    if ethernet.protocol == ETH_P_IPV6:
        return _parse_ipv6(frame, ethernet)
    return None


def arp_identity(frame: bytes, ethernet: Ethernet) -> bytes | None:
    """Return what makes two ARP packets equal; None if it is not ARP for IPv4 over Ethernet.

    The target's hardware address means nothing in a request, and so is left out there.

    Spec: RFC 826.
    """
    body = frame[ethernet.at : ethernet.at + 28]
    is_arp = ethernet.protocol == ETH_P_ARP and len(body) == 28
    if not is_arp or body[:6] != b"\0\1\x08\0\6\4":
        return None
    is_request = body[6:8] == b"\0\1"
    return body[:18] + body[24:] if is_request else body


def _parse_ipv4(frame: bytes, ethernet: Ethernet) -> IpPacket | None:
    """Spec: RFC 791 section 3.1."""
    at = ethernet.at
    if len(frame) < at + _IPV4_MIN_BYTES:
        return None
    first, total, number, where, protocol, source, destination = _IPV4.unpack_from(frame, at)
    header = (first & 0xF) * 4
    if first >> 4 != 4 or header < _IPV4_MIN_BYTES or not header <= total <= len(frame) - at:
        return None
    offset, has_more = (where & 0x1FFF) * 8, bool(where & 0x2000)
    fragment = Fragment(number, offset, has_more) if offset or has_more else None
    body = frame[at + header : at + total]
    return IpPacket(ethernet.vlan, source, destination, protocol, b"", at + header, body, fragment)


def _parse_ipv6(frame: bytes, ethernet: Ethernet) -> IpPacket | None:
    """Spec: RFC 8200 sections 3 and 4."""
    at = ethernet.at
    if len(frame) < at + _IPV6_BYTES:
        return None
    first, length, protocol, source, destination = _IPV6.unpack_from(frame, at)
    begin = at = at + _IPV6_BYTES
    end = begin + length
    if first >> 28 != 6 or end > len(frame):
        return None
    fragment = None
    extensions = b""
    while fragment is None and (protocol in _SKIPPED_EXTENSIONS or protocol == _IPPROTO_FRAGMENT):
        if end < at + 8:
            return None
        if protocol == _IPPROTO_FRAGMENT:
            protocol, where, identification = _FRAGMENT.unpack_from(frame, at)
            fragment = Fragment(identification, where & 0xFFF8, bool(where & 1))
            at += 8
        else:
            size = 8 + frame[at + 1] * 8
            extensions += bytes((protocol,)) + frame[at : at + size]
            protocol = frame[at]
            at += size
    if at > end:
        return None
    if fragment is not None and not fragment.offset and not fragment.has_more:
        fragment = None  # an atomic fragment is a whole packet (RFC 6946)
    body = frame[at:end]
    return IpPacket(ethernet.vlan, source, destination, protocol, extensions, at, body, fragment)
