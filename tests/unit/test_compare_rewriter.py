"""The secondary's sequence numbers become the primary's, and the client's acknowledgements its."""

from __future__ import annotations

import struct

import pytest

from colod.output.compare.rewriter import Rewriter
from colod.output.compare.segment import ACK, FIN, RST, SYN
from tests.unit.compare_samples import (
    TCP,
    V4,
    V6,
    Ip,
    icmp,
    is_checked,
    segment,
    tcp,
    udp,
)

CLIENT_ISN, OURS, THEIRS = 4_000, 1_000, (1 << 32) - 50
GUEST_PORTS, CLIENT_PORTS = (80, 40_000), (40_000, 80)
BOTH = pytest.mark.parametrize("ip", [V4, V6], ids=["ipv4", "ipv6"])


def from_guest(payload: bytes = b"", ip: Ip = V4, **fields: int | bytes) -> bytes:
    return tcp(payload, ip=ip, ports=GUEST_PORTS, **fields)


def to_guest(payload: bytes = b"", ip: Ip = V4, **fields: int | bytes) -> bytes:
    return tcp(payload, ip=ip.reversed(), ports=CLIENT_PORTS, **fields)


def accepted(rewriter: Rewriter, ip: Ip = V4) -> None:
    """Let a client connect to the guest."""
    syn = to_guest(ip=ip, seq=CLIENT_ISN, ack=0, flags=SYN)
    syn_ack = from_guest(ip=ip, seq=THEIRS, ack=CLIENT_ISN + 1, flags=SYN | ACK)
    assert rewriter.inbound(syn) == syn
    assert rewriter.outbound(syn_ack) == syn_ack
    theirs = to_guest(ip=ip, seq=CLIENT_ISN + 1, ack=THEIRS + 1)
    assert rewriter.inbound(to_guest(ip=ip, seq=CLIENT_ISN + 1, ack=OURS + 1)) == theirs


@BOTH
def test_numbers_of_an_accepted_connection_are_shifted(ip: Ip) -> None:
    rewriter = Rewriter(9)
    accepted(rewriter, ip)
    sent = rewriter.outbound(from_guest(b"hello", ip=ip, seq=THEIRS + 1))
    assert sent == from_guest(b"hello", ip=ip, seq=OURS + 1), "with a right checksum"
    came = rewriter.inbound(to_guest(b"hi", ip=ip, ack=OURS + 6))
    assert came == to_guest(b"hi", ip=ip, ack=THEIRS + 6)


def test_numbers_of_an_opened_connection_are_shifted() -> None:
    """The SYN-ACK, too: with the primary's number the secondary would refuse it."""
    rewriter = Rewriter(9)
    syn = from_guest(seq=THEIRS, ack=0, flags=SYN)
    assert rewriter.outbound(syn) == rewriter.outbound(syn) == syn
    came = rewriter.inbound(to_guest(seq=CLIENT_ISN, ack=OURS + 1, flags=SYN | ACK))
    assert came == to_guest(seq=CLIENT_ISN, ack=THEIRS + 1, flags=SYN | ACK)
    assert rewriter.outbound(from_guest(seq=THEIRS + 1)) == from_guest(seq=OURS + 1)


def test_a_simultaneous_opening_is_learned_from_the_last_acknowledgement() -> None:
    rewriter = Rewriter(9)
    rewriter.outbound(from_guest(seq=THEIRS, ack=0, flags=SYN))
    rewriter.inbound(to_guest(seq=CLIENT_ISN, ack=0, flags=SYN))
    rewriter.outbound(from_guest(seq=THEIRS, ack=CLIENT_ISN + 1, flags=SYN | ACK))
    came = rewriter.inbound(to_guest(seq=CLIENT_ISN + 1, ack=OURS + 1))
    assert came == to_guest(seq=CLIENT_ISN + 1, ack=THEIRS + 1)


def test_a_reset_is_shifted_like_any_segment() -> None:
    rewriter = Rewriter(9)
    accepted(rewriter)
    sent = rewriter.outbound(from_guest(seq=THEIRS + 9, flags=RST))
    assert sent == from_guest(seq=OURS + 9, flags=RST)


@pytest.mark.parametrize("padding", [b"\1\1", b"\1"])
def test_blocks_of_a_selective_acknowledgement_are_shifted(padding: bytes) -> None:
    rewriter = Rewriter(9)
    accepted(rewriter)

    def sack(base: int) -> bytes:
        edges = [(base + n) % (1 << 32) for n in (10, 20, 60, 70)]
        return (padding + b"\5\x12" + struct.pack(">4I", *edges)).ljust(20, b"\0")

    came = rewriter.inbound(to_guest(ack=OURS + 1, options=sack(OURS)))
    assert came == to_guest(ack=THEIRS + 1, options=sack(THEIRS))


