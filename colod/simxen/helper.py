"""`libxl-save-helper`: the process that moves a domain's memory, as libxc does.

It holds the stream by its own descriptor and asks xl, over its stdin and stdout, for what it may
not do itself (`suspend`, `postcopy`, `checkpoint`). Killing xl therefore does not end it: it ends
when it next asks and nobody answers, or when the stream does.

Source: Xen tools/libs/light/libxl_save_helper.c, tools/libs/guest/xg_sr_save.c and
xg_sr_restore.c (order of records, buffering, and what an error after a checkpoint leads to).
"""

import os
import signal
import struct
import sys
from pathlib import Path

from colod.simxen.guest import (
    PAGE_BYTES,
    SHARED_INFO_BYTES,
    VCPU_BASIC_BYTES,
    VCPU_EXTENDED_BYTES,
    Machine,
)
from colod.simxen.wire import EndOfStream, StreamBroken, read_exactly, read_record, write_all
from colod.stream import libxc, writer
from colod.stream.libxc import DomainType, RecordType

BATCH_PAGES = 1024
"""Most pages in one PAGE_DATA record."""
LIVE_ROUNDS = 4
FEW_DIRTY_PAGES = 50

CHECKPOINT_SUCCESS = 1
CHECKPOINT_FAILOVER = 2

COLO = "colo"
"""The helper's last argument where the secondary's copy runs."""


class Asker:
    """The helper's side of its conversation with xl."""

    def ask(self, what: str) -> int:
        """Ask xl to do something; if xl is gone, end as the real helper does."""
        try:
            write_all(1, f"{what}\n".encode())
        except OSError:
            os._exit(255)
        line = b""
        while not line.endswith(b"\n"):
            got = os.read(0, 1)
            if not got:
                os._exit(254)
            line += got
        return int(line)

    def complete(self, rc: int) -> None:
        """Tell xl how it ended."""
        try:
            write_all(1, f"complete {rc}\n".encode())
        except OSError:
            os._exit(255)


