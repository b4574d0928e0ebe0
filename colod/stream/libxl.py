"""libxl's stream, version 2: its header and the types of its records.

Spec: Xen docs/specs/libxl-migration-stream.pandoc.
"""

import enum
import struct
from typing import Final

from colod.stream.record import ByteOrder

HEADER: Final = struct.Struct(">QII")
"""(ident, version, options), big-endian whatever the stream's byte order."""

IDENT: Final = 0x4C69_6278_6C46_6D74
"""ASCII `LibxlFmt`."""
VERSION: Final = 2

OPT_BIG_ENDIAN: Final = 1 << 0
OPT_LEGACY: Final = 1 << 1
"""Made by Xen's conversion of a legacy stream."""


class RecordType(enum.IntEnum):
    """Types of libxl's records, named as the specification names them."""

    END = 0x0
    LIBXC_CONTEXT = 0x1
    EMULATOR_XENSTORE_DATA = 0x2
    EMULATOR_CONTEXT = 0x3
    CHECKPOINT_END = 0x4
    CHECKPOINT_STATE = 0x5


EMPTY_RECORDS: Final = frozenset(
    {RecordType.END, RecordType.LIBXC_CONTEXT, RecordType.CHECKPOINT_END}
)
"""Records that only signal: their body_length is 0."""

EMULATOR_RECORDS: Final = frozenset(
    {RecordType.EMULATOR_XENSTORE_DATA, RecordType.EMULATOR_CONTEXT}
)


class EmulatorId(enum.IntEnum):
    """Which device model an EMULATOR record belongs to."""

    UNKNOWN = 0x0
    QEMU_TRADITIONAL = 0x1
    QEMU_UPSTREAM = 0x2


class ControlId(enum.IntEnum):
    """What a CHECKPOINT_STATE record says (COLO only).

    NEW goes from the primary to the secondary, the others come back.
    """

    CHECKPOINT_NEW = 0x0
    CHECKPOINT_SVM_SUSPENDED = 0x1
    CHECKPOINT_SVM_READY = 0x2
    CHECKPOINT_SVM_RESUMED = 0x3


_EMULATOR_HEADERS: Final = {order: struct.Struct(order.value + "II") for order in ByteOrder}
_CHECKPOINT_STATES: Final = {order: struct.Struct(order.value + "I") for order in ByteOrder}


def emulator_header(order: ByteOrder) -> struct.Struct:
    """Return the layout of the sub-header of EMULATOR records: (emulator_id, index)."""
    return _EMULATOR_HEADERS[order]


def checkpoint_state(order: ByteOrder) -> struct.Struct:
    """Return the layout of a CHECKPOINT_STATE body without its padding: (control_id,)."""
    return _CHECKPOINT_STATES[order]
