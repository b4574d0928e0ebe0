"""How a socket's bytes are marked (DSCP) and held to a rate; both are read back from the kernel.

Source: Linux ip(7), ipv6(7), socket(7); RFC 2474 (the DSCP is the upper six bits of the octet).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

_ECN_BITS: Final = 2
_DSCP_MAX: Final = 63
# Missing in Python's socket. Source: Linux include/uapi/asm-generic/socket.h.
_SO_MAX_PACING_RATE: Final = 47
_RATE: Final = struct.Struct("@Q")

_NAMES: Final = {
    "le": 1,  # RFC 8622
    "va": 44,  # RFC 5865
    "ef": 46,  # RFC 3246
    **{f"cs{index}": index << 3 for index in range(8)},  # RFC 2474
    **{f"af{a}{b}": a << 3 | b << 1 for a in range(1, 5) for b in range(1, 4)},  # RFC 2597
}


def parse_dscp(text: str) -> int:
    """Return the code point that `text` names: `ef`, `af21`, `cs1`, `le`, or 0 to 63.

    Raises:
        ValueError: If it names none.
    """
    if text.isascii() and text.isdigit() and int(text) <= _DSCP_MAX:
        return int(text)
    if (known := _NAMES.get(text.lower())) is not None:
        return known
    raise ValueError(f"{text!r} is no DSCP, want 0 to 63 or a name as ef, af21, cs1 or le")


def mark(sock: socket.socket, dscp: int) -> None:
    """Have all that `sock` sends marked; an IPv6 one may carry IPv4, so it gets both marks.

    Raises:
        OSError: If the kernel does not take the mark.
    """
    octet = dscp << _ECN_BITS
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, octet)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, octet)


def marked(sock: socket.socket) -> int | None:
    """Return the DSCP that the kernel says `sock` has, None where it has no such thing."""
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_INET6 and not _is_mapped(sock):
            return sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) >> _ECN_BITS
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            return sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> _ECN_BITS
    return None


def pace(sock: socket.socket, bytes_per_s: int) -> bool:
    """Have the kernel send no faster than `bytes_per_s`; return whether it says that it will.

    TCP paces by itself, also without the queueing discipline `fq`.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, _RATE.pack(bytes_per_s))
        answer = sock.getsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, _RATE.size)
        return len(answer) == _RATE.size and _RATE.unpack(answer) == (bytes_per_s,)
    return False


def _is_mapped(sock: socket.socket) -> bool:
    """Tell whether an IPv6 socket carries IPv4."""
    return str(sock.getpeername()[0]).startswith("::ffff:")
