"""Tell the network that a guest lives here now: raw frames on its bridge, several times.

Frames that a host sends by its bridge leave by all its ports and move the guest's address in the
tables of the switches behind them. The bridge itself learns the guest's port from its first packet.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence

from colod.errors import NetworkError
from colod.output.frames import Guest, announcement, delays_s

DEFAULT_ROUNDS = 10
"""Announcements over 3.45 s; a switch that runs plain spanning tree may need more."""

# Nothing was sent, but the next round may be: the link is going up, or its queue is full.
_PASSING = frozenset({errno.ENETDOWN, errno.ENOBUFS, errno.EAGAIN})


async def announce(bridge: str, guests: Sequence[Guest], rounds: int = DEFAULT_ROUNDS) -> int:
    """Announce `guests` on `bridge`, and return when the last round was sent.

    Call it only when this host owns the guests alone and their copies run here.

    Args:
        bridge: The network device to send by; needs CAP_NET_RAW.
        guests: Interfaces that are attached to that bridge.
        rounds: How many times, at least 1.

    Returns:
        How many frames the kernel took.

    Raises:
        NetworkError: If there is no such device, it may not be used, or it took no frame at all.
    """
    frames = [frame for guest in guests for frame in announcement(guest)]
    sent = 0
    last: OSError | None = None
    with _raw_socket(bridge) as raw:
        for delay_s in delays_s(rounds):
            await asyncio.sleep(delay_s)
            for frame in frames:
                try:
                    sent += bool(raw.send(frame))
                except OSError as error:
                    if error.errno not in _PASSING:
                        raise NetworkError(f"announce on {bridge}: {error.strerror}") from error
                    last = error
    if frames and not sent:
        raise NetworkError(f"announce on {bridge}: no frame was sent: {last}") from last
    return sent


def _raw_socket(device: str) -> socket.socket:
    """Return a socket that sends whole frames by `device` and receives none."""
    try:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise NetworkError(f"announce on {device}: {error.strerror}") from error
    try:
        raw.bind((device, 0))
    except OSError as error:
        raw.close()
        raise NetworkError(f"announce on {device}: {error.strerror}") from error
    return raw
