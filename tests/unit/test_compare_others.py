"""Packets that are not TCP leave when the secondary has sent an equal one, in any order."""

from __future__ import annotations

import struct

import pytest

from colod.output.compare.comparator import Comparator
from colod.output.compare.limits import Limits
from tests.unit.compare_samples import (
    GUEST_MAC,
    UDP,
    V4,
    V6,
    Ip,
    Pair,
    asked,
    dropped,
    ethernet,
    icmp,
    released,
    segment,
    udp,
)

ECHO_REPLY, UNREACHABLE = 0, 3
ND_ADVERTISEMENT = 136


def arp(operation: int, target_mac: bytes = bytes(6), *, pad: bool = False) -> bytes:
    """Return a frame with an ARP packet."""
    ends = GUEST_MAC + b"\xc0\0\2\7" + target_mac + b"\xc0\0\2\1"
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + ends
    return ethernet(body, 0x0806, pad=pad)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (udp(b"answer", ip=Ip(identification=1)), udp(b"answer", ip=Ip(identification=2, ttl=3))),
        (udp(b"answer", ip=V6), udp(b"answer", ip=V6)),
        (udp(b"", ip=Ip(pad=True)), udp(b"")),
        (icmp(ECHO_REPLY, b"\0\1\0\1ping"), icmp(ECHO_REPLY, b"\0\1\0\1ping", ip=Ip(ttl=3))),
        (icmp(ND_ADVERTISEMENT, bytes(20), ip=V6), icmp(ND_ADVERTISEMENT, bytes(20), ip=V6)),
        (arp(1, bytes(6)), arp(1, b"\1" * 6, pad=True)),
        (arp(2, b"\1" * 6), arp(2, b"\1" * 6, pad=True)),
        (V4.frame(89, b"ospf"), Ip(identification=5).frame(89, b"ospf")),
        (ethernet(b"lldp", 0x88CC), ethernet(b"lldp", 0x88CC)),
        (b"runt", b"runt"),
    ],
)
def test_equal_packets_match(ours: bytes, theirs: bytes) -> None:
    pair = Pair()
    pair.primary(ours)
    decisions = pair.secondary(theirs)
    assert released(decisions) == [ours]
    assert dropped(decisions) == [theirs]
    assert released(pair.primary(ours)) == [], "one proof serves once"
    pair.checkpoint()
    pair.secondary(theirs)
    decisions = pair.primary(ours)
    assert released(decisions) == [ours]
    assert dropped(decisions) == [theirs]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (udp(b"answer"), udp(b"answes")),
        (udp(b"answer"), udp(b"answer", ports=(53, 40_001))),
        (udp(b"answer", ip=Ip(vlan=(7,))), udp(b"answer")),
        (icmp(ECHO_REPLY, b"\0\1\0\1ping"), icmp(ECHO_REPLY, b"\0\1\0\2ping")),
        (icmp(UNREACHABLE, b"\0\0\0\0x", code=1), icmp(UNREACHABLE, b"\0\0\0\0x", code=3)),
        (arp(1), arp(2)),
        (arp(2, b"\1" * 6), arp(2, b"\2" * 6)),
        (V4.frame(89, b"ospf"), V4.frame(88, b"ospf")),
        (ethernet(b"lldp", 0x88CC), ethernet(b"lldp", 0x88CD)),
        (b"runt", b"Runt"),
    ],
)
def test_different_packets_do_not_match(ours: bytes, theirs: bytes) -> None:
    pair = Pair()
    pair.primary(ours)
    assert pair.secondary(theirs) == ()
    assert asked(pair.wait()) == ["unmatched"]


def test_order_does_not_matter() -> None:
    pair = Pair()
    ours = [udp(bytes([n])) for n in range(3)]
    pair.primary(*ours)
    assert released(pair.secondary(*reversed(ours))) == ours[::-1]


def test_as_many_equal_packets_leave_as_the_secondary_sent() -> None:
    pair = Pair()
    pair.primary(udp(b"x"), udp(b"x"), udp(b"x"))
    assert len(released(pair.secondary(udp(b"x"), udp(b"x")))) == 2
    assert pair.comparator.held_frames == 1


def test_an_arp_request_of_the_secondary_alone_has_until_the_time_limit() -> None:
    pair = Pair()
    assert pair.secondary(arp(1)) == ()
    assert pair.comparator.next_deadline() == pair.now + Limits().timeout_s
    assert asked(pair.wait()) == ["unmatched"]
    assert pair.comparator.next_deadline() is None, "one request at a time"


def test_fragments_of_a_datagram_leave_together() -> None:
    for ip in (V4, V6):
        pair = Pair()
        body = struct.pack(">HHHH", 53, 40_000, 108, 0) + bytes(range(100))
        ours, theirs = ip.fragments(UDP, body, 40), ip.fragments(UDP, body, 64)
        assert pair.primary(*ours) == ()
        decisions = pair.secondary(*theirs)
        assert released(decisions) == ours
        assert dropped(decisions) == theirs
        assert pair.comparator.held_frames == 0


def test_overlapping_fragments_prove_nothing() -> None:
    pair = Pair()
    body = struct.pack(">HHHH", 53, 40_000, 108, 0) + bytes(range(100))
    pieces = V4.fragments(UDP, body, 40)
    liar = V4.fragments(UDP, bytes(108), 24)[1]
    pair.primary(*pieces)
    assert released(pair.secondary(pieces[0], liar, *pieces[1:])) == []
    assert asked(pair.wait()) == ["unmatched"]


def test_a_copy_of_a_fragment_does_no_harm() -> None:
    pair = Pair()
    body = struct.pack(">HHHH", 53, 40_000, 108, 0) + bytes(range(100))
    pieces = V4.fragments(UDP, body, 40)
    pair.primary(*pieces)
    assert released(pair.secondary(pieces[0], *pieces)) == pieces


def test_fragments_beyond_the_bound_wait_for_a_checkpoint() -> None:
    pair = Pair(Comparator(Limits(datagrams=1)))
    first = [Ip(identification=n).fragments(UDP, segment(bytes(100)), 40)[0] for n in range(2)]
    assert asked(pair.primary(*first)) == ["space"]
    assert released(pair.checkpoint()) == first
