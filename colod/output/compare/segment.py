"""A TCP segment, as far as comparing needs it."""

from __future__ import annotations

import struct
from typing import NamedTuple

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
_ECE, _CWR = 0x40, 0x80
_TERMS_FLAGS = SYN | ACK | _ECE | _CWR

MIN_HEADER_BYTES = 20
MAX_WINDOW_SHIFT = 14
"""Spec: RFC 7323 section 2.3."""
SEQ_AT, ACK_AT, FLAGS_AT, WINDOW_AT, CHECKSUM_AT = 4, 8, 13, 14, 16
"""Offsets in the header. Spec: RFC 9293 section 3.1."""

_HEADER = struct.Struct(">4sIIBBH")
_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED = 0, 1, 2, 3, 4
_COMPARED = {_MSS, _WINDOW_SCALE, _SACK_PERMITTED}


class Segment(NamedTuple):
    """A TCP segment.

    Attributes:
        ports: Source and destination, as in the header.
        seq: Sequence number of the first byte, or of SYN.
        ack: Acknowledgement number; it means something only if ACK is among `flags`.
        flags: As in the header.
        window: As in the header, not scaled.
        options: All of them, unread.
        payload: Its bytes of the stream.
    """

    ports: bytes
    seq: int
    ack: int
    flags: int
    window: int
    options: bytes
    payload: bytes

    @property
    def is_pure_ack(self) -> bool:
        """Whether it takes up no room in the stream and ends nothing."""
        return not self.payload and not self.flags & (SYN | FIN | RST)


class Terms(NamedTuple):
    """What a SYN says that changes the meaning of the stream after it.

    Attributes:
        flags: SYN, ACK, and those by which ECN is negotiated (RFC 3168 section 6.1.1).
        compared: MSS, window scale and SACK-permitted with their values.
        others: Which other options are there: their values (time stamps, keys) may differ, but
            whether time stamps are used at all may not (RFC 7323 section 3.2).
        payload: Bytes of the stream that came with it.
    """

    flags: int
    compared: tuple[tuple[int, bytes], ...]
    others: tuple[int, ...]
    payload: bytes

    @property
    def window_shift(self) -> int:
        """The window scale that is offered or accepted, 0 for none. Spec: RFC 7323 section 2.3."""
        for kind, value in self.compared:
            if kind == _WINDOW_SCALE and value:
                return min(value[0], MAX_WINDOW_SHIFT)
        return 0

    @property
    def window_shifts(self) -> tuple[int, ...]:
        """The scales that may be in use afterwards.

        A SYN only offers; whether the other end accepts is seen in what comes in, not here.
        """
        shift = self.window_shift
        return (shift,) if self.flags & ACK or not shift else (0, shift)


def parse_segment(body: bytes) -> Segment | None:
    """Return the segment in an IP packet's body, None if it is none. Spec: RFC 9293 section 3.1."""
    if len(body) < MIN_HEADER_BYTES:
        return None
    ports, seq, ack, offset, flags, window = _HEADER.unpack_from(body)
    header = (offset >> 4) * 4
    if not MIN_HEADER_BYTES <= header <= len(body):
        return None
    return Segment(ports, seq, ack, flags, window, body[MIN_HEADER_BYTES:header], body[header:])


def terms_of(segment: Segment) -> Terms:
    """Return the terms of a SYN or SYN-ACK."""
    compared = []
    others = []
    for kind, value, _ in parse_options(segment.options):
        if kind in _COMPARED:
            compared.append((kind, value))
        else:
            others.append(kind)
    return Terms(
        segment.flags & _TERMS_FLAGS,
        tuple(sorted(compared)),
        tuple(sorted(others)),
        segment.payload,
    )


def parse_options(options: bytes) -> list[tuple[int, bytes, int]]:
    """Return kind, value and the value's offset of all options up to the first broken one.

    Spec: RFC 9293 section 3.2.
    """
    found = []
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] == _NOP:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            break
        found.append((options[at], options[at + 2 : at + size], at + 2))
        at += size
    return found
