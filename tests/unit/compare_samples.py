"""Frames for tests of the comparator, byte by byte as a guest would send them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

from colod.output.compare.comparator import Comparator
from colod.output.compare.decisions import Decisions, Drop, Lose, Release, RequestCheckpoint
from colod.output.compare.segment import ACK
from colod.output.frames import MIN_FRAME_BYTES, internet_checksum

GUEST_MAC, CLIENT_MAC = bytes.fromhex("00163e010203"), bytes.fromhex("00163e0a0b0c")
GUEST, CLIENT = "192.0.2.7", "198.51.100.9"
GUEST6, CLIENT6 = "2001:db8::7", "2001:db8:1::9"
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
ISN = 1_000
"""Of the guest as the client sees it; the stream begins one behind it."""


def ethernet(payload: bytes, protocol: int, vlan: tuple[int, ...] = (), pad: bool = False) -> bytes:
    """Return a frame of the guest, padded to Ethernet's least size if asked to."""
    tags = b"".join(struct.pack(">HH", 0x8100, vid) for vid in vlan)
    frame = CLIENT_MAC + GUEST_MAC + tags + struct.pack(">H", protocol) + payload
    return frame.ljust(MIN_FRAME_BYTES, b"\0") if pad else frame


@dataclass(frozen=True, kw_only=True)
class Ip:
    """Addresses and what else an IP header says; the family follows from the addresses."""

    source: str = GUEST
    destination: str = CLIENT
    identification: int = 0
    ttl: int = 64
    vlan: tuple[int, ...] = ()
    pad: bool = False

    @property
    def is_v4(self) -> bool:
        return ip_address(self.source).version == 4

    @property
    def pseudo(self) -> bytes:
        return ip_address(self.source).packed + ip_address(self.destination).packed

    def frame(self, protocol: int, body: bytes) -> bytes:
        """Return the whole packet in one frame."""
        return self._frame(protocol, body, 0, False) if self.is_v4 else self._frame6(protocol, body)

    def fragments(self, protocol: int, body: bytes, size: int) -> list[bytes]:
        """Return the packet in fragments of `size` bytes, a multiple of 8."""
        pieces = [(at, body[at : at + size]) for at in range(0, len(body), size)]
        if self.is_v4:
            return [self._frame(protocol, p, at, at + size < len(body)) for at, p in pieces]
        return [
            self._frame6(44, self._fragment6(protocol, at, at + size < len(body)) + p)
            for at, p in pieces
        ]

    def _frame(self, protocol: int, body: bytes, at: int, has_more: bool) -> bytes:
        where = at // 8 | has_more << 13
        ends = self.pseudo
        head = struct.pack(
            ">BBHHHBBH", 0x45, 0, 20 + len(body), self.identification, where, self.ttl, protocol, 0
        )
        check = internet_checksum(head + ends)
        header = head[:10] + struct.pack(">H", check) + ends
        return ethernet(header + body, 0x0800, self.vlan, self.pad)

    def _frame6(self, protocol: int, body: bytes) -> bytes:
        head = struct.pack(">IHBB", 6 << 28, len(body), protocol, self.ttl) + self.pseudo
        return ethernet(head + body, 0x86DD, self.vlan, self.pad)

    def _fragment6(self, protocol: int, at: int, has_more: bool) -> bytes:
        return struct.pack(">BxHI", protocol, at | has_more, self.identification)

    def reversed(self) -> Ip:
        return replace(self, source=self.destination, destination=self.source)


V4 = Ip()
V6 = Ip(source=GUEST6, destination=CLIENT6)


def with_checksum(ip: Ip, protocol: int, body: bytes, at: int) -> bytes:
    """Return a transport's bytes with the checksum at `at` put in."""
    pseudo = ip.pseudo + struct.pack(">II", len(body), protocol)
    check = internet_checksum(pseudo + body[:at] + b"\0\0" + body[at + 2 :])
    return body[:at] + struct.pack(">H", check) + body[at + 2 :]


def is_checked(ip: Ip, protocol: int, body: bytes) -> bool:
    """Whether a transport's checksum is right."""
    return internet_checksum(ip.pseudo + struct.pack(">II", len(body), protocol) + body) == 0


def segment(
    payload: bytes = b"",
    *,
    seq: int = ISN + 1,
    ack: int = 5_000,
    flags: int = ACK,
    window: int = 500,
    options: bytes = b"",
    ports: tuple[int, int] = (80, 40_000),
    ip: Ip = V4,
) -> bytes:
    """Return the bytes of a TCP segment; numbers are taken modulo 2**32."""
    header = struct.pack(
        ">HHIIBBHHH",
        *ports,
        seq % (1 << 32),
        ack % (1 << 32),
        (5 + len(options) // 4) << 4,
        flags,
        window,
        0,
        0,
    )
    return with_checksum(ip, TCP, header + options + payload, 16)


def tcp(payload: bytes = b"", *, ip: Ip = V4, **fields: object) -> bytes:
    """Return a frame with a TCP segment; `fields` as for `segment`."""
    return ip.frame(TCP, segment(payload, ip=ip, **fields))  # type: ignore[arg-type]


def udp(payload: bytes, *, ports: tuple[int, int] = (53, 40_000), ip: Ip = V4) -> bytes:
    """Return a frame with a UDP datagram."""
    body = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    return ip.frame(UDP, with_checksum(ip, UDP, body, 6))


def icmp(kind: int, rest: bytes, *, code: int = 0, ip: Ip = V4) -> bytes:
    """Return a frame with an ICMP message; `rest` follows the checksum."""
    body = struct.pack(">BBH", kind, code, 0) + rest
    if not ip.is_v4:
        return ip.frame(ICMPV6, with_checksum(ip, ICMPV6, body, 2))
    check = struct.pack(">H", internet_checksum(body))
    return ip.frame(ICMP, body[:2] + check + rest)


MSS, WINDOW_SCALE_7, SACK_PERMITTED = b"\2\4\5\xb4", b"\3\3\7\1", b"\4\2\1\1"


def time_stamps(value: int) -> bytes:
    """Return the option that carries time stamps."""
    return b"\1\1\x08\x0a" + struct.pack(">II", value, 0)


def released(decisions: Decisions) -> list[bytes]:
    """Return the frames that may leave."""
    return [each.frame for each in decisions if isinstance(each, Release)]


def dropped(decisions: Decisions) -> list[bytes]:
    """Return the secondary's frames that are done with."""
    return [each.frame for each in decisions if isinstance(each, Drop)]


def lost(decisions: Decisions) -> list[bytes]:
    """Return the primary's frames that found no room."""
    return [each.frame for each in decisions if isinstance(each, Lose)]


def asked(decisions: Decisions) -> list[str]:
    """Return the reasons of the checkpoints asked for."""
    return [each.reason for each in decisions if isinstance(each, RequestCheckpoint)]


class Pair:
    """A comparator fed by hand at a time that does not pass unless told."""

    def __init__(self, comparator: Comparator | None = None) -> None:
        self.comparator = comparator or Comparator()
        self.now = 100.0

    def primary(self, *frames: bytes) -> Decisions:
        return tuple(d for each in frames for d in self.comparator.primary(each, self.now))

    def secondary(self, *frames: bytes) -> Decisions:
        return tuple(d for each in frames for d in self.comparator.secondary(each, self.now))

    def wait(self) -> Decisions:
        """Let time pass to the deadline."""
        deadline = self.comparator.next_deadline()
        assert deadline is not None, "nothing waits"
        self.now = deadline
        return self.comparator.on_deadline(self.now)

    def checkpoint(self) -> Decisions:
        return self.comparator.checkpoint_committed()
