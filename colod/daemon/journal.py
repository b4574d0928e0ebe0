"""The daemon's memory on disk: one entry per protection, replaced whole and fsynced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from colod.durable import sync_directory
from colod.errors import JournalError
from colod.failover import entry
from colod.failover.view import Journal
from colod.model import GuestName
from colod.threads import Threads

_SUFFIX = ".journal"
_THREADS = 8
"""As many entries are synced at once; a disk gains little by more."""


class JournalStore:
    """Entries in `STATE/protections/GUEST.journal`."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, made where it is missing.

        Raises:
            JournalError: If it cannot be made.
        """
        self._directory = directory
        self._threads = Threads("journal", _THREADS)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror}") from error

    def read_all(self) -> Sequence[Journal]:
        """Return every entry.

        Raises:
            JournalError: If one cannot be read: to go on without it could start a second copy.
        """
        return [self._read(path) for path in self._entries()]

    def read_readable(self) -> tuple[Sequence[Journal], Sequence[str]]:
        """Return every entry that can be read, and what is wrong with each of the others."""
        journals, wrong = [], []
        for path in self._entries():
            try:
                journals.append(self._read(path))
            except JournalError as error:
                wrong.append(str(error))
        return journals, wrong

    async def write(self, journal: Journal) -> None:
        """Replace the guest's entry; when this returns, it is on disk.

        Raises:
            JournalError: If it is not (disk full, read-only); the old entry is intact.
        """
        await self._threads.run(self._write, journal)

    async def erase(self, guest: GuestName) -> None:
        """Remove the guest's entry, durably.

        Raises:
            JournalError: If that failed.
        """
        await self._threads.run(self._erase, guest)

    def _entries(self) -> Sequence[Path]:
        return sorted(self._directory.glob(f"*{_SUFFIX}"))

    def _path(self, guest: GuestName) -> Path:
        return self._directory / f"{guest}{_SUFFIX}"

    def _read(self, path: Path) -> Journal:
        try:
            return entry.decode(path.read_bytes())
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}") from error
        except JournalError as error:
            raise JournalError(
                f"{path}: {error}",
                advice="restore it from a backup, or remove it only once the witness and xl show "
                "that this host has no part in the guest",
            ) from error

    def _write(self, journal: Journal) -> None:
        path = self._path(journal.protection.guest)
        fresh, old = path.with_suffix(".new"), path.with_suffix(".old")
        try:
            _write_durably(fresh, entry.encode(journal))
            old.unlink(missing_ok=True)
            if path.exists():
                os.link(path, old)
            fresh.replace(path)
        except OSError as error:
            _drop(fresh, old)
            raise JournalError(f"{path}: {error.strerror}") from error
        try:
            self._sync_directory()
        except OSError as error:
            self._put_back(old, path)
            raise JournalError(f"{path}: {error.strerror}") from error
        _drop(old)

    def _put_back(self, old: Path, path: Path) -> None:
        """Undo an entry that was refused: another daemon must not read and obey it."""
        with contextlib.suppress(OSError):
            if old.exists():
                old.replace(path)
            else:
                path.unlink()

    def _erase(self, guest: GuestName) -> None:
        try:
            self._path(guest).unlink(missing_ok=True)
            self._sync_directory()
        except OSError as error:
            raise JournalError(f"{self._path(guest)}: {error.strerror}") from error

    def _sync_directory(self) -> None:
        sync_directory(self._directory)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _drop(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
