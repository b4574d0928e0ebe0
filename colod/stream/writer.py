"""Builders of the pieces of a stream, byte for byte as Xen's tools write them.

Each function returns the bytes of one header or one whole record, padding included; joined in
order they make a stream. The simulated Xen and the tests write with them; `colod-session` itself
only passes on what xl wrote.

Spec: Xen docs/specs/libxl-migration-stream.pandoc, docs/specs/libxc-migration-stream.pandoc.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from colod.stream import libxc, libxl, xl
from colod.stream.libxc import DomainType, PageType
from colod.stream.record import ByteOrder, padded_length, record_header

_LITTLE: Final = ByteOrder.LITTLE


def xl_banner() -> bytes:
    """Build what `xl migrate-receive` writes on the return channel before all else."""
    return xl.MIGRATE_RECEIVER_BANNER


def xl_header(
    config: bytes,
    *,
    mandatory_flags: int = xl.XL_MANDATORY_FLAG_ALL,
    optional_flags: int = 0,
    order: ByteOrder = _LITTLE,
) -> bytes:
    """Build the header that xl writes before libxl's stream.

    Args:
        config: The domain's configuration as JSON text; the NUL that xl counts and sends after
            it is added. Empty leaves out the whole optional part.
        mandatory_flags: `XL_MANDATORY_FLAG_*`.
        optional_flags: Written as given; Xen defines none.
        order: Byte order of the four fields after the magic.
    """
    optional = b""
    if config:
        text = config + b"\0"
        optional = xl.config_length(order).pack(len(text)) + text
    fields = xl.header_fields(order).pack(
        xl.SAVEFILE_BYTEORDER_VALUE, mandatory_flags, optional_flags, len(optional)
    )
    return xl.SAVEFILE_MAGIC + fields + optional


def libxl_header(*, order: ByteOrder = _LITTLE, legacy: bool = False) -> bytes:
    """Build the header of libxl's stream; `legacy` marks it as converted from the old format."""
    options = (libxl.OPT_BIG_ENDIAN if order is ByteOrder.BIG else 0) | (
        libxl.OPT_LEGACY if legacy else 0
    )
    return libxl.HEADER.pack(libxl.IDENT, libxl.VERSION, options)


def libxl_record(record_type: int, body: bytes = b"", *, order: ByteOrder = _LITTLE) -> bytes:
    """Build one record of libxl's level."""
    return _record(record_type, body, order)


def libxc_image_header(*, version: int = 3, order: ByteOrder = _LITTLE) -> bytes:
    """Build libxc's image header; it appears once, after the first LIBXC_CONTEXT."""
    options = libxc.IHDR_OPT_BIG_ENDIAN if order is ByteOrder.BIG else 0
    return libxc.IMAGE_HEADER.pack(libxc.IHDR_MARKER, libxc.IHDR_ID, version, options, 0, 0)


def libxc_domain_header(
    domain_type: DomainType,
    xen_version: tuple[int, int] = (4, 17),
    *,
    order: ByteOrder = _LITTLE,
) -> bytes:
    """Build libxc's domain header, which follows the image header at once."""
    major, minor = xen_version
    return libxc.domain_header(order).pack(domain_type, libxc.PAGE_SHIFT, 0, major, minor)


def libxc_record(record_type: int, body: bytes = b"", *, order: ByteOrder = _LITTLE) -> bytes:
    """Build one record of libxc's level."""
    return _record(record_type, body, order)


def page_data(
    pfns: Sequence[int],
    pages: Sequence[bytes | bytearray | memoryview],
    *,
    order: ByteOrder = _LITTLE,
) -> bytes:
    """Build a PAGE_DATA record.

    Args:
        pfns: Frame numbers, each with its type in bits 63-60 (see `typed_pfn`); at least one.
        pages: The contents, 4096 bytes each, of those PFNs whose type carries any, in order.
        order: The image's byte order.

    Raises:
        ValueError: No PFN, or pages that do not match the PFNs.
    """
    expected = sum(PageType(pfn >> libxc.PAGE_TYPE_SHIFT) not in _BARE for pfn in pfns)
    if not pfns or len(pages) != expected or any(len(page) != 4096 for page in pages):
        message = f"{len(pfns)} PFNs need {expected} pages of 4096 bytes, got {len(pages)}"
        raise ValueError(message)
    count = libxc.counted_header(order).pack(len(pfns), 0)
    body = b"".join((count, struct.pack(f"{order.value}{len(pfns)}Q", *pfns), *pages))
    return _record(libxc.RecordType.PAGE_DATA, body, order)


def typed_pfn(pfn: int, page_type: PageType = PageType.NOTAB) -> int:
    """Put a page's type into the bits of its PFN that PAGE_DATA keeps for it."""
    return pfn | page_type << libxc.PAGE_TYPE_SHIFT


