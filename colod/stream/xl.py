"""The header that xl itself writes before libxl's stream, on the wire as in a save file.

Source: Xen tools/xl/xl.h, `struct save_file_header`; tools/xl/xl_saverestore.c,
`save_domain_core_writeconfig`.
"""

import struct
from typing import Final

from colod.stream.record import ByteOrder

SAVEFILE_MAGIC: Final = b"Xen saved domain, xl format\n \0 \r"
SAVEFILE_BYTEORDER_VALUE: Final = 0x0102_0304

XL_MANDATORY_FLAG_JSON: Final = 1 << 0
"""The domain's configuration is JSON."""
XL_MANDATORY_FLAG_STREAMV2: Final = 1 << 1
"""A libxl stream follows; without this flag, a legacy libxc image does."""
XL_MANDATORY_FLAG_ALL: Final = XL_MANDATORY_FLAG_JSON | XL_MANDATORY_FLAG_STREAMV2

MIGRATE_RECEIVER_BANNER: Final = b"xl migration receiver ready, send binary domain data.\n"
"""What `xl migrate-receive` writes on its return channel before it reads anything."""

CONFIG_LENGTH_MAX: Final = 1 << 20
"""Longest configuration, in bytes, that is read; xl's own are a few thousand bytes long."""

HEADER_BYTES: Final = 48
"""Magic, byte order, mandatory flags, optional flags, length of the optional part."""

_FIELDS: Final = {order: struct.Struct(order.value + "IIII") for order in ByteOrder}
_CONFIG_LENGTH: Final = {order: struct.Struct(order.value + "I") for order in ByteOrder}


def header_fields(order: ByteOrder) -> struct.Struct:
    """Return the layout of what follows the magic: (byteorder, mandatory, optional, length)."""
    return _FIELDS[order]


def config_length(order: ByteOrder) -> struct.Struct:
    """Return the layout of the number that begins the optional part: the config's bytes."""
    return _CONFIG_LENGTH[order]
