"""The Ethernet frames that tell a network where a guest is now."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

MIN_FRAME_BYTES = 60
"""Shortest Ethernet frame without its check sum. Source: IEEE 802.3, minFrameSize."""

ETH_P_IPV6 = 0x86DD
ETH_P_ARP = 0x0806
ETH_P_RARP = 0x8035

_ARP_HEADER = struct.pack(">HHBB", 1, 0x0800, 6, 4)
_REQUEST, _REPLY, _REQUEST_REVERSE = 1, 2, 3
_BROADCAST = b"\xff" * 6
_NOBODY = bytes(6)
_ANY4 = bytes(4)
_ALL_NODES = IPv6Address("ff02::1").packed
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ICMPV6 = 58
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x2000_0000
_TARGET_LINK_LAYER_ADDRESS = 2
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Guest:
    """One interface of a guest, as the network knows it.

    Attributes:
        mac: Its six bytes.
        addresses: Its IP addresses, as far as they are known.
    """

    mac: bytes
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()


def parse_mac(text: str) -> bytes:
    """Return the six bytes of `00:16:3e:01:02:03`.

    Raises:
        ValueError: If it is not such, or the address of a group.
    """
    if not _MAC.fullmatch(text):
        raise ValueError(f"MAC address {text!r}: want six pairs of hexadecimal digits")
    mac = bytes.fromhex(text.replace(":", ""))
    if mac[0] & 1:
        raise ValueError(f"MAC address {text!r} is that of a group")
    return mac


def announcement(guest: Guest) -> tuple[bytes, ...]:
    """Return all frames that announce a guest once.

    RARP moves the address in the switches' tables even if no IP address is known, as QEMU does
    after a migration (net/announce.c); the others renew what neighbours remember.
    """
    frames = [rarp(guest.mac)]
    for address in guest.addresses:
        if isinstance(address, IPv4Address):
            frames += gratuitous_arp(guest.mac, address)
        else:
            frames.append(unsolicited_advertisement(guest.mac, address))
    return tuple(frames)


def rarp(mac: bytes) -> bytes:
    """Return a reverse request for one's own address, which nobody has to answer.

    Spec: RFC 903; the same bytes as QEMU's announce_self_create().
    """
    body = _ARP_HEADER + struct.pack(">H6s4s6s4s", _REQUEST_REVERSE, mac, _ANY4, mac, _ANY4)
    return _frame(_BROADCAST, mac, ETH_P_RARP, body)


def gratuitous_arp(mac: bytes, address: IPv4Address) -> tuple[bytes, bytes]:
    """Return the announcement in both forms, for neighbours that heed only one of them.

    Spec: RFC 5227 section 2.3 (request), RFC 5944 section 4.6 (both).
    """
    ip = address.packed
    request = struct.pack(">H6s4s6s4s", _REQUEST, mac, ip, _NOBODY, ip)
    reply = struct.pack(">H6s4s6s4s", _REPLY, mac, ip, _BROADCAST, ip)
    return (
        _frame(_BROADCAST, mac, ETH_P_ARP, _ARP_HEADER + request),
        _frame(_BROADCAST, mac, ETH_P_ARP, _ARP_HEADER + reply),
    )


def unsolicited_advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """Return an advertisement to all nodes that overrides what they remember.

    Spec: RFC 4861 sections 4.4 and 7.2.6.
    """
    option = struct.pack(">BB6s", _TARGET_LINK_LAYER_ADDRESS, 1, mac)
    rest = struct.pack(">I16s", _OVERRIDE, address.packed) + option
    length = 4 + len(rest)
    pseudo = address.packed + _ALL_NODES + struct.pack(">II", length, _ICMPV6)
    head = struct.pack(">BB", _NEIGHBOUR_ADVERTISEMENT, 0)
    check = internet_checksum(pseudo + head + b"\0\0" + rest)
    ip6 = struct.pack(">IHBB16s16s", 6 << 28, length, _ICMPV6, 255, address.packed, _ALL_NODES)
    body = ip6 + head + struct.pack(">H", check) + rest
    return _frame(_ALL_NODES_MAC, mac, ETH_P_IPV6, body)


def internet_checksum(octets: bytes) -> int:
    """Return the complement of the one's complement sum of 16-bit words. Spec: RFC 1071."""
    padded = octets + b"\0" * (len(octets) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def delays_s(rounds: int) -> tuple[float, ...]:
    """Return how long to wait before each round: none, 50 ms, then 100 ms more each up to 550 ms.

    One frame may be lost, and a switch may open its port only after some time. The steps are those
    of QEMU (qapi/net.json, AnnounceParameters).

    Args:
        rounds: How many, at least 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds {rounds}: want at least 1")
    return (0.0, *(min(50 + 100 * n, 550) / 1000 for n in range(rounds - 1)))


def _frame(to: bytes, source: bytes, protocol: int, body: bytes) -> bytes:
    return (to + source + struct.pack(">H", protocol) + body).ljust(MIN_FRAME_BYTES, b"\0")
