"""Traces on which this comparator and QEMU's are tried, what each does, and why they differ."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from colod.output.compare.decisions import Side
from colod.output.compare.segment import ACK, FIN, RST, SYN
from tests.unit.compare_samples import (
    GUEST_MAC,
    ISN,
    MSS,
    UDP,
    V4,
    V6,
    Ip,
    ethernet,
    icmp,
    tcp,
    time_stamps,
    udp,
)

FIRST = ISN + 1
ECHO_REPLY, ND_ADVERTISEMENT = 0, 136
_TOP = 1 << 32


class Verdict(StrEnum):
    """Whose behaviour a disagreement is."""

    AGREE = "agree"
    STRICTER = "ours stricter"
    """QEMU follows its design; the design lets out what a failover would take back."""
    QEMU = "QEMU's bug or gap"
    """QEMU misses its own design, or says itself that it does not support this."""


@dataclass(frozen=True)
class Outcome:
    """What a comparator did at once, before any time limit.

    Attributes:
        released: Which frames of the primary it released, by their order in the trace.
        asks: Whether it asked for a checkpoint.
    """

    released: tuple[int, ...]
    asks: bool = False

    def __str__(self) -> str:
        """Say it in a cell of a table."""
        if self.asks:
            what = "asks for a checkpoint"
        elif not self.released:
            return "holds"
        else:
            return "releases"
        return f"releases, then {what}" if self.released else what


@dataclass(frozen=True)
class Case:
    """One trace.

    Attributes:
        name: What happens in it.
        primary: Frames of the primary.
        secondary: Frames of the secondary.
        order: `p` and `s`, as the frames come.
        ours: What this comparator does.
        qemu: What QEMU's does.
        verdict: Whose behaviour the difference is.
        why: The reason, for a table.
    """

    name: str
    primary: tuple[bytes, ...]
    secondary: tuple[bytes, ...]
    order: str
    ours: Outcome
    qemu: Outcome
    verdict: Verdict = Verdict.AGREE
    why: str = ""

    def trace(self) -> Iterator[tuple[Side, bytes]]:
        """Return the frames in their order."""
        frames = {"p": iter(self.primary), "s": iter(self.secondary)}
        for letter in self.order:
            yield (Side.PRIMARY if letter == "p" else Side.SECONDARY), next(frames[letter])

    def row(self) -> str:
        """Return its line in the table of docs/colo.md."""
        return f"| {self.name} | {self.ours} | {self.qemu} | {self.verdict} | {self.why} |"


def _fragments(payload: bytes, size: int) -> tuple[bytes, ...]:
    body = struct.pack(">HHHH", 53, 40_000, 8 + len(payload), 0) + payload
    return tuple(V4.fragments(UDP, body, size))


def _arp() -> bytes:
    ends = GUEST_MAC + b"\xc0\0\2\7" + bytes(6) + b"\xc0\0\2\1"
    return ethernet(struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + ends, 0x0806)


_HELD, _ASKED, _FIRST = Outcome(()), Outcome((), asks=True), Outcome((0,))
_HUNDRED = bytes(range(100))
_HELLO = tcp(b"hello")

AGREED = (
    Case("equal segments", (_HELLO,), (_HELLO,), "ps", _FIRST, _FIRST),
    Case("equal segments, the secondary first", (_HELLO,), (_HELLO,), "sp", _FIRST, _FIRST),
    Case(
        "the same bytes, cut elsewhere",
        (tcp(b"abcdef"), tcp(b"ghij", seq=FIRST + 6)),
        (tcp(b"abcd"), tcp(b"efghij", seq=FIRST + 4)),
        "ppss",
        Outcome((0, 1)),
        Outcome((0, 1)),
    ),
    Case(
        "the secondary out of order, the primary later",
        (tcp(b"abcdef"),),
        (tcp(b"def", seq=FIRST + 3), tcp(b"abc")),
        "ssp",
        _FIRST,
        _FIRST,
    ),
    Case("a changed byte", (_HELLO,), (tcp(b"hallo"),), "ps", _ASKED, _ASKED),
    Case("a retransmission of the secondary", (_HELLO,), (_HELLO, _HELLO), "pss", _FIRST, _FIRST),
    Case(
        "sequence numbers that wrap",
        (tcp(b"abcdef", seq=_TOP - 3),),
        (tcp(b"abc", seq=_TOP - 3), tcp(b"def", seq=0)),
        "pss",
        _FIRST,
        _FIRST,
    ),
    Case(
        "the secondary acknowledges more",
        (tcp(b"hello", ack=6_000),),
        (tcp(b"hello", ack=7_000),),
        "sp",
        _FIRST,
        _FIRST,
    ),
    Case("equal pure acknowledgements", (tcp(),), (tcp(),), "ps", _FIRST, _FIRST),
    Case(
        "SYNs with other initial sequence numbers",
        (tcp(flags=SYN, seq=ISN, options=MSS),),
        (tcp(flags=SYN, seq=77, options=MSS),),
        "ps",
        _FIRST,
        _FIRST,
    ),
    Case(
        "equal FINs",
        (tcp(b"hello", flags=ACK | FIN),),
        (tcp(b"hello", flags=ACK | FIN),),
        "ps",
        _FIRST,
        _FIRST,
    ),
    Case("equal RSTs", (tcp(flags=RST),), (tcp(flags=RST),), "ps", _FIRST, _FIRST),
    Case(
        "time stamps on one side only",
        (tcp(b"hello", options=time_stamps(1)),),
        (_HELLO,),
        "ps",
        _FIRST,
        _FIRST,
    ),
    Case(
        "UDP with another identification and TTL",
        (udp(b"a"),),
        (udp(b"a", ip=Ip(identification=7, ttl=3)),),
        "ps",
        _FIRST,
        _FIRST,
    ),
    Case(
        "UDP in another order",
        (udp(b"a"), udp(b"b")),
        (udp(b"b"), udp(b"a")),
        "ppss",
        Outcome((0, 1)),
        Outcome((0, 1)),
    ),
    Case(
        "equal ICMP",
        (icmp(ECHO_REPLY, b"\0\1\0\1ping"),),
        (icmp(ECHO_REPLY, b"\0\1\0\1ping"),),
        "ps",
        _FIRST,
        _FIRST,
    ),
    Case(
        "equal ICMP to another peer",
        (icmp(ECHO_REPLY, b"\0\1\0\1ping"),),
        (icmp(ECHO_REPLY, b"\0\1\0\1ping", ip=Ip(destination="198.51.100.77")),),
        "ps",
        _HELD,
        _HELD,
    ),
    Case(
        "equal fragments",
        _fragments(_HUNDRED, 40),
        _fragments(_HUNDRED, 40),
        "pppsss",
        Outcome((0, 1, 2)),
        Outcome((0, 1, 2)),
    ),
)

DISAGREED = (
    Case(
        "the primary acknowledges more than the secondary, equal bytes",
        (tcp(b"hello", ack=6_000),),
        (tcp(b"hello", ack=5_000),),
        "ps",
        _HELD,
        _FIRST,
        Verdict.QEMU,
        "its acknowledgement rule is not applied where two packets have the same length; the "
        "client would never send again what the secondary lacks",
    ),
    Case(
        "the same, the secondary's packet longer",
        (tcp(b"hel", ack=6_000),),
        (tcp(b"hello", ack=5_000),),
        "ps",
        _HELD,
        _ASKED,
        Verdict.QEMU,
        "asks at once though the acknowledgement is only late: a checkpoint for nothing",
    ),
    Case(
        "a pure acknowledgement beyond the secondary's",
        (tcp(ack=6_000),),
        (tcp(ack=5_000),),
        "ps",
        _HELD,
        _FIRST,
        Verdict.STRICTER,
        "the client would never send again what the secondary lacks",
    ),
    Case(
        "the secondary's bytes out of order",
        (tcp(b"abcdef"),),
        (tcp(b"def", seq=FIRST + 3), tcp(b"abc")),
        "pss",
        _FIRST,
        Outcome((0,), asks=True),
        Verdict.QEMU,
        "compares bytes at different positions, so a checkpoint for nothing",
    ),
    Case(
        "a retransmission of the primary",
        (_HELLO, _HELLO),
        (_HELLO,),
        "psp",
        Outcome((0, 1)),
        _FIRST,
        Verdict.QEMU,
        "held until the secondary happens to send something",
    ),
    Case(
        "a retransmission of the primary with other bytes",
        (_HELLO, tcp(b"hallo")),
        (_HELLO, tcp(b"more!", seq=FIRST + 5)),
        "psps",
        Outcome((0,), asks=True),
        Outcome((0, 1)),
        Verdict.STRICTER,
        "what lies before the compared point is compared again, as far back as the history reaches",
    ),
    Case(
        "a retransmission that brings new bytes, too",
        (_HELLO, tcp(b"lo!!", seq=FIRST + 3)),
        (_HELLO, tcp(b"!!", seq=FIRST + 5)),
        "psps",
        Outcome((0, 1)),
        Outcome((0,), asks=True),
        Verdict.QEMU,
        "does not trim the overlap, so a checkpoint for nothing",
    ),
    Case(
        "a new connection between the same ends, with a lower sequence number",
        (tcp(b"hello", seq=90_001), tcp(flags=SYN, seq=50_000), tcp(b"secret", seq=50_001)),
        (tcp(b"hello", seq=90_001), tcp(flags=SYN, seq=50_000), tcp(b"other!", seq=50_001)),
        "pspsps",
        Outcome((0, 1), asks=True),
        Outcome((0, 1, 2)),
        Verdict.QEMU,
        "its compared point survives the old connection: the new one is not compared at all",
    ),
    Case(
        "SYNs with another MSS",
        (tcp(flags=SYN, seq=ISN, options=MSS),),
        (tcp(flags=SYN, seq=ISN, options=b"\2\4\5\xb5"),),
        "ps",
        _ASKED,
        _FIRST,
        Verdict.STRICTER,
        "after a failover the other end would go by terms that the survivor never heard of",
    ),
    Case(
        "a FIN of the primary alone",
        (tcp(b"hello", flags=ACK | FIN),),
        (_HELLO,),
        "ps",
        _HELD,
        _FIRST,
        Verdict.STRICTER,
        "the survivor would go on with a stream that the client has seen end",
    ),
    Case(
        "a FIN of the primary alone, without bytes",
        (tcp(flags=ACK | FIN),),
        (tcp(),),
        "ps",
        _HELD,
        _FIRST,
        Verdict.STRICTER,
        "the same; a packet without payload is never compared",
    ),
    Case(
        "FINs at different places",
        (tcp(b"hello", flags=ACK | FIN),),
        (tcp(b"hell", flags=ACK | FIN),),
        "ps",
        _ASKED,
        _HELD,
        Verdict.STRICTER,
        "they can never agree, so there is nothing to wait for",
    ),
    Case(
        "bytes of the primary beyond the secondary's FIN",
        (tcp(b"hello!"),),
        (tcp(b"hello", flags=ACK | FIN),),
        "sp",
        _ASKED,
        _HELD,
        Verdict.STRICTER,
        "the same",
    ),
    Case(
        "a RST of the primary alone",
        (tcp(flags=RST),),
        (tcp(),),
        "ps",
        _HELD,
        _FIRST,
        Verdict.STRICTER,
        "the survivor would go on with a connection that the client has seen reset",
    ),
    Case(
        "RSTs at different places",
        (tcp(flags=RST),),
        (tcp(flags=RST, seq=FIRST + 1),),
        "ps",
        _ASKED,
        _FIRST,
        Verdict.STRICTER,
        "the client heeds only the one at the place that it expects",
    ),
    Case(
        "a RST of the secondary alone",
        (_HELLO,),
        (_HELLO, tcp(flags=RST, seq=FIRST + 5)),
        "ssp",
        _HELD,
        _FIRST,
        Verdict.STRICTER,
        "the connection is dead at the survivor",
    ),
    Case(
        "Ethernet's padding on one side only",
        (tcp(b"x", ip=Ip(pad=True)),),
        (tcp(b"x"),),
        "ps",
        _FIRST,
        _HELD,
        Verdict.QEMU,
        "takes padding for payload",
    ),
    Case(
        "the same with UDP",
        (udp(b"a", ip=Ip(pad=True)),),
        (udp(b"a"),),
        "ps",
        _FIRST,
        _ASKED,
        Verdict.QEMU,
        "the same",
    ),
    Case(
        "different UDP payloads",
        (udp(b"a"),),
        (udp(b"b"),),
        "ps",
        _HELD,
        _ASKED,
        Verdict.QEMU,
        "asks at once though the equal one may only be behind; ours waits for its time limit",
    ),
    Case(
        "different ICMP payloads",
        (icmp(ECHO_REPLY, b"\0\1\0\1ping"),),
        (icmp(ECHO_REPLY, b"\0\1\0\2ping"),),
        "ps",
        _HELD,
        _ASKED,
        Verdict.QEMU,
        "the same",
    ),
    Case(
        "UDP without a checksum on one side",
        (udp(b"a"),),
        (udp(b"a")[:40] + b"\0\0" + udp(b"a")[42:],),
        "ps",
        _FIRST,
        _ASKED,
        Verdict.QEMU,
        "compares the checksum, which may be left to hardware",
    ),
    Case(
        "another IP protocol, another identification",
        (V4.frame(89, b"routes"),),
        (Ip(identification=9).frame(89, b"routes"),),
        "ps",
        _FIRST,
        _ASKED,
        Verdict.QEMU,
        "compares the whole frame, so a checkpoint for every packet of a guest that counts them",
    ),
    Case(
        "ARP of the primary alone",
        (_arp(),),
        (),
        "p",
        _HELD,
        _FIRST,
        Verdict.QEMU,
        "passes what is not IPv4 without comparing",
    ),
    Case(
        "IPv6 of the primary alone",
        (tcp(b"hello", ip=V6),),
        (),
        "p",
        _HELD,
        _FIRST,
        Verdict.QEMU,
        "the same",
    ),
    Case(
        "a changed byte in IPv6",
        (tcp(b"hello", ip=V6),),
        (tcp(b"hallo", ip=V6),),
        "ps",
        _ASKED,
        _FIRST,
        Verdict.QEMU,
        "the same",
    ),
    Case(
        "neighbour discovery of the primary alone",
        (icmp(ND_ADVERTISEMENT, bytes(20), ip=V6),),
        (),
        "p",
        _HELD,
        _FIRST,
        Verdict.QEMU,
        "the same",
    ),
    Case(
        "a VLAN tag, the primary alone",
        (tcp(b"hello", ip=Ip(vlan=(7,))),),
        (),
        "p",
        _HELD,
        _FIRST,
        Verdict.QEMU,
        "passes tagged frames without comparing",
    ),
    Case(
        "fragments of other sizes",
        _fragments(_HUNDRED, 40),
        _fragments(_HUNDRED, 64),
        "pppss",
        Outcome((0, 1, 2)),
        _ASKED,
        Verdict.QEMU,
        "compares fragments as if they were packets",
    ),
    Case(
        "a changed byte in the last fragment",
        _fragments(_HUNDRED, 40),
        _fragments(_HUNDRED[:-1] + b"!", 40),
        "pppsss",
        _HELD,
        Outcome((0, 1), asks=True),
        Verdict.QEMU,
        "releases pieces of a datagram that the secondary has not sent",
    ),
)

CASES = AGREED + DISAGREED
