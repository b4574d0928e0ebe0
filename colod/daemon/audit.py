"""What operators did, in the log and in a file of its own: who, what, and what came of it.

`STATE/audit.jsonl` has one JSON object per line, whatever `log.level` says; at 16 MiB it becomes
`audit.jsonl.1`, in the place of an older one. A line is on disk before it counts as written, but no
request waits for that: a full disk or one that stands still must not keep anybody from a failover.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import Final

import structlog

from colod.errors import ColodError
from colod.observe.logs import Event
from colod.rpc.admin_guard import BEGUN, DENIED, Act

_log = structlog.get_logger()

MAX_BYTES: Final = 16 << 20
_WAITING_MAX: Final = 1000
_TEXT_MAX_CHARS: Final = 1000
CLOSE_S: Final = 2.0
_NOT_LOGGED: Final = frozenset({"unix_s", "pid", "name", "role"})
_EVENTS: Final = {BEGUN: Event.ADMIN_CALLED, DENIED: Event.ADMIN_DENIED}


class AuditLog:
    """The file; see `colod.rpc.admin_guard.Audit`."""

    def __init__(self, state: Path, *, max_bytes: int = MAX_BYTES) -> None:
        """Write into the directory `state`; at `max_bytes` another file is begun."""
        self._path = state / "audit.jsonl"
        self._max_bytes = max_bytes
        self._is_closed = False
        self._room = BoundedSemaphore(_WAITING_MAX)
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        # One thread: lines stay in order. A disk that stands still must not keep the process.
        self._thread = Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()

    def note(self, act: Act, outcome: str, error: ColodError | None = None) -> None:
        """Note an act; returns at once and raises nothing."""
        entry = {
            "unix_s": time.time(),
            "pid": os.getpid(),
            "number": act.number,
            "name": act.name,
            "role": act.role,
            "address": act.address,
            "call": act.call,
            "request": act.request,
            "outcome": outcome,
            "code": error.code if error else "",
            "text": str(error)[:_TEXT_MAX_CHARS] if error else "",
        }
        _tell(entry)
        if self._is_closed:
            _log.error(Event.AUDIT_UNWRITTEN, error="it is closed")
            return
        if not self._room.acquire(blocking=False):
            _log.error(Event.AUDIT_UNWRITTEN, error=f"{_WAITING_MAX} lines wait for the disk")
            return
        self._lines.put(json.dumps(entry))

    def close(self) -> None:
        """Return once all that was noted is written, or `CLOSE_S` later."""
        self._is_closed = True
        self._lines.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            _log.error(Event.AUDIT_UNWRITTEN, error=f"the disk gives no answer for {CLOSE_S:g} s")

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)

    def _write(self, line: str) -> None:
        try:
            self._append(f"{line}\n".encode())
        except OSError as error:
            _log.error(Event.AUDIT_UNWRITTEN, error=f"{self._path}: {error.strerror}")
        finally:
            self._room.release()

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            is_full = file.tell() >= self._max_bytes
        if is_full:
            self._path.rename(self._path.with_name(f"{self._path.name}.1"))


def _tell(entry: Mapping[str, object]) -> None:
    """Log it too, where the log is shipped from."""
    fields = {name: value for name, value in entry.items() if name not in _NOT_LOGGED}
    request = entry["request"]
    if isinstance(request, Mapping) and "guest" in request:
        fields["protection"] = request["guest"]
    event = _EVENTS.get(str(entry["outcome"]), Event.ADMIN_FINISHED)
    _log.info(event, operator=entry["name"], operator_role=entry["role"], **fields)
