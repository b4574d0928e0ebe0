"""Sums up a stream from the parser's events: whose it is, what its epochs hold, how it ended."""

import enum
import json
from dataclasses import dataclass, field

from colod.errors import StreamError, StreamTruncated
from colod.stream import xl
from colod.stream.events import (
    DomainHeader,
    EpochOpened,
    EpochSealed,
    Event,
    HeaderSeen,
    LibxlHeader,
    PagesSeen,
    RecordSeen,
    StreamEnded,
)
from colod.stream.grammar import record_name
from colod.stream.libxc import DomainType
from colod.stream.record import ByteOrder


class Ending(enum.Enum):
    """How a stream ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    INVALID = "invalid"


@dataclass(slots=True)
class EpochSummary:
    """What one epoch holds; an unsealed one, what of it was whole.

    Attributes:
        offset: Its first byte.
        bytes: All its bytes, headers and an incomplete record's included.
        pages: Pages that came with contents.
        pfns: PFNs described, with contents or without.
        records: Whole records of both layers.
        is_sealed: Whether its CHECKPOINT_END was there.
    """

    epoch: int
    offset: int
    bytes: int = 0
    pages: int = 0
    pfns: int = 0
    records: int = 0
    is_sealed: bool = False


@dataclass(slots=True)
class StreamSummary:
    """Sums up one stream: give it every event, then say how it ended.

    Attributes:
        name: The domain's name in xl's configuration; None where that cannot be told.
        guest_type: `pv`, `hvm` or `pvh` by the configuration, else by libxc's header.
        xen_version: Of the saving host, (major, minor).
        epochs: In order; a plain save image is one that is never sealed.
        records: How many whole records of each kind there were, by `layer.NAME`.
        ending: None until `end` was called.
        truncated_at: Where the incomplete record begins.
        error: Why the stream is not complete.
    """

    name: str | None = None
    guest_type: str | None = None
    xen_version: tuple[int, int] | None = None
    libxl_version: int | None = None
    libxc_version: int | None = None
    byte_order: ByteOrder | None = None
    is_converted: bool = False
    bytes: int = 0
    epochs: list[EpochSummary] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    ending: Ending | None = None
    truncated_at: int | None = None
    error: StreamError | None = None

    @property
    def whole_epochs(self) -> int:
        """How many epochs were sealed."""
        return sum(epoch.is_sealed for epoch in self.epochs)

    def add(self, event: Event) -> None:
        """Count one event."""
        match event:
            case RecordSeen():
                self._count_record(event)
            case PagesSeen(_, pfns, pages):
                self.epochs[-1].pfns += pfns
                self.epochs[-1].pages += pages
            case EpochOpened(offset, epoch):
                self.epochs.append(EpochSummary(epoch, offset))
            case EpochSealed(offset):
                self._close_epoch(offset)
                self.epochs[-1].is_sealed = True
            case StreamEnded():
                self.ending = Ending.COMPLETE
            case _:
                self._add_header(event)

    def end(self, bytes_read: int, error: StreamError | None) -> None:
        """Close the sum.

        Args:
            bytes_read: How many bytes the stream had.
            error: What the parser raised, None if the stream is complete.
        """
        self.bytes = bytes_read
        self.error = error
        if self.epochs:
            self._close_epoch(bytes_read)  # of a sealed one, the same: the next byte opens another
        if isinstance(error, StreamTruncated):
            self.ending = Ending.TRUNCATED
            self.truncated_at = error.offset
        elif error:
            self.ending = Ending.INVALID

    def to_json(self) -> dict[str, object]:
        """Return the summary as JSON values, with the keys that `--json` promises."""
        return {
            "name": self.name,
            "type": self.guest_type,
            "xen_version": "{}.{}".format(*self.xen_version) if self.xen_version else None,
            "libxl_version": self.libxl_version,
            "libxc_version": self.libxc_version,
            "byte_order": self.byte_order.name.lower() if self.byte_order else None,
            "converted_from_legacy": self.is_converted,
            "bytes": self.bytes,
            "ending": self.ending.value if self.ending else None,
            "truncated_at": self.truncated_at,
            "error": _error_to_json(self.error),
            "whole_epochs": self.whole_epochs,
            "records": dict(sorted(self.records.items())),
            "epochs": [_epoch_to_json(epoch) for epoch in self.epochs],
        }

    def _add_header(self, event: Event) -> None:
        match event:
            case HeaderSeen(_, config, flags) if flags & xl.XL_MANDATORY_FLAG_JSON:
                self.name, self.guest_type = read_identity(config)
            case LibxlHeader(_, version, order, is_converted):
                self.libxl_version = version
                self.byte_order = order
                self.is_converted = is_converted
            case DomainHeader(_, version, domain_type, _, major, minor):
                self.libxc_version = version
                self.xen_version = (major, minor)
                is_pv = domain_type is DomainType.X86_PV
                self.guest_type = self.guest_type or ("pv" if is_pv else "hvm")

    def _count_record(self, record: RecordSeen) -> None:
        kind = f"{record.layer.value}.{record_name(record.layer, record.type)}"
        if kind not in self.records and len(self.records) >= MAX_KINDS:
            kind = "other"  # a hostile stream may invent 2**31 optional types
        self.records[kind] = self.records.get(kind, 0) + 1
        self.epochs[-1].records += 1

    def _close_epoch(self, end: int) -> None:
        self.epochs[-1].bytes = end - self.epochs[-1].offset


MAX_KINDS = 256
"""Kinds of records that are counted apart; the specifications have 25."""


def read_identity(config: bytes) -> tuple[str | None, str | None]:
    """Return the domain's name and type from xl's JSON, None for what is not there."""
    try:
        parsed = json.loads(config)
    except (ValueError, RecursionError):
        return None, None
    creation = parsed.get("c_info") if isinstance(parsed, dict) else None
    if not isinstance(creation, dict):
        return None, None
    name, guest_type = creation.get("name"), creation.get("type")
    return (
        name if isinstance(name, str) else None,
        guest_type if isinstance(guest_type, str) else None,
    )


def _error_to_json(error: StreamError | None) -> dict[str, object] | None:
    if error is None:
        return None
    return {"code": error.code, "message": str(error), "offset": error.offset}


def _epoch_to_json(epoch: EpochSummary) -> dict[str, object]:
    return {
        "epoch": epoch.epoch,
        "offset": epoch.offset,
        "bytes": epoch.bytes,
        "pages": epoch.pages,
        "pfns": epoch.pfns,
        "records": epoch.records,
        "sealed": epoch.is_sealed,
    }
