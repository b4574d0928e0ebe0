"""What libxl's and libxc's streams share: byte orders and the shape of a record.

Spec: Xen docs/specs/libxl-migration-stream.pandoc and libxc-migration-stream.pandoc, "Records".
"""

import enum
import struct
from typing import Final

REC_ALIGN: Final = 8
"""Every record ends on a multiple of this many bytes, counted from its own beginning."""

REC_HEADER_BYTES: Final = 8
"""`type` and `body_length`, 32 bits each."""

REC_TYPE_OPTIONAL: Final = 0x8000_0000
"""Bit 31 of a record's type: a reader that does not know the type may pass over it."""

REC_LENGTH_MAX: Final = 128 << 20
"""Longest body, in bytes, that libxc accepts. Source: tools/libs/guest/xg_sr_stream_format.h."""


class ByteOrder(enum.Enum):
    """Byte order of a stream's integers; its value is the prefix that `struct` uses."""

    LITTLE = "<"
    BIG = ">"


_RECORD_HEADERS: Final = {order: struct.Struct(order.value + "II") for order in ByteOrder}


def record_header(order: ByteOrder) -> struct.Struct:
    """Return the layout of a record header: (type, body_length)."""
    return _RECORD_HEADERS[order]


def padded_length(body_bytes: int) -> int:
    """Return the bytes that a body takes on the wire, its padding included."""
    return -(-body_bytes // REC_ALIGN) * REC_ALIGN


def is_optional(record_type: int) -> bool:
    """Tell whether a reader that does not know this type may pass over the record."""
    return bool(record_type & REC_TYPE_OPTIONAL)
