"""One ownership record in one file, replaced whole under a lock. Everything here blocks.

For the kinds of witness that keep records on a file system.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from colod.durable import replace_file, sync_directory
from colod.errors import WitnessError
from colod.failover.record import MAX_RECORD_BYTES, OwnershipRecord
from colod.model import GuestName, parse_guest_name
from colod.witness.base import Outcome, Stored, Won
from colod.witness.content import after_write, outcome_of_mismatch, pack, unpack

_HEAD = b"colod-witness 1 "
_LOCK_POLL_S = 0.01


class RecordFile:
    """The file of one guest; its methods block.

    The lock lies in a file of its own that is never replaced: a lock on the record's file would
    exclude nobody once the file was renamed over.
    """

    def __init__(self, directory: Path, guest: GuestName) -> None:
        """Name the files of `guest`; guests' names hold no slash and begin with no dot."""
        parse_guest_name(guest)
        self._guest = guest
        self._directory = directory
        self._record = directory / f"{guest}.record"
        self._lock = directory / f"{guest}.lock"

    def read(self, timeout_s: float) -> Stored:
        """Return what the file holds, after it is certain to survive a crash of the machine.

        Raises:
            OSError: TimeoutError included, if the file system does not answer in time.
            WitnessError: If the file is not one that colod wrote for this guest.
        """
        with self._locked(time.monotonic() + timeout_s):
            return self._load()

    def swap(self, expected: Stored, new: OwnershipRecord | None, timeout_s: float) -> Outcome:
        """Write `new` if the file still holds `expected`.

        Raises:
            OSError: TimeoutError included, if the outcome is unknown.
            WitnessError: If the file is not one that colod wrote for this guest.
        """
        return self.put(expected, after_write(expected, new, 0), timeout_s)

    def put(self, expected: Stored, wanted: Stored, timeout_s: float) -> Outcome:
        """Write `wanted`, under the next revision, if the file still holds `expected`.

        Raises:
            OSError: TimeoutError included, if the outcome is unknown.
            WitnessError: If the file is not one that colod wrote for this guest.
        """
        deadline = time.monotonic() + timeout_s
        with self._locked(deadline):
            present = self._load()
            if present != expected:
                return outcome_of_mismatch(expected, present, wanted.record)
            if time.monotonic() > deadline:
                raise TimeoutError("timed out before the record was written")
            stored = replace(wanted, revision=expected.revision + 1)
            head = _HEAD + f"{self._guest} {stored.revision}\n".encode()
            replace_file(self._record, head + pack(stored) + b"\n")
            return Won(stored)

    @contextlib.contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise TimeoutError("timed out waiting for the lock")
                time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(lock)

    def _load(self) -> Stored:
        try:
            file = os.open(self._record, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return Stored(None, 0)
        try:
            # A writer that died between rename and fsync left a record that a crash of the
            # machine could take back after we acted on it.
            os.fsync(file)
            raw = os.read(file, MAX_RECORD_BYTES + 256)
        finally:
            os.close(file)
        sync_directory(self._directory)
        return self._parse(raw)

    def _parse(self, raw: bytes) -> Stored:
        head, _, content = raw.partition(b"\n")
        name, _, revision = head.removeprefix(_HEAD).rpartition(b" ")
        if not head.startswith(_HEAD) or name != self._guest.encode() or not revision.isdigit():
            raise WitnessError(f"{self._record} is not a record file of {self._guest}")
        try:
            return unpack(content.removesuffix(b"\n"), int(revision))
        except (WitnessError, ValueError) as error:
            raise WitnessError(f"{self._record}: {error}") from error


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