@BOTH
@pytest.mark.parametrize("size", [8, 15, 20, 25])
def test_what_errors_quote_is_shifted(ip: Ip, size: int) -> None:
    rewriter = Rewriter(9)
    accepted(rewriter, ip)

    def quoting(quoter: Ip, quoted: Ip, body: bytes) -> bytes:
        packet = quoted.frame(TCP, body)[14 : 14 + (20 if ip.is_v4 else 40) + size]
        return icmp(3 if ip.is_v4 else 2, b"\0\0\5\xdc" + packet, ip=quoter)

    def own(seq: int) -> bytes:
        return segment(b"hello", seq=seq, ip=ip, ports=GUEST_PORTS)

    def peers(ack: int) -> bytes:
        return segment(b"hello", ack=ack, ip=ip.reversed(), ports=CLIENT_PORTS)

    came = rewriter.inbound(quoting(ip.reversed(), ip, own(OURS + 1)))
    assert came == quoting(ip.reversed(), ip, own(THEIRS + 1))
    sent = rewriter.outbound(quoting(ip, ip.reversed(), peers(THEIRS + 1)))
    assert sent == quoting(ip, ip.reversed(), peers(OURS + 1))


def test_a_wrong_checksum_stays_wrong() -> None:
    rewriter = Rewriter(9)
    accepted(rewriter)
    frame = bytearray(from_guest(b"hello", seq=THEIRS + 1))
    frame[-1] ^= 1
    assert not is_checked(V4, TCP, rewriter.outbound(bytes(frame))[34:])


def test_a_segment_in_fragments_is_shifted_in_its_first_one() -> None:
    rewriter = Rewriter(9)
    accepted(rewriter)

    def pieces(seq: int) -> list[bytes]:
        return V4.fragments(TCP, segment(bytes(100), seq=seq, ports=GUEST_PORTS), 40)

    assert [rewriter.outbound(each) for each in pieces(THEIRS + 1)] == pieces(OURS + 1)


def test_a_checkpoint_makes_all_shifts_zero() -> None:
    rewriter = Rewriter(9)
    accepted(rewriter)
    rewriter.checkpoint_committed()
    assert rewriter.outbound(from_guest(seq=OURS + 1)) == from_guest(seq=OURS + 1)
    assert len(rewriter) == 0


def test_after_a_failover_connections_go_on_and_new_ones_are_left_alone() -> None:
    rewriter = Rewriter(9)
    accepted(rewriter)
    rewriter.failed_over()
    assert rewriter.outbound(from_guest(seq=THEIRS + 1)) == from_guest(seq=OURS + 1)
    rewriter.inbound(to_guest(seq=CLIENT_ISN + 999, ack=0, flags=SYN))
    assert rewriter.outbound(from_guest(seq=THEIRS + 1)) == from_guest(seq=THEIRS + 1)
    assert len(rewriter) == 0


def test_a_handshake_cut_by_a_failover_is_learned_from_the_client() -> None:
    """Whether the primary's SYN-ACK had left, only the client's acknowledgement says."""
    for seen in (OURS, THEIRS):
        rewriter = Rewriter(9)
        rewriter.inbound(to_guest(seq=CLIENT_ISN, ack=0, flags=SYN))
        rewriter.outbound(from_guest(seq=THEIRS, ack=CLIENT_ISN + 1, flags=SYN | ACK))
        rewriter.failed_over()
        assert rewriter.inbound(to_guest(ack=seen + 1)) == to_guest(ack=THEIRS + 1)
        assert rewriter.outbound(from_guest(seq=THEIRS + 1)) == from_guest(seq=seen + 1)


def test_a_handshake_without_an_answer_yet_is_not_shifted_after_a_failover() -> None:
    rewriter = Rewriter(9)
    rewriter.inbound(to_guest(seq=CLIENT_ISN, ack=0, flags=SYN))
    rewriter.failed_over()
    assert len(rewriter) == 0


def test_a_copy_of_the_clients_syn_changes_nothing() -> None:
    rewriter = Rewriter(9)
    accepted(rewriter)
    rewriter.inbound(to_guest(seq=CLIENT_ISN, ack=0, flags=SYN))
    assert rewriter.outbound(from_guest(seq=THEIRS + 1)) == from_guest(seq=OURS + 1)


def test_a_connection_in_use_is_never_forgotten_for_another() -> None:
    rewriter = Rewriter(1)
    accepted(rewriter)
    other = tcp(ip=V4.reversed(), ports=(40_001, 80), flags=SYN)
    rewriter.inbound(other)
    assert rewriter.is_full
    assert rewriter.outbound(from_guest(seq=THEIRS + 1)) == from_guest(seq=OURS + 1)
    rewriter.checkpoint_committed()
    assert not rewriter.is_full


@pytest.mark.parametrize("ending", ["fins", "reset"])
def test_an_ended_connection_makes_room(ending: str) -> None:
    rewriter = Rewriter(1)
    accepted(rewriter)
    if ending == "reset":
        rewriter.inbound(to_guest(flags=RST))
    else:
        rewriter.inbound(to_guest(flags=ACK | FIN, ack=OURS + 1))
        rewriter.outbound(from_guest(flags=ACK | FIN, seq=THEIRS + 1))
    rewriter.inbound(tcp(ip=V4.reversed(), ports=(40_001, 80), flags=SYN))
    assert not rewriter.is_full
    assert len(rewriter) == 1


@pytest.mark.parametrize(
    "frame",
    [
        udp(b"x"),
        b"",
        from_guest(b"x"),
        icmp(3, bytes(4)),
        icmp(3, bytes(4) + b"\x45"),
        icmp(8, b""),
    ],
)
def test_other_frames_pass_as_they_are(frame: bytes) -> None:
    rewriter = Rewriter(9)
    assert rewriter.outbound(frame) == rewriter.inbound(frame) == frame
