"""Which TCP ports a guest gets for COLO: the same each time, none twice, all in one range. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import fields

from colod.errors import NetworkError
from colod.output.colo.guest_keys import ColoPorts

FIRST_PORT = 21_000
"""Below what Linux gives to clients (ip_local_port_range begins at 32768), and above what Xen's
tools, VNC and NBD have."""

BLOCK_PORTS = 8
"""From one guest's first port to the next one's; two of them stay free."""

BLOCKS = 128
"""How many guests of one pair of hosts can have COLO."""

LAST_PORT = FIRST_PORT + BLOCKS * BLOCK_PORTS - 1

_NAMES = tuple(field.name for field in fields(ColoPorts))


def numbers(ports: ColoPorts) -> tuple[int, ...]:
    """Return the ports, in the order of the attributes."""
    return tuple(getattr(ports, name) for name in _NAMES)


def choose_ports(guest: str, taken: Collection[int]) -> ColoPorts:
    """Return the ports of a guest.

    They follow from its name, so that both hosts choose alike, unless one of them is taken: then
    those of the next block do.

    Args:
        guest: Its name.
        taken: Ports that other guests have, or that something listens on.

    Raises:
        NetworkError: If no block is free.
    """
    begin = zlib.crc32(guest.encode())
    for step in range(BLOCKS):
        block = (begin + step) % BLOCKS
        first = FIRST_PORT + block * BLOCK_PORTS
        ports = range(first, first + len(_NAMES))
        if not any(each in taken for each in ports):
            return ColoPorts(**dict(zip(_NAMES, ports, strict=True)))
    raise NetworkError(
        f"no {len(_NAMES)} ports in a row are free in {FIRST_PORT} to {LAST_PORT}",
        advice="end what listens there (ss -ltn), or take COLO's keys from guests that are gone",
    )
