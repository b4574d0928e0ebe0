"""Both copies behind one client: with the rewriter their streams are equal, whatever their ISNs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from colod.output.compare.comparator import Comparator
from colod.output.compare.rewriter import Rewriter
from colod.output.compare.segment import ACK, FIN, SYN
from colod.output.compare.sequence import MODULUS
from tests.property.compare_traces import Piece, parsed, pieces
from tests.unit.compare_samples import (
    MSS,
    TCP,
    V4,
    V6,
    WINDOW_SCALE_7,
    Ip,
    asked,
    dropped,
    icmp,
    released,
    segment,
    tcp,
)

CLIENT_ISN = 70_000
GUEST_PORTS, CLIENT_PORTS = (80, 40_000), (40_000, 80)
numbers = st.sampled_from([0, 5, MODULUS - 3, MODULUS // 2]) | st.integers(0, MODULUS - 1)


@dataclass
class Connection:
    """A client, and the two copies that it takes for one.

    Attributes:
        isns: Of the primary and of the secondary.
        is_active: Whether the guest opens the connection.
    """

    isns: tuple[int, int]
    is_active: bool
    ip: Ip
    comparator: Comparator = field(default_factory=Comparator)
    rewriter: Rewriter = field(default_factory=lambda: Rewriter(4))

    def both(self, frames: tuple[bytes, bytes]) -> None:
        """Let both copies send, and expect the primary's to leave as it is."""
        ours, theirs = frames
        shifted = self.rewriter.outbound(theirs)
        decisions = self.comparator.primary(ours, 0.0) + self.comparator.secondary(shifted, 0.0)
        assert asked(decisions) == []
        assert released(decisions) == [ours]
        assert dropped(decisions) == [shifted]

    def syns(self, flags: int, ack: int) -> tuple[bytes, bytes]:
        """Return the SYN or SYN-ACK of both copies."""
        options = MSS + WINDOW_SCALE_7
        ours, theirs = (
            self.of_guest(at=isn, flags=flags, ack=ack, options=options) for isn in self.isns
        )
        return ours, theirs

    def of_guest(self, payload: bytes = b"", at: int = 0, **fields: Any) -> bytes:
        """Return a frame of a copy, at that sequence number; `fields` as for `segment`."""
        return tcp(payload, seq=at, ip=self.ip, ports=GUEST_PORTS, **fields)

    def of_client(self, **fields: Any) -> bytes:
        """Return a frame of the client, which knows only the primary's numbers."""
        return tcp(ip=self.ip.reversed(), ports=CLIENT_PORTS, **fields)

    def hears(self, frame: bytes, offset: int) -> None:
        """Let both copies get a frame of the client, and look at what the secondary gets."""
        wanted = (parsed(frame).ack + offset) % MODULUS
        assert parsed(self.rewriter.inbound(frame)).ack == wanted

    def open(self) -> None:
        """Shake hands."""
        ours, theirs = self.isns
        if self.is_active:
            self.both(self.syns(SYN, 0))
            answer = self.of_client(seq=CLIENT_ISN, ack=ours + 1, flags=SYN | ACK)
            self.hears(answer, theirs - ours)
        else:
            self.rewriter.inbound(self.of_client(seq=CLIENT_ISN, ack=0, flags=SYN))
            self.both(self.syns(SYN | ACK, CLIENT_ISN + 1))
            self.hears(self.of_client(seq=CLIENT_ISN + 1, ack=ours + 1), theirs - ours)


connections = st.builds(
    Connection, st.tuples(numbers, numbers), st.booleans(), st.sampled_from([V4, V6])
)


@given(connections, st.binary(min_size=1, max_size=40), st.data())
def test_copies_with_other_numbers_send_the_same_stream(
    connection: Connection, stream: bytes, data: st.DataObject
) -> None:
    connection.open()
    ack = CLIENT_ISN + 1
    sent: list[list[bytes]] = []
    for isn in connection.isns:
        cut: list[Piece] = data.draw(pieces(len(stream), 0))
        frames = [
            connection.of_guest(stream[each.begin : each.end], isn + 1 + each.begin, ack=ack)
            for each in cut
        ]
        end = connection.of_guest(at=isn + 1 + len(stream), ack=ack, flags=ACK | FIN)
        sent.append([*frames, end])
    ours, theirs = sent
    comparator, rewriter = connection.comparator, connection.rewriter
    decisions = [each for frame in ours for each in comparator.primary(frame, 0.0)]
    for frame in theirs:
        decisions += comparator.secondary(rewriter.outbound(frame), 0.0)
    assert asked(tuple(decisions)) == []
    assert sorted(released(tuple(decisions))) == sorted(ours)
    assert comparator.held_frames == 0


@given(connections)
def test_errors_of_both_copies_about_one_segment_are_equal(connection: Connection) -> None:
    connection.open()
    ip, (ours, theirs) = connection.ip, connection.isns
    connection.both((connection.of_guest(b"x", ours + 1), connection.of_guest(b"x", theirs + 1)))

    def error(ack: int) -> bytes:
        body = segment(b"lost", ack=ack, ip=ip.reversed(), ports=CLIENT_PORTS)
        quoted = ip.reversed().frame(TCP, body)[14:]
        return icmp(3 if ip.is_v4 else 1, bytes(4) + quoted, ip=ip)

    connection.both((error(ours + 1), error(theirs + 1)))


@given(connections, st.binary(min_size=1, max_size=40))
def test_after_a_failover_the_client_goes_on_with_the_numbers_it_knows(
    connection: Connection, stream: bytes
) -> None:
    connection.open()
    ours, theirs = connection.isns
    connection.rewriter.failed_over()
    sent = connection.rewriter.outbound(connection.of_guest(stream, theirs + 1))
    assert sent == connection.of_guest(stream, ours + 1), "with a right checksum"
    connection.hears(connection.of_client(ack=ours + 1 + len(stream)), theirs - ours)