def pv_info(*, guest_width: int = 8, pt_levels: int = 4, order: ByteOrder = _LITTLE) -> bytes:
    """Build X86_PV_INFO; the width is in octets."""
    body = struct.pack(order.value + "BBHI", guest_width, pt_levels, 0, 0)
    return _record(libxc.RecordType.X86_PV_INFO, body, order)


def pv_p2m_frames(
    start_pfn: int, end_pfn: int, frames: Sequence[int], *, order: ByteOrder = _LITTLE
) -> bytes:
    """Build X86_PV_P2M_FRAMES: the frames that hold the P2M of `start_pfn` to `end_pfn`."""
    body = struct.pack(f"{order.value}II{len(frames)}Q", start_pfn, end_pfn, *frames)
    return _record(libxc.RecordType.X86_PV_P2M_FRAMES, body, order)


def pv_vcpu(
    record_type: libxc.RecordType, vcpu_id: int, context: bytes, *, order: ByteOrder = _LITTLE
) -> bytes:
    """Build X86_PV_VCPU_BASIC, EXTENDED, XSAVE or MSRS."""
    return _record(record_type, struct.pack(order.value + "II", vcpu_id, 0) + context, order)


def tsc_info(
    *,
    mode: int = 0,
    khz: int = 1_000_000,
    elapsed_ns: int = 0,
    incarnation: int = 0,
    order: ByteOrder = _LITTLE,
) -> bytes:
    """Build X86_TSC_INFO."""
    body = struct.pack(order.value + "IIQII", mode, khz, elapsed_ns, incarnation, 0)
    return _record(libxc.RecordType.X86_TSC_INFO, body, order)


def hvm_params(params: Mapping[int, int], *, order: ByteOrder = _LITTLE) -> bytes:
    """Build HVM_PARAMS from index to value."""
    pairs = [number for pair in params.items() for number in pair]
    body = struct.pack(f"{order.value}II{len(pairs)}Q", len(params), 0, *pairs)
    return _record(libxc.RecordType.HVM_PARAMS, body, order)


def dirty_pfn_list(pfns: Sequence[int], *, order: ByteOrder = _LITTLE) -> bytes:
    """Build CHECKPOINT_DIRTY_PFN_LIST, which only COLO's back channel carries."""
    body = struct.pack(f"{order.value}{len(pfns)}Q", *pfns)
    return _record(libxc.RecordType.CHECKPOINT_DIRTY_PFN_LIST, body, order)


def emulator_xenstore_data(
    pairs: Mapping[str, str],
    *,
    emulator: libxl.EmulatorId = libxl.EmulatorId.QEMU_UPSTREAM,
    index: int = 0,
    order: ByteOrder = _LITTLE,
) -> bytes:
    """Build EMULATOR_XENSTORE_DATA from keys, relative to the device model's tree, to values."""
    text = b"".join(f"{key}\0{value}\0".encode("ascii") for key, value in pairs.items())
    body = libxl.emulator_header(order).pack(emulator, index) + text
    return _record(libxl.RecordType.EMULATOR_XENSTORE_DATA, body, order)


def emulator_context(
    context: bytes,
    *,
    emulator: libxl.EmulatorId = libxl.EmulatorId.QEMU_UPSTREAM,
    index: int = 0,
    order: ByteOrder = _LITTLE,
) -> bytes:
    """Build EMULATOR_CONTEXT around the device model's own blob."""
    body = libxl.emulator_header(order).pack(emulator, index) + context
    return _record(libxl.RecordType.EMULATOR_CONTEXT, body, order)


def checkpoint_state(control_id: int, *, order: ByteOrder = _LITTLE) -> bytes:
    """Build CHECKPOINT_STATE as libxl does: a body of four bytes and four of padding."""
    body = libxl.checkpoint_state(order).pack(control_id)
    return _record(libxl.RecordType.CHECKPOINT_STATE, body, order)


def checkpoint(*, order: ByteOrder = _LITTLE) -> bytes:
    """Build libxc's CHECKPOINT: from here on the guest may resume."""
    return _record(libxc.RecordType.CHECKPOINT, b"", order)


def checkpoint_end(*, order: ByteOrder = _LITTLE) -> bytes:
    """Build libxl's CHECKPOINT_END, the last record of an epoch."""
    return _record(libxl.RecordType.CHECKPOINT_END, b"", order)


_BARE: Final = libxc.PAGE_TYPES_WITHOUT_DATA


def _record(record_type: int, body: bytes, order: ByteOrder) -> bytes:
    header = record_header(order).pack(record_type, len(body))
    return header + body + bytes(padded_length(len(body)) - len(body))
