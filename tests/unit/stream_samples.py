"""Streams for tests, as lists of pieces: where each header or record lies is known by adding up."""

import json
import struct
from dataclasses import dataclass, field
from itertools import accumulate

from colod.stream import writer
from colod.stream.events import Event, Layer, RecordSeen
from colod.stream.libxc import DomainType, PageType, RecordType
from colod.stream.parser import StreamParser
from colod.stream.record import ByteOrder
from colod.stream.writer import typed_pfn

CONFIG = json.dumps({"c_info": {"type": "pv", "name": "g1"}, "b_info": {}}).encode()
PAGE = bytes(range(256)) * 16


@dataclass
class Sample:
    """A stream under construction, and the records that a right reader finds in it."""

    order: ByteOrder = ByteOrder.LITTLE
    version: int = 3
    domain: DomainType = DomainType.X86_PV
    config: bytes = CONFIG
    pieces: list[bytes] = field(default_factory=list)
    records: list[RecordSeen] = field(default_factory=list)
    seals: list[int] = field(default_factory=list)
    resumes: list[int] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """The whole stream."""
        return b"".join(self.pieces)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return sum(map(len, self.pieces))

    def starts(self) -> list[int]:
        """Where each piece begins."""
        return [0, *accumulate(map(len, self.pieces))][:-1]

    def raw(self, *pieces: bytes) -> "Sample":
        """Append headers or anything else that is no record."""
        self.pieces += pieces
        return self

    def add(self, layer: Layer, *pieces: bytes) -> "Sample":
        """Append whole records."""
        for piece in pieces:
            kind, length = struct.unpack_from(self.order.value + "II", piece)
            self.records.append(RecordSeen(self.size, layer, kind, length))
            self.pieces.append(piece)
        return self

    def libxl(self, *pieces: bytes) -> "Sample":
        """Append records of libxl's level."""
        return self.add(Layer.LIBXL, *pieces)

    def libxc(self, *pieces: bytes) -> "Sample":
        """Append records of libxc's level."""
        return self.add(Layer.LIBXC, *pieces)

    def headers(self, *, xl: bool = True) -> "Sample":
        """Append all headers and, in version 3, the static records."""
        order = self.order
        if xl:
            self.raw(writer.xl_header(self.config, order=order))
        self.raw(writer.libxl_header(order=order))
        self.libxl(writer.libxl_record(1, order=order))
        self.raw(writer.libxc_image_header(version=self.version, order=order))
        self.raw(writer.libxc_domain_header(self.domain, order=order))
        if self.domain is DomainType.X86_PV:
            self.libxc(writer.pv_info(order=order))
        if self.version == 3:
            self.libxc(writer.libxc_record(RecordType.X86_CPUID_POLICY, bytes(24), order=order))
            self.libxc(writer.libxc_record(RecordType.X86_MSR_POLICY, bytes(16), order=order))
            self.libxc(writer.libxc_record(RecordType.STATIC_DATA_END, order=order))
        if self.domain is DomainType.X86_PV:
            self.libxc(writer.pv_p2m_frames(0, 511, [7], order=order))
        return self

    def pages(self, count: int = 1) -> "Sample":
        """Append a PAGE_DATA record: `count` pages and one PFN without contents."""
        pfns = [*range(count), typed_pfn(count, PageType.XTAB)]
        return self.libxc(writer.page_data(pfns, [PAGE] * count, order=self.order))

    def state(self) -> "Sample":
        """Append what libxc writes once the guest is suspended, shortened."""
        order = self.order
        self.libxc(writer.tsc_info(order=order))
        if self.domain is DomainType.X86_HVM:
            self.libxc(writer.hvm_params({1: 2, 3: 4}, order=order))
            self.libxc(writer.libxc_record(RecordType.HVM_CONTEXT, b"context", order=order))
        else:
            self.libxc(writer.libxc_record(RecordType.SHARED_INFO, bytes(4096), order=order))
            for kind in (RecordType.X86_PV_VCPU_BASIC, RecordType.X86_PV_VCPU_EXTENDED):
                self.libxc(writer.pv_vcpu(kind, 0, b"c" * 61, order=order))
        return self

    def emulator(self) -> "Sample":
        """Append the device model's context, for HVM."""
        if self.domain is DomainType.X86_HVM:
            self.libxl(writer.emulator_context(b"qemu's", order=self.order))
        return self

    def seal(self) -> "Sample":
        """Append CHECKPOINT, the emulator's part and CHECKPOINT_END."""
        self.libxc(writer.checkpoint(order=self.order))
        self.resumes.append(self.size)
        self.emulator()
        self.libxl(writer.checkpoint_end(order=self.order))
        self.seals.append(self.size)
        return self

    def end(self) -> "Sample":
        """Append both END records, with the emulator's context between them."""
        self.libxc(writer.libxc_record(RecordType.END, order=self.order))
        self.emulator()
        return self.libxl(writer.libxl_record(0, order=self.order))


def save_image(
    order: ByteOrder = ByteOrder.LITTLE, version: int = 3, domain: DomainType = DomainType.X86_PV
) -> Sample:
    """Build what `xl save` writes."""
    return Sample(order, version, domain).headers().pages(2).state().end()


def remus_stream(
    epochs: int = 3,
    order: ByteOrder = ByteOrder.LITTLE,
    version: int = 3,
    domain: DomainType = DomainType.X86_PV,
) -> Sample:
    """Build what `xl remus` writes, stopped after a seal."""
    sample = Sample(order, version, domain).headers()
    for _ in range(epochs):
        sample.pages().state().seal()
    return sample


def parse(parser: StreamParser, *chunks: bytes) -> list[Event]:
    """Feed all chunks and return all events."""
    return [event for chunk in chunks for event in parser.feed(chunk)]
