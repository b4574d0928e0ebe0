"""The emulated guest: what its one vCPU does to its memory.

Nothing of the guest lives outside its memory and its vCPU context, so a copy of these is the
guest. Every tick adds one to the counter and writes to pages that follow from the counter alone;
a table in the memory says when each page was last written. Whether a restored copy is of one
moment can therefore be checked from within: each page's own stamp equals the table's.

Layout of the memory, in pages: 0 identity, 1 counter, 2… table of stamps (8 bytes a page), then
data pages.
"""

import hashlib
import mmap
import os
import struct
import uuid
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = 4096
VCPU_BASIC_BYTES: Final = 5168
VCPU_EXTENDED_BYTES: Final = 64
SHARED_INFO_BYTES: Final = PAGE_BYTES
VCPU_FILE_BYTES: Final = VCPU_BASIC_BYTES + VCPU_EXTENDED_BYTES + SHARED_INFO_BYTES
KERNEL_PAGES: Final = 16
"""Pages at the end of the memory of a guest on a wire that hold its connections."""
DEFAULT_PAGES: Final = 1024
MIN_PAGES: Final = 16

_MAGIC: Final = b"simulated guest\0"
_COUNTER: Final = struct.Struct("<Q")
_STAMP: Final = struct.Struct("<QQ")
_COUNTER_OFFSET: Final = PAGE_BYTES
_TABLE_OFFSET: Final = 2 * PAGE_BYTES


def table_pages(pages: int) -> int:
    """Return how many pages the table of stamps takes."""
    return -(-pages * _COUNTER.size // PAGE_BYTES)


class Machine:
    """A domain's memory, dirty flags and vCPU state, shared with whoever saves or restores it."""

    def __init__(self, directory: Path) -> None:
        """Map the files that `create` made."""
        self.memory = _map(directory / "memory")
        self.dirty = _map(directory / "dirty")
        self.vcpu = _map(directory / "vcpu")
        self.pages = len(self.dirty)
        self.domid = directory.name

    @staticmethod
    def create(directory: Path, pages: int) -> None:
        """Make the files of a machine of `pages` pages, all zero."""
        sizes = {"memory": pages * PAGE_BYTES, "dirty": pages, "vcpu": VCPU_FILE_BYTES}
        for name, size in sizes.items():
            with (directory / name).open("wb") as file:
                file.truncate(size)


class Guest:
    """What runs on a machine."""

    def __init__(self, machine: Machine, writes_per_tick: int, kernel_pages: int = 0) -> None:
        """Attach to a machine; call `boot` or `load` before the first tick.

        Args:
            machine: Its memory.
            writes_per_tick: How many pages it writes to.
            kernel_pages: Pages at the end that belong to somebody else.
        """
        self._machine = machine
        self._writes = writes_per_tick
        self._first_data = 2 + table_pages(machine.pages)
        self._end_data = machine.pages - kernel_pages
        self.counter = 0
        self.boot_id = ""

    def boot(self) -> None:
        """Start afresh: new boot id, counter at zero."""
        identity = uuid.UUID(bytes=os.urandom(16), version=4)
        self.counter, self.boot_id = 0, str(identity)
        self._write(0, _MAGIC + identity.bytes)
        self._save_counter()

    def load(self) -> None:
        """Go on from what the machine's memory holds."""
        start = len(_MAGIC)
        self.boot_id = str(uuid.UUID(bytes=bytes(self._machine.memory[start : start + 16])))
        (self.counter,) = _COUNTER.unpack_from(self._machine.memory, _COUNTER_OFFSET)

    def tick(self) -> None:
        """Run for one tick."""
        self.counter += 1
        seed = _COUNTER.pack(self.counter) + self.boot_id.encode("ascii")
        for index in range(self._writes):
            digest = hashlib.blake2b(seed + bytes((index & 0xFF,))).digest()
            span = self._end_data - self._first_data
            pfn = self._first_data + int.from_bytes(digest[:4], "little") % span
            # Some stores leave a page as it was; hypervisors report it dirty all the same.
            if index % 3 == 2:
                self._machine.dirty[pfn] = 1
            else:
                self._stamp(pfn, digest)
        self._save_counter()

    def is_intact(self) -> bool:
        """Tell whether memory and vCPU are all of one moment."""
        memory, vcpu = self._machine.memory, self._machine.vcpu
        if bytes(memory[: len(_MAGIC)]) != _MAGIC:
            return False
        if bytes(vcpu[:8]) != bytes(memory[_COUNTER_OFFSET : _COUNTER_OFFSET + 8]):
            return False
        for pfn in range(self._first_data, self._end_data):
            stamp, owner = _STAMP.unpack_from(memory, pfn * PAGE_BYTES)
            (known,) = _COUNTER.unpack_from(memory, _TABLE_OFFSET + pfn * _COUNTER.size)
            if stamp != known or (stamp and owner != pfn):
                return False
        return True

    def _stamp(self, pfn: int, noise: bytes) -> None:
        self._write(pfn * PAGE_BYTES, _STAMP.pack(self.counter, pfn) + noise)
        self._write(_TABLE_OFFSET + pfn * _COUNTER.size, _COUNTER.pack(self.counter))

    def _save_counter(self) -> None:
        value = _COUNTER.pack(self.counter)
        self._write(_COUNTER_OFFSET, value)
        self._machine.vcpu[: _COUNTER.size] = value

    def _write(self, offset: int, value: bytes) -> None:
        # First the store, then the flag: a saver clears the flag before it reads the page, so a
        # page that changes under its hands is always sent once more.
        self._machine.memory[offset : offset + len(value)] = value
        self._machine.dirty[offset // PAGE_BYTES] = 1


def _map(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
