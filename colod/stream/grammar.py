"""Which records may come where, and what can be told from their headers alone.

The types that the specifications know but that may not come at a place are errors there;
unknown types are errors unless they are optional.
"""

from typing import Final

from colod.errors import RecordTooLong, StreamError, UnknownMandatoryRecord
from colod.stream import libxc, libxl
from colod.stream.events import Layer
from colod.stream.libxc import DomainType
from colod.stream.record import is_optional

Allowed = frozenset[int]

LIBXL_TOP: Final[Allowed] = libxl.EMULATOR_RECORDS | {
    libxl.RecordType.END,
    libxl.RecordType.LIBXC_CONTEXT,
}
"""On libxl's level outside of a checkpoint."""

LIBXL_CHECKPOINT: Final[Allowed] = libxl.EMULATOR_RECORDS | {libxl.RecordType.CHECKPOINT_END}
"""On libxl's level, from libxc's CHECKPOINT to CHECKPOINT_END."""

LIBXL_STATE: Final[Allowed] = frozenset({libxl.RecordType.CHECKPOINT_STATE})
LIBXC_BACK: Final[Allowed] = frozenset({libxc.RecordType.CHECKPOINT_DIRTY_PFN_LIST})

_ANY_DOMAIN: Final[Allowed] = frozenset(
    {
        libxc.RecordType.END,
        libxc.RecordType.PAGE_DATA,
        libxc.RecordType.X86_TSC_INFO,
        libxc.RecordType.TOOLSTACK,
        libxc.RecordType.VERIFY,
        libxc.RecordType.CHECKPOINT,
    }
)
_OF_DOMAIN: Final = {
    DomainType.X86_PV: libxc.PV_RECORDS,
    DomainType.X86_HVM: libxc.HVM_RECORDS,
}
_EMPTY: Final[dict[Layer, Allowed]] = {
    Layer.LIBXL: libxl.EMPTY_RECORDS,
    Layer.LIBXC: libxc.EMPTY_RECORDS,
}
_EMPTY_SOMEWHERE: Final = libxl.EMPTY_RECORDS | libxc.EMPTY_RECORDS
_TYPES: Final = {Layer.LIBXL: libxl.RecordType, Layer.LIBXC: libxc.RecordType}
_KNOWN: Final = {layer: frozenset(map(int, types)) for layer, types in _TYPES.items()}


def static_records(domain: DomainType, version: int) -> Allowed:
    """Return what may come in an image before STATIC_DATA_END; nothing in version 2.

    Spec: Xen docs/specs/libxc-migration-stream.pandoc, "v3 compat with v2".
    """
    if version < 3:
        return frozenset()
    foreign = libxc.PV_RECORDS - _OF_DOMAIN[domain]
    return (libxc.STATIC_RECORDS | {libxc.RecordType.STATIC_DATA_END}) - foreign


def image_records(domain: DomainType, version: int) -> Allowed:
    """Return what may come in an image once its static part is over."""
    allowed = _ANY_DOMAIN | _OF_DOMAIN[domain]
    if version < 3:
        return allowed
    return allowed | libxc.VERSION_3_RECORDS - {libxc.RecordType.STATIC_DATA_END}


def record_name(layer: Layer, record_type: int) -> str:
    """Return the specification's name of a type, or its number for an unknown one."""
    if record_type in _KNOWN[layer]:
        return _TYPES[layer](record_type).name
    return f"0x{record_type:08x}"


def check_header(
    layer: Layer, record_type: int, length: int, allowed: Allowed, *, limit: int, offset: int
) -> None:
    """Refuse a record that may not come here or cannot have this length.

    Args:
        layer: Whose record it is.
        record_type: As read, any number.
        length: Bytes of the body, as read.
        allowed: The types that may come at this place.
        limit: Most bytes that a body may have.
        offset: Of the record, for the error.

    Raises:
        UnknownMandatoryRecord: The type is not known and not optional.
        RecordTooLong: The body is longer than `limit`.
        StreamError: The type may not come here, or signals only and yet has a body.
    """
    may_be_so_long = not length or record_type not in _EMPTY_SOMEWHERE
    if record_type in allowed and length <= limit and may_be_so_long:
        return  # nearly all of them, and for each what follows costs more than all else
    name = f"{layer.value} record {record_name(layer, record_type)}"
    if record_type not in _KNOWN[layer] and not is_optional(record_type):
        raise UnknownMandatoryRecord(f"{name} is mandatory and not known", offset=offset)
    if record_type not in allowed and not is_optional(record_type):
        raise StreamError(f"{name} may not come here", offset=offset)
    if length > limit:
        message = f"{name} has a body of {length} bytes, the limit is {limit}"
        raise RecordTooLong(message, offset=offset)
    if length and record_type in _EMPTY[layer]:
        raise StreamError(f"{name} has a body of {length} bytes, none is due", offset=offset)
