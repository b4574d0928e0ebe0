"""What became of drills on this host, and which one is under way: kept on disk.

`STATE/drills.jsonl` has one JSON object per line, `STATE/drills/GUEST.json` the drill that was
begun and not cleared away. Both are synced: what a drill has shown is asked for months later, and
what it left must be found after any crash.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from colod.daemon.jsonlines import lines_of, parsed
from colod.durable import replace_file, sync_directory
from colod.v1 import admin_pb2

PASSED: Final = "passed"
FAILED: Final = "failed"
NOT_CHECKED: Final = "not checked"
ABORTED: Final = "aborted"

ISOLATED: Final = "isolated"
SECONDARY: Final = "secondary"
LIVE: Final = "live"

_RUNS_A_COPY: Final = (ISOLATED, LIVE)
_KEPT: Final = 1000
_UNKNOWN: Final = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One drill; what was not measured is -1. `unix_s` is wall-clock time, for people only.

    Attributes:
        id: Its own.
        unix_s: When it was begun.
        host: Where.
        guest: Of which guest.
        kind: ISOLATED: the newest epoch was restored beside the replica. SECONDARY: the replica was
            thrown away and rebuilt. LIVE: the guest was failed over.
        epoch: The epoch that was restored, or from which the guest went on at the other host, or
            the newest acknowledged one at the end; 0 for none.
        generation: Of the ownership record then; of a live drill, before anything was ordered.
        verdict: PASSED only where a check said so.
        detail: Why, where that is not so; what was left behind.
        operator: Who asked for it.
        check: What was run against it, once or as a probe again and again; "" for nothing.
        network: The bridge, or `none`.
        rpo_s: How old the epoch's acknowledgement was when the image was begun, or the takeover
            decided; 0 where the record and the session show that nothing came after it.
        image_s: To write the image.
        restore_s: To restore it.
        start_s: From then, or from the decision, until the guest was seen to run.
        check_s: To check it.
        rto_s: From the begin until the guest was found to work; until it ran, without a check.
            LIVE: from the order until it was seen to run, whoever answers then.
        is_kept: Whether it was left running.
        discard_s: Until nothing was left of the old replica.
        unprotected_s: From the order, or the decision, until the guest was PROTECTED again.
        protect_s: From the order to pair anew, or from when the guest ran, until then.
        as_if_host_died: LIVE, as all that follows: whether it was taken over from a host that was
            not asked.
        decide_s: From the order until the record named the other host.
        outage_s: The longest time without an answer, as the probe saw it.
        failback_s: The way back: from the order until the guest was seen to run.
        failback_outage_s: The longest time without an answer then.
        failback_protect_s: From when it ran until it was PROTECTED.
        end_owner: Who owned it at the end.
        end_generation: Of the record then; 0 where it is not known.
    """

    id: str
    unix_s: float
    host: str
    guest: str
    kind: str = ISOLATED
    epoch: int = 0
    generation: int = 0
    verdict: str = ABORTED
    detail: str = ""
    operator: str = ""
    check: str = ""
    network: str = "none"
    rpo_s: float = _UNKNOWN
    image_s: float = _UNKNOWN
    restore_s: float = _UNKNOWN
    start_s: float = _UNKNOWN
    check_s: float = _UNKNOWN
    rto_s: float = _UNKNOWN
    is_kept: bool = False
    discard_s: float = _UNKNOWN
    unprotected_s: float = _UNKNOWN
    protect_s: float = _UNKNOWN
    as_if_host_died: bool = False
    decide_s: float = _UNKNOWN
    outage_s: float = _UNKNOWN
    failback_s: float = _UNKNOWN
    failback_outage_s: float = _UNKNOWN
    failback_protect_s: float = _UNKNOWN
    end_owner: str = ""
    end_generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A drill that was begun: what is to be cleared away when nobody else does.

    Attributes:
        drill: Its record so far.
        domain: What its domain is named.
        image: Where its image is written.
        files: What else it writes.
        uuid: Of its domain; "" where it has none, or an older colod made the mark.
    """

    drill: Drill
    domain: str
    image: str
    files: Sequence[str] = field(default=())
    uuid: str = ""


class DrillLog:
    """The file and the marks.

    Attributes:
        running: The drill of each guest that is under way, as it was begun: each has one mark only.
    """

    def __init__(self, state: Path) -> None:
        """Read what is there; lines that cannot be read are passed over."""
        self.running: dict[str, Drill] = {}
        self._lock = threading.Lock()
        self._path = state / "drills.jsonl"
        self._marks = state / "drills"
        self._drills: deque[Drill] = deque(
            parsed(lines_of(self._path)[-_KEPT:], Drill), maxlen=_KEPT
        )
        self._lines = len(self._drills)

    def add(self, drill: Drill) -> None:
        """Append a drill; the oldest make room.

        Raises:
            OSError: If it did not reach the disk; it is known until the daemon ends.
        """
        with self._lock:
            self._drills.append(drill)
        if self._lines >= 2 * _KEPT:
            kept = self._all()
            replace_file(self._path, "".join(map(_line, kept)).encode())
            self._lines = len(kept)
            return
        with self._path.open("a") as file:
            file.write(_line(drill))
            file.flush()
            os.fsync(file.fileno())
        self._lines += 1

    def of(self, guest: str, limit: int) -> Sequence[Drill]:
        """Return the newest `limit` drills of `guest` (of all when empty), oldest first."""
        found = [each for each in self._all() if guest in ("", each.guest)]
        return found[-limit:] if limit else found

    def has(self, drill_id: str) -> bool:
        """Whether this drill is recorded."""
        return any(each.id == drill_id for each in self._all())

    def last_success(self, guest: str) -> float | None:
        """Return when the newest drill of `guest` that passed had run a copy of it, or None."""
        times = [
            each.unix_s + max(0.0, each.rto_s)
            for each in self._all()
            if each.guest == guest and each.verdict == PASSED and each.kind in _RUNS_A_COPY
        ]
        return max(times, default=None)

    def begin(self, mark: Mark) -> None:
        """Write down what is about to be made, before it is.

        Raises:
            OSError: If it did not reach the disk.
        """
        self._marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._mark(mark.drill.guest), json.dumps(asdict(mark)).encode())

    def cleared(self, guest: str) -> None:
        """Forget the mark of a drill of which nothing is left.

        Raises:
            OSError: If that did not reach the disk; it is then cleared once more.
        """
        self._mark(guest).unlink(missing_ok=True)
        sync_directory(self._marks)

    def left(self, kind: str = ISOLATED) -> Sequence[Mark]:
        """Return the drills of a kind that were begun and not cleared away."""
        return [each for each in self._marked() if each.drill.kind == kind]

    def marked(self, guest: str) -> str:
        """Return the kind of the drill of a guest that is not cleared away, "" where none is."""
        return next((each.drill.kind for each in self._marked() if each.drill.guest == guest), "")

    def _marked(self) -> Sequence[Mark]:
        found = []
        for path in sorted(self._marks.glob("*.json")):
            try:
                given = json.loads(path.read_text())
                found.append(Mark(**{**given, "drill": Drill(**given["drill"])}))
            except (OSError, ValueError, TypeError, KeyError):
                continue
        return found

    def _all(self) -> Sequence[Drill]:
        with self._lock:  # one is added in another thread
            return tuple(self._drills)

    def _mark(self, guest: str) -> Path:
        return self._marks / f"{guest}.json"


def _line(drill: Drill) -> str:
    fields: dict[str, Any] = asdict(drill)
    return json.dumps(fields) + "\n"


def drill_message(drill: Drill) -> admin_pb2.DrillRecord:
    """Return a drill as operators get it."""
    return admin_pb2.DrillRecord(**asdict(drill))
