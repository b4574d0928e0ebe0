"""libxc's part of COLO, as the save helper does it: an HVM image whose checkpoints go both ways.

The secondary runs between two checkpoints, so at each it says which of its own pages have changed
(CHECKPOINT_DIRTY_PFN_LIST, on the back channel), and gets those anew, too.

Source: Xen tools/libs/guest/xg_sr_save.c, save() and colo_merge_secondary_dirty_bitmap();
xg_sr_restore.c, handle_checkpoint() and send_checkpoint_dirty_pfn_list().
"""

import struct
from pathlib import Path
from typing import NoReturn

from colod.simxen.guest import VCPU_FILE_BYTES, Machine
from colod.simxen.helper import CHECKPOINT_FAILOVER, Asker, Restorer, Saver, log
from colod.simxen.wire import EndOfStream, StreamBroken, read_record, write_all
from colod.stream import writer
from colod.stream.libxc import DomainType, RecordType

_PARAMS = {1: 0xFEFFC, 2: 0xFEFFD, 5: 0xFEFFE, 17: 1}


class ColoSaver(Saver):
    """Writes one domain to a stream whose other end runs a copy."""

    def __init__(self, machine: Machine, fd: int, back_fd: int, asker: Asker) -> None:
        """Write to `fd`, and read what the secondary says from `back_fd`."""
        super().__init__(machine, fd, asker)
        self._back_fd = back_fd

    def replicate(self) -> NoReturn:
        """Write the image, and checkpoints until something breaks.

        Raises:
            StreamBroken: The stream cannot be written or read, or xl could not go on.
        """
        log(f"Saving domain {self._machine.domid}, type x86 HVM")
        self._write(writer.libxc_image_header(), writer.libxc_domain_header(DomainType.X86_HVM))
        self._write(*self._static_records())
        self._send_live()
        has_copy = False
        while True:
            self._must("suspend")
            if has_copy:
                self._merge_dirty()
            self._send_dirty()
            self._nanoseconds += 1_000_000
            self._write(
                writer.tsc_info(elapsed_ns=self._nanoseconds),
                writer.libxc_record(RecordType.HVM_CONTEXT, bytes(self._machine.vcpu)),
                writer.hvm_params(_PARAMS),
                writer.checkpoint(),
            )
            for what in ("checkpoint", "postcopy", "wait_checkpoint"):
                self._must(what)
            has_copy = True

    def _must(self, what: str) -> None:
        if self._asker.ask(what) != 1:
            raise StreamBroken(f"{what} failed")

    def _merge_dirty(self) -> None:
        """Have all pages sent that the secondary has changed since the last checkpoint."""
        try:
            kind, body = read_record(self._back_fd)
        except (EndOfStream, OSError) as error:
            raise StreamBroken(f"Failed to read the dirty pfn list: {error}") from error
        if kind != RecordType.CHECKPOINT_DIRTY_PFN_LIST or len(body) % 8:
            raise StreamBroken(f"Unexpected record {kind:#x}, want a dirty pfn list")
        for (pfn,) in struct.iter_unpack("<Q", bytes(body)):
            if pfn >= self._machine.pages:
                raise StreamBroken(f"Invalid pfn {pfn:#x}")
            self._machine.dirty[pfn] = 1


class ColoRestorer(Restorer):
    """Fills one domain from a stream, and lets it run between two checkpoints."""

    domain_type = DomainType.X86_HVM

    def __init__(
        self, machine: Machine, directory: Path, fd: int, back_fd: int, asker: Asker
    ) -> None:
        """Read from `fd`, answer on `back_fd`; `directory` is gone with the domain."""
        super().__init__(machine, directory, fd, asker)
        self._back_fd = back_fd

    def _on_checkpoint(self) -> bool:
        if not super()._on_checkpoint():
            return False
        # The copy runs from here on; what changes in it is the primary's to overwrite.
        self._machine.dirty[:] = bytes(self._machine.pages)
        for what in ("postcopy", "wait_checkpoint", "suspend"):
            answer = self._asker.ask(what)
            if answer == CHECKPOINT_FAILOVER:
                return False
            if answer != 1:
                raise StreamBroken(f"{what} failed")
        pfns = [pfn for pfn, flag in enumerate(self._machine.dirty[:]) if flag]
        write_all(self._back_fd, writer.dirty_pfn_list(pfns))
        return True

    def _apply(self, kind: int, body: bytearray) -> None:
        if kind == RecordType.HVM_CONTEXT:
            if len(body) != VCPU_FILE_BYTES:
                raise StreamBroken(f"HVM_CONTEXT has {len(body)} bytes")
            self._machine.vcpu[:] = bytes(body)
        elif kind != RecordType.HVM_PARAMS:
            super()._apply(kind, body)
