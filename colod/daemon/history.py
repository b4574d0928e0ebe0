"""What happened to each protection on this host, kept for operators: one JSON object per line."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from colod.daemon.jsonlines import lines_of, parsed
from colod.durable import replace_file

_KEPT = 10_000
_MOST = 2 * _KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a protection's state. `unix_s` is wall-clock time, for people only."""

    unix_s: float
    host: str
    guest: str
    from_state: str
    to_state: str
    cause: str
    generation: int
    epoch: int


class History:
    """The file `STATE/history.jsonl`. Losing it loses nothing but knowledge of the past.

    Once it is full it becomes `history.jsonl.1`, in the place of the one before, and is begun anew:
    both together hold what is kept, and never more than twice that.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there; lines that cannot be read are passed over."""
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._lock = threading.Lock()
        self._changes: deque[Change] = deque(maxlen=_KEPT)
        lines = lines_of(path)
        self._changes.extend(parsed([*lines_of(self._older), *lines][-_KEPT:], Change))
        if len(lines) > _MOST:
            lines = lines[-_KEPT:]
            self._shorten(lines)
        self._lines = len(lines)

    def add(self, change: Change) -> bool:
        """Append `change`; return whether it reached the file (a full disk must stop nothing)."""
        with self._lock:
            self._changes.append(change)
        try:
            # A rename alone: who calls this does not wait for a disk.
            if self._lines >= _KEPT:
                self._path.replace(self._older)
                self._lines = 0
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(change)) + "\n")
        except OSError:
            return False
        self._lines += 1
        return True

    def _shorten(self, lines: Sequence[str]) -> None:
        """Drop old lines: the file must not fill what the journal needs, nor slow each start."""
        with contextlib.suppress(OSError):
            replace_file(self._path, "".join(f"{line}\n" for line in lines).encode())

    def last_state(self, guest: str) -> str:
        """Return the state that `guest` was last seen to enter, "" if none was."""
        found = self.of(guest, 1)
        return found[0].to_state if found else ""

    def of(self, guest: str, limit: int) -> Sequence[Change]:
        """Return the newest `limit` changes of `guest` (of all when empty), oldest first.

        Safe in any thread.
        """
        with self._lock:
            changes = tuple(self._changes)
        found = [change for change in changes if guest in ("", change.guest)]
        return found[-limit:] if limit else found
