"""TCP over IPv4 over Ethernet, as little of it as the simulated guest and its clients need.

Every frame has whole checksums and no options but a SYN's MSS, so that any comparator of frames
can be tried on it.

Spec: RFC 9293 (TCP), RFC 791 (IPv4), RFC 1071 (checksum).
"""

import struct
from typing import Final, NamedTuple

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

MODULUS: Final = 1 << 32
MSS: Final = 1400
"""Most bytes of payload in a segment."""
WINDOW: Final = 65535

GUEST_ADDRESS: Final = bytes((10, 0, 0, 2))
GUEST_PORT: Final = 7000
ROUTER_MAC: Final = bytes.fromhex("02c010d00001")
"""Where all clients seem to be behind."""
ANNOUNCEMENT: Final = b"\x80\x35"
"""EtherType of a RARP frame, by which a device model says where its guest is now."""

_ETHERNET = struct.Struct(">6s6s2s")
_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_TCP = struct.Struct(">HHIIBBHHH")
_IPV4_TYPE = b"\x08\x00"
_MSS_OPTION = b"\x02\x04" + MSS.to_bytes(2, "big")


class Segment(NamedTuple):
    """One segment between the guest and one client.

    Attributes:
        client: The client's address and port, 6 bytes: they name the connection.
        is_of_guest: Whether the guest sent it.
        seq: Sequence number.
        ack: Acknowledgement number; 0 without ACK.
        flags: FIN, SYN, RST, PSH, ACK.
        payload: At most MSS bytes.
    """

    client: bytes
    is_of_guest: bool
    seq: int
    ack: int
    flags: int
    payload: bytes = b""

    @property
    def length(self) -> int:
        """What it takes of the sequence space."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)


def encode(segment: Segment, guest_mac: bytes) -> bytes:
    """Return the Ethernet frame of a segment.

    Args:
        segment: Any.
        guest_mac: The guest's address, 6 bytes.
    """
    guest = (GUEST_ADDRESS, GUEST_PORT)
    client = (segment.client[:4], int.from_bytes(segment.client[4:], "big"))
    (source, source_port), (target, target_port) = (
        (guest, client) if segment.is_of_guest else (client, guest)
    )
    options = _MSS_OPTION if segment.flags & SYN else b""
    header = _TCP.pack(
        source_port,
        target_port,
        segment.seq % MODULUS,
        segment.ack % MODULUS,
        (_TCP.size + len(options)) // 4 << 4,
        segment.flags,
        WINDOW,
        0,
        0,
    )
    tcp = header + options + segment.payload
    pseudo = source + target + struct.pack(">BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + _checksum(pseudo + tcp) + tcp[18:]
    ip = _IPV4.pack(0x45, 0, _IPV4.size + len(tcp), 0, 0x4000, 64, 6, 0, source, target)
    ip = ip[:10] + _checksum(ip) + ip[12:]
    macs = (ROUTER_MAC, guest_mac) if segment.is_of_guest else (guest_mac, ROUTER_MAC)
    return _ETHERNET.pack(*macs, _IPV4_TYPE) + ip + tcp


def decode(frame: bytes) -> Segment | None:
    """Return the segment in a frame that `encode` could have made, None for any other."""
    if len(frame) < _ETHERNET.size + _IPV4.size + _TCP.size or frame[12:14] != _IPV4_TYPE:
        return None
    packet = frame[_ETHERNET.size :]
    if packet[0] != 0x45 or packet[9] != 6:
        return None
    end = int.from_bytes(packet[2:4], "big")
    source, target, tcp = packet[12:16], packet[16:20], packet[_IPV4.size : end]
    is_of_guest = source == GUEST_ADDRESS
    fields = _TCP.unpack_from(tcp)
    client = (
        target + fields[1].to_bytes(2, "big")
        if is_of_guest
        else source + fields[0].to_bytes(2, "big")
    )
    payload = bytes(tcp[(fields[4] >> 4) * 4 :])
    return Segment(client, is_of_guest, fields[2], fields[3], fields[5], payload)


def announcement(guest_mac: bytes) -> bytes:
    """Return what a device model sends when its guest is to be heard of here from now on."""
    return _ETHERNET.pack(b"\xff" * 6, guest_mac, ANNOUNCEMENT) + bytes(28)


def source_mac(frame: bytes) -> bytes:
    """Return who sent a frame."""
    return frame[6:12]


def is_before(one: int, other: int) -> bool:
    """Tell whether a sequence number lies before another one."""
    return 0 < (other - one) % MODULUS < MODULUS // 2


def _checksum(octets: bytes) -> bytes:
    if len(octets) % 2:
        octets += b"\0"
    total: int = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
