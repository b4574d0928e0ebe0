"""What the stream parser reports, in the order of the stream.

Every `offset` counts bytes from the beginning of the stream, its headers included.
"""

import enum
from dataclasses import dataclass

from colod.stream.libxc import DomainType
from colod.stream.record import REC_HEADER_BYTES, ByteOrder, padded_length


class Direction(enum.Enum):
    """Which way a stream flows: to the secondary, or back to the primary."""

    FORWARD = "forward"
    BACK = "back"


class Layer(enum.Enum):
    """Whose record it is."""

    LIBXL = "libxl"
    LIBXC = "libxc"


@dataclass(frozen=True, slots=True)
class EpochOpened:
    """The first byte of an epoch arrived; `offset` is that byte's.

    From the second epoch on, the guest is suspended at this moment if nothing was read ahead.
    With COLO the epoch begins with CHECKPOINT_STATE, which comes before the suspension.
    """

    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class HeaderSeen:
    """xl's own header is complete; `offset` is its first byte.

    Attributes:
        config: The domain's configuration without xl's closing NUL; empty where there is none.
        mandatory_flags: `XL_MANDATORY_FLAG_*`; JSON tells whether `config` is JSON.
        optional_flags: As written; Xen defines none.
        byte_order: Of this header's own integers.
    """

    offset: int
    config: bytes
    mandatory_flags: int
    optional_flags: int
    byte_order: ByteOrder


@dataclass(frozen=True, slots=True)
class BannerSeen:
    """The receiving xl said on the back channel that it is ready; `offset` is the first byte."""

    offset: int


@dataclass(frozen=True, slots=True)
class LibxlHeader:
    """libxl's header is complete; `offset` is its first byte.

    Attributes:
        is_converted: The stream was converted from the legacy format.
    """

    offset: int
    version: int
    byte_order: ByteOrder
    is_converted: bool


@dataclass(frozen=True, slots=True)
class DomainHeader:
    """libxc's image header and domain header are complete; `offset` is the image header's.

    Attributes:
        version: Of libxc's format, 2 or 3.
        type: PV or HVM; PVH is HVM here.
        page_shift: A guest page has 2 ** page_shift bytes.
    """

    offset: int
    version: int
    type: DomainType
    page_shift: int
    xen_major: int
    xen_minor: int


@dataclass(frozen=True, slots=True)
class RecordSeen:
    """A whole record went by, its padding included; `offset` is its first byte.

    Attributes:
        type: A `libxl.RecordType` or `libxc.RecordType`, or an optional type that is not known.
        length: Bytes of the body, without header and padding.
    """

    offset: int
    layer: Layer
    type: int
    length: int

    @property
    def end(self) -> int:
        """The offset of the first byte after the record."""
        return self.offset + REC_HEADER_BYTES + padded_length(self.length)


@dataclass(frozen=True, slots=True)
class PagesSeen:
    """Follows the RecordSeen of a PAGE_DATA record and has its offset.

    Attributes:
        pfns: PFNs described, at least one.
        pages: How many of them came with contents.
    """

    offset: int
    pfns: int
    pages: int


@dataclass(frozen=True, slots=True)
class CheckpointStateSeen:
    """Follows the RecordSeen of a CHECKPOINT_STATE record (COLO) and has its offset.

    Attributes:
        control_id: A `libxl.ControlId`, or a number that the specification does not have.
    """

    offset: int
    control_id: int


@dataclass(frozen=True, slots=True)
class DirtyPfnsSeen:
    """Follows the RecordSeen of a CHECKPOINT_DIRTY_PFN_LIST record and has its offset."""

    offset: int
    pfns: int


@dataclass(frozen=True, slots=True)
class GuestMayResume:
    """libxc's CHECKPOINT ended at `offset`: its writer may let the guest run on now.

    With COLO the guest waits for longer, until the secondary is ready.
    """

    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class EpochSealed:
    """libxl's CHECKPOINT_END ended at `offset`, the first byte that is not the epoch's."""

    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """libxl's END ended at `offset`; nothing may follow."""

    offset: int


Event = (
    EpochOpened
    | HeaderSeen
    | BannerSeen
    | LibxlHeader
    | DomainHeader
    | RecordSeen
    | PagesSeen
    | CheckpointStateSeen
    | DirtyPfnsSeen
    | GuestMayResume
    | EpochSealed
    | StreamEnded
)
