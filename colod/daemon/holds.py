"""Which guests are paused although their journal cannot say so: its disk is full.

In files that a daemon leaves to the next one and that go with the host's power, as domains do.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from colod.model import GuestName


class Holds:
    """One file for each guest, which names the domain."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, on a file system in memory; it is made when it is needed."""
        self._directory = directory
        self._known: dict[GuestName, int] = {}  # each turn of the daemon asks

    def add(self, guest: GuestName, domid: int) -> None:
        """Note that a domain was paused.

        Raises:
            OSError: If that cannot be noted either; nothing was changed.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"{guest}.new"
        path.write_text(f"{domid}\n", encoding="ascii")
        path.rename(self._directory / guest)
        self._known[guest] = domid

    def domid(self, guest: GuestName) -> int:
        """Return the domain that was paused, 0 for none."""
        if guest not in self._known:
            self._known[guest] = self._read(guest)
        return self._known[guest]

    def forget(self, guest: GuestName) -> None:
        """Note that the journal says it now, or that the guest was let run."""
        self._known[guest] = 0
        with contextlib.suppress(OSError):
            (self._directory / guest).unlink()

    def _read(self, guest: GuestName) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self._directory / guest).read_text(encoding="ascii"))
        return 0