class Saver:
    """Writes one domain to a stream."""

    def __init__(self, machine: Machine, fd: int, asker: Asker) -> None:
        """Write to `fd`."""
        self._machine = machine
        self._fd = fd
        self._asker = asker
        self._nanoseconds = 0

    def save(self, *, is_live: bool, is_checkpointed: bool) -> None:
        """Write the image; with checkpoints, go on until something breaks.

        Raises:
            StreamBroken: The stream cannot be written, or xl could not suspend the guest.
        """
        log(f"Saving domain {self._machine.domid}, type x86 PV")
        self._write(writer.libxc_image_header(), writer.libxc_domain_header(DomainType.X86_PV))
        self._write_static_data()
        if is_live:
            self._send_live()
        else:
            self._machine.dirty[:] = bytes([1]) * self._machine.pages
        while True:
            if self._asker.ask("suspend") != 1:
                raise StreamBroken("Domain has not been suspended")
            self._send_dirty()
            self._write_state()
            if not is_checkpointed:
                break
            self._write(writer.checkpoint())
            if self._asker.ask("postcopy") != 1 or self._asker.ask("checkpoint") != 1:
                raise StreamBroken("checkpoint failed")
        self._write(writer.libxc_record(RecordType.END))

    def _write_static_data(self) -> None:
        frames = -(-self._machine.pages * 8 // PAGE_BYTES)
        self._write(
            writer.pv_info(),
            *self._static_records(),
            writer.pv_p2m_frames(0, self._machine.pages - 1, list(range(frames))),
        )

    @staticmethod
    def _static_records() -> tuple[bytes, ...]:
        return (
            writer.libxc_record(RecordType.X86_CPUID_POLICY, _CPUID_LEAF),
            writer.libxc_record(RecordType.X86_MSR_POLICY, _MSR_ENTRIES),
            writer.libxc_record(RecordType.STATIC_DATA_END),
        )

    def _send_live(self) -> None:
        self._machine.dirty[:] = bytes(self._machine.pages)
        self._send_pages(list(range(self._machine.pages)))
        for _ in range(LIVE_ROUNDS):
            if sum(self._machine.dirty[:]) < FEW_DIRTY_PAGES:
                break
            self._send_dirty()

    def _send_dirty(self) -> None:
        flags = self._machine.dirty[:]
        self._send_pages([pfn for pfn, flag in enumerate(flags) if flag])

    def _send_pages(self, pfns: list[int]) -> None:
        memory, dirty = self._machine.memory, self._machine.dirty
        for first in range(0, len(pfns), BATCH_PAGES):
            batch = pfns[first : first + BATCH_PAGES]
            pages = []
            for pfn in batch:
                dirty[pfn] = 0
                pages.append(memory[pfn * PAGE_BYTES : (pfn + 1) * PAGE_BYTES])
            self._write(writer.page_data([writer.typed_pfn(pfn) for pfn in batch], pages))

    def _write_state(self) -> None:
        basic, extended, shared = split_vcpu(bytes(self._machine.vcpu))
        self._nanoseconds += 1_000_000
        self._write(
            writer.tsc_info(elapsed_ns=self._nanoseconds),
            writer.libxc_record(RecordType.SHARED_INFO, shared),
            writer.pv_vcpu(RecordType.X86_PV_VCPU_BASIC, 0, basic),
            writer.pv_vcpu(RecordType.X86_PV_VCPU_EXTENDED, 0, extended),
        )

    def _write(self, *parts: bytes) -> None:
        try:
            for part in parts:
                write_all(self._fd, part)
        except OSError as error:
            text = f"Failed to write record to stream ({error.errno} = {error.strerror})"
            raise StreamBroken(text) from error


class Restorer:
    """Fills one domain from a stream.

    Attributes:
        domain_type: The only type of image that it takes.
    """

    domain_type = DomainType.X86_PV

    def __init__(self, machine: Machine, directory: Path, fd: int, asker: Asker) -> None:
        """Read from `fd`; `directory` is gone once the domain is destroyed."""
        self._machine = machine
        self._directory = directory
        self._fd = fd
        self._asker = asker
        self._is_buffering = False
        self._buffered: list[tuple[int, bytearray]] = []

    def restore(self) -> None:
        """Read until END, or until an error after a whole checkpoint: that means failover.

        Raises:
            StreamBroken: There is no consistent state, or a record cannot be applied.
        """
        self._read_headers()
        while True:
            try:
                kind, body = read_record(self._fd)
            except (EndOfStream, StreamBroken) as error:
                if self._is_buffering:
                    complain(str(error))
                    return
                raise
            if kind == RecordType.CHECKPOINT:
                if not self._on_checkpoint():
                    return
            elif kind == RecordType.END:
                return
            elif self._is_buffering:
                self._buffered.append((kind, body))
            else:
                self._apply(kind, body)

    def _read_headers(self) -> None:
        head = read_exactly(self._fd, libxc.IMAGE_HEADER.size)
        marker, ident, version, *_ = libxc.IMAGE_HEADER.unpack(head)
        if marker != libxc.IHDR_MARKER or ident != libxc.IHDR_ID:
            raise StreamBroken("Invalid marker or ID in the image header")
        if version not in libxc.VERSIONS:
            raise StreamBroken(f"Invalid version: {version}")
        kind, shift, _, major, minor = struct.unpack("<IHHII", read_exactly(self._fd, 16))
        if kind != self.domain_type or shift != libxc.PAGE_SHIFT:
            raise StreamBroken(f"Unable to restore: type {kind:#x}, page shift {shift}")
        log(
            f"Found {self.domain_type.name.replace('X86_', 'x86 ')} domain from Xen {major}.{minor}"
        )
        log("Restoring domain")

    def _on_checkpoint(self) -> bool:
        answer = self._asker.ask("checkpoint")
        if answer == CHECKPOINT_FAILOVER and self._is_buffering:
            return False
        if answer != CHECKPOINT_SUCCESS:
            raise StreamBroken("no consistent state")
        if self._is_buffering:
            log("All records buffered")
            for kind, body in self._buffered:
                self._apply(kind, body)
            self._buffered.clear()
            log("All records processed")
        self._is_buffering = True
        return True

    def _apply(self, kind: int, body: bytearray) -> None:
        if not self._directory.exists():
            raise StreamBroken("the domain is gone")
        if kind == RecordType.PAGE_DATA:
            self._apply_pages(body)
        elif kind in _VCPU_RANGES:
            start, size, skip = _VCPU_RANGES[RecordType(kind)]
            if len(body) != size + skip:
                raise StreamBroken(f"record {kind:#x} has {len(body)} bytes")
            self._machine.vcpu[start : start + size] = bytes(body[skip:])
        elif kind not in _PASSED_OVER and not kind & 0x8000_0000:
            raise StreamBroken(f"Mandatory record {kind:#x} not handled")

    def _apply_pages(self, body: bytearray) -> None:
        if len(body) < 8:
            raise StreamBroken("PAGE_DATA record truncated")
        (count,) = struct.unpack_from("<I", body)
        at = 8 + 8 * count
        if not count or len(body) < at:
            raise StreamBroken("PAGE_DATA record truncated")
        for typed in struct.unpack_from(f"<{count}Q", body, 8):
            pfn, kind = typed & ((1 << 52) - 1), typed >> libxc.PAGE_TYPE_SHIFT
            if kind in libxc.PAGE_TYPES_WITHOUT_DATA:
                continue
            page = body[at : at + PAGE_BYTES]
            at += PAGE_BYTES
            if pfn >= self._machine.pages or len(page) != PAGE_BYTES:
                raise StreamBroken(f"pfn {pfn:#x} outside of the domain or of the record")
            self._machine.memory[pfn * PAGE_BYTES : (pfn + 1) * PAGE_BYTES] = bytes(page)


def split_vcpu(state: bytes) -> tuple[bytes, bytes, bytes]:
    """Cut a vCPU file into basic context, extended context and shared info."""
    extended = VCPU_BASIC_BYTES
    shared = extended + VCPU_EXTENDED_BYTES
    return state[:extended], state[extended:shared], state[shared : shared + SHARED_INFO_BYTES]


# From type to (offset in the vCPU file, bytes, bytes of sub-header before the context).
_VCPU_RANGES = {
    RecordType.X86_PV_VCPU_BASIC: (0, VCPU_BASIC_BYTES, 8),
    RecordType.X86_PV_VCPU_EXTENDED: (VCPU_BASIC_BYTES, VCPU_EXTENDED_BYTES, 8),
    RecordType.SHARED_INFO: (VCPU_BASIC_BYTES + VCPU_EXTENDED_BYTES, SHARED_INFO_BYTES, 0),
}
_PASSED_OVER = frozenset(
    {
        RecordType.X86_PV_INFO,
        RecordType.X86_PV_P2M_FRAMES,
        RecordType.X86_TSC_INFO,
        RecordType.X86_CPUID_POLICY,
        RecordType.X86_MSR_POLICY,
        RecordType.STATIC_DATA_END,
        RecordType.X86_PV_VCPU_XSAVE,
        RecordType.X86_PV_VCPU_MSRS,
    }
)
_CPUID_LEAF = struct.pack("<6I", 0, 0xFFFFFFFF, 1, 0x756E6547, 0x6C65746E, 0x49656E69)
_MSR_ENTRIES = struct.pack("<IIQ", 0xCE, 0, 0)


def log(text: str) -> None:
    """Say something as libxc's logger does."""
    sys.stderr.write(f"xc: info: {text}\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """Report an error as libxc's logger does."""
    sys.stderr.write(f"xc: error: {text}: Internal error\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> None:
    """Run `--save-domain FD BACK_FD DOMID DIRECTORY LIVE CHECKPOINTED`, or `--restore-domain …`.

    The first four are as the real helper has them; a last word `colo` makes it COLO.
    """
    Path("/proc/self/comm").write_text("libxl-save-help", encoding="ascii")
    mode, fd, directory = arguments[0], int(arguments[1]), Path(arguments[4])
    # Python ignores it, the real helper dies of it at its first write to a broken pipe.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    asker = Asker()
    try:
        machine = Machine(directory)
        if arguments[-1] == COLO:
            from colod.simxen.colo import memory

            if mode == "--save-domain":
                _make_sigterm_break(fd)
                memory.ColoSaver(machine, fd, int(arguments[2]), asker).replicate()
            memory.ColoRestorer(machine, directory, fd, int(arguments[2]), asker).restore()
        elif mode == "--save-domain":
            _make_sigterm_break(fd)
            is_live, is_checkpointed = (each == "1" for each in arguments[5:7])
            saver = Saver(machine, fd, asker)
            saver.save(is_live=is_live, is_checkpointed=is_checkpointed)
        else:
            Restorer(machine, directory, fd, asker).restore()
            log("Restore successful")
    except (EndOfStream, StreamBroken, OSError) as error:
        verb = "Save" if mode == "--save-domain" else "Restore"
        complain(f"{verb} failed: {error}")
        asker.complete(1)
        return
    asker.complete(0)


def _make_sigterm_break(fd: int) -> None:
    # As in Xen: SIGTERM makes the stream unwritable, so that libxc takes its own error path.
    null = os.open(os.devnull, os.O_RDONLY)
    signal.signal(signal.SIGTERM, lambda *_: os.dup2(null, fd) and None)
