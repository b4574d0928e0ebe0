"""Announcements are what their specifications say, byte by byte."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from colod.output.frames import (
    Guest,
    announcement,
    delays_s,
    gratuitous_arp,
    internet_checksum,
    parse_mac,
    rarp,
    unsolicited_advertisement,
)

MAC = parse_mac("00:16:3e:01:02:03")
V4 = IPv4Address("192.0.2.7")
V6 = IPv6Address("2001:db8::7")


def test_rarp_asks_for_its_own_address() -> None:
    expected = (
        "ffffffffffff 00163e010203 8035"
        "0001 0800 06 04 0003 00163e010203 00000000 00163e010203 00000000"
    )
    assert rarp(MAC) == bytes.fromhex(expected).ljust(60, b"\0")


def test_gratuitous_arp_comes_as_request_and_as_reply() -> None:
    request, reply = gratuitous_arp(MAC, V4)
    head = "ffffffffffff 00163e010203 0806 0001 0800 06 04"
    asked = "0001 00163e010203 c0000207 000000000000 c0000207"
    told = "0002 00163e010203 c0000207 ffffffffffff c0000207"
    assert request == bytes.fromhex(head + asked).ljust(60, b"\0")
    assert reply == bytes.fromhex(head + told).ljust(60, b"\0")


def test_unsolicited_advertisement_overrides_and_checks() -> None:
    frame = unsolicited_advertisement(MAC, V6)
    assert frame[:14].hex() == "33330000000100163e01020386dd"
    ip6, icmp = frame[14:54], frame[54:86]
    assert ip6[:8].hex() == "6000000000203aff", "32 bytes of ICMPv6 with hop limit 255"
    assert ip6[8:24] == V6.packed
    assert ip6[24:] == IPv6Address("ff02::1").packed
    assert icmp[0] == 136
    assert icmp[4:8].hex() == "20000000", "override, neither router nor solicited"
    assert icmp[8:24] == V6.packed
    assert icmp[24:] == b"\x02\x01" + MAC
    pseudo = ip6[8:] + struct.pack(">II", len(icmp), 58)
    assert internet_checksum(pseudo + icmp) == 0


def test_a_guest_without_known_addresses_is_announced_by_rarp_alone() -> None:
    assert announcement(Guest(MAC)) == (rarp(MAC),)


def test_all_addresses_of_a_guest_are_announced() -> None:
    frames = announcement(Guest(MAC, (V4, V6)))
    assert frames == (rarp(MAC), *gratuitous_arp(MAC, V4), unsolicited_advertisement(MAC, V6))
    assert all(len(frame) >= 60 for frame in frames)


def test_announcements_are_repeated_with_growing_pauses() -> None:
    assert delays_s(4) == (0.0, 0.05, 0.15, 0.25)
    assert delays_s(1) == (0.0,)
    assert max(delays_s(30)) == 0.55
    with pytest.raises(ValueError, match="at least 1"):
        delays_s(0)


@pytest.mark.parametrize("text", ["", "00:16:3e:01:02", "00163e010203", "01:16:3e:01:02:03", "x"])
def test_what_is_no_address_of_one_interface_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MAC address"):
        parse_mac(text)


@pytest.mark.parametrize(
    ("octets", "expected"), [(b"", 0xFFFF), (b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7", 0x220D)]
)
def test_the_checksum_is_that_of_rfc_1071(octets: bytes, expected: int) -> None:
    assert internet_checksum(octets) == expected
