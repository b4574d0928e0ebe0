"""libxc's image, versions 2 and 3: its headers and the types of its records.

Spec: Xen docs/specs/libxc-migration-stream.pandoc.
"""

import enum
import struct
from collections.abc import Iterator
from typing import Final

from colod.stream.record import ByteOrder

IMAGE_HEADER: Final = struct.Struct(">QIIHHI")
"""(marker, id, version, options, reserved, reserved), always big-endian."""

IHDR_MARKER: Final = 0xFFFF_FFFF_FFFF_FFFF
"""No legacy image begins with these eight bytes."""
IHDR_ID: Final = 0x5845_4E46
"""ASCII `XENF`."""
IHDR_OPT_BIG_ENDIAN: Final = 1 << 0

VERSIONS: Final = (2, 3)
PAGE_SHIFT: Final = 12
"""The one page size that x86 images have: 4096 bytes."""

PAGE_DATA_HEADER_BYTES: Final = 8
PFN_BYTES: Final = 8


class DomainType(enum.IntEnum):
    """Guest type of an image; a PVH guest is an HVM one to libxc."""

    X86_PV = 0x1
    X86_HVM = 0x2


class RecordType(enum.IntEnum):
    """Types of libxc's records, named as the specification names them."""

    END = 0x0
    PAGE_DATA = 0x1
    X86_PV_INFO = 0x2
    X86_PV_P2M_FRAMES = 0x3
    X86_PV_VCPU_BASIC = 0x4
    X86_PV_VCPU_EXTENDED = 0x5
    X86_PV_VCPU_XSAVE = 0x6
    SHARED_INFO = 0x7
    X86_TSC_INFO = 0x8
    HVM_CONTEXT = 0x9
    HVM_PARAMS = 0xA
    TOOLSTACK = 0xB
    X86_PV_VCPU_MSRS = 0xC
    VERIFY = 0xD
    CHECKPOINT = 0xE
    CHECKPOINT_DIRTY_PFN_LIST = 0xF
    STATIC_DATA_END = 0x10
    X86_CPUID_POLICY = 0x11
    X86_MSR_POLICY = 0x12


EMPTY_RECORDS: Final = frozenset(
    {RecordType.END, RecordType.VERIFY, RecordType.CHECKPOINT, RecordType.STATIC_DATA_END}
)
"""Records that only signal: their body_length is 0."""

STATIC_RECORDS: Final = frozenset(
    {RecordType.X86_PV_INFO, RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY}
)
"""What may come before STATIC_DATA_END, which version 3 demands before all else."""

VERSION_3_RECORDS: Final = frozenset(
    {RecordType.STATIC_DATA_END, RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY}
)
"""What an image of version 2 cannot contain."""

PV_RECORDS: Final = frozenset(
    {
        RecordType.X86_PV_INFO,
        RecordType.X86_PV_P2M_FRAMES,
        RecordType.X86_PV_VCPU_BASIC,
        RecordType.X86_PV_VCPU_EXTENDED,
        RecordType.X86_PV_VCPU_XSAVE,
        RecordType.X86_PV_VCPU_MSRS,
        RecordType.SHARED_INFO,
    }
)
HVM_RECORDS: Final = frozenset({RecordType.HVM_CONTEXT, RecordType.HVM_PARAMS})


class PageType(enum.IntEnum):
    """Types of the PFNs in PAGE_DATA, bits 63-60 of each; 0x5 to 0x8 are reserved."""

    NOTAB = 0x0
    L1TAB = 0x1
    L2TAB = 0x2
    L3TAB = 0x3
    L4TAB = 0x4
    L1TAB_PIN = 0x9
    L2TAB_PIN = 0xA
    L3TAB_PIN = 0xB
    L4TAB_PIN = 0xC
    BROKEN = 0xD
    XALLOC = 0xE
    XTAB = 0xF


PAGE_TYPE_SHIFT: Final = 60
PFN_MASK: Final = (1 << 52) - 1
PAGE_TYPES_WITHOUT_DATA: Final = frozenset({PageType.BROKEN, PageType.XALLOC, PageType.XTAB})

_DOMAIN_HEADERS: Final = {order: struct.Struct(order.value + "IHHII") for order in ByteOrder}
_COUNTS: Final = {order: struct.Struct(order.value + "II") for order in ByteOrder}


def domain_header(order: ByteOrder) -> struct.Struct:
    """Return the layout of the domain header: (type, page_shift, reserved, major, minor)."""
    return _DOMAIN_HEADERS[order]


def counted_header(order: ByteOrder) -> struct.Struct:
    """Return the layout that begins PAGE_DATA and HVM_PARAMS: (count, reserved)."""
    return _COUNTS[order]


def decode_page_data(
    body: bytes | memoryview, order: ByteOrder = ByteOrder.LITTLE
) -> Iterator[tuple[int, PageType, memoryview | None]]:
    """Yield (pfn, type, contents) for each PFN of a whole PAGE_DATA body.

    Contents are views into `body`, or None for types that carry none. Meant for readers that
    keep a guest's memory; the stream parser itself never looks at bodies.

    Args:
        body: One PAGE_DATA body without its record header and padding.
        order: The image's byte order.

    Raises:
        ValueError: The body's length disagrees with its PFNs, or a type is reserved.

    Spec: Xen docs/specs/libxc-migration-stream.pandoc, "PAGE_DATA".
    """
    view = memoryview(body)
    if len(view) < PAGE_DATA_HEADER_BYTES:
        message = f"PAGE_DATA body has {len(view)} bytes, its header needs 8"
        raise ValueError(message)
    count, _ = counted_header(order).unpack_from(view)
    at = PAGE_DATA_HEADER_BYTES + count * PFN_BYTES
    if at > len(view):
        message = f"PAGE_DATA body has {len(view)} bytes, its {count} PFNs need {at}"
        raise ValueError(message)
    for (entry,) in struct.iter_unpack(order.value + "Q", view[PAGE_DATA_HEADER_BYTES:at]):
        page_type = PageType(entry >> PAGE_TYPE_SHIFT)
        contents = None
        if page_type not in PAGE_TYPES_WITHOUT_DATA:
            contents = view[at : at + (1 << PAGE_SHIFT)]
            at += 1 << PAGE_SHIFT
        yield entry & PFN_MASK, page_type, contents
    if at != len(view):
        message = f"PAGE_DATA body has {len(view)} bytes, its PFNs account for {at}"
        raise ValueError(message)
