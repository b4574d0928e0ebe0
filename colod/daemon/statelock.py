"""One process decides on a host: the daemon or the rescue, held apart by a lock on its memory.

Each of them writes whole entries of the journal from what it remembers. A second one would put back
what the first has just written down, such as that a copy was let run.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from colod.errors import JournalError, StateHeld

_LOCKS: Final = Path("/proc/locks")


class StateLock:
    """A lock on the state directory itself: none of its files need be writable for it.

    It lasts as long as this process, however that ends: nothing gives it up earlier, since a write
    of the journal may still be under way in a thread when all else has ended. Children do not
    inherit it: sessions and commands of xl outlive the daemon.
    """

    def __init__(self, directory: Path) -> None:
        """Take the lock, or fail at once.

        Raises:
            StateHeld: If another process has it.
            JournalError: If the directory cannot be made or opened.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(os.fstat(self._fd))
            self.release()
            raise StateHeld(
                f"{holder} decides on this host: it holds {directory}",
                advice="end it first: systemctl stop colod colod-rescue",
            ) from error
        except OSError as error:
            self.release()
            raise JournalError(f"{directory}: {error.strerror}") from error

    def release(self) -> None:
        """Give it up before the process ends; for who does not decide."""
        os.close(self._fd)


def _holder(status: os.stat_result) -> str:
    """Name the process that took the lock, as far as the kernel tells.

    A file system of many devices (btrfs) shows another number there than stat(2) does, so the inode
    alone counts where nothing fits better. Spec: proc_locks(5).
    """
    try:
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return "another process"
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    held = [words for line in lines if "->" not in (words := line.split()) and "FLOCK" in words]
    same = [(words[4], words[5]) for words in held if words[5].endswith(f":{status.st_ino}")]
    exact = [pid for pid, where in same if where.startswith(f"{device}:")]
    pids = exact or [pid for pid, _ in same]
    return f"process {pids[0]}" if pids and pids[0].isdecimal() else "another process"
