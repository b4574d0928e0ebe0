"""What the copies of a guest said, in the order in which it got out, and whether they might.

Every copy says its counter with each tick (10 ms), through its host's gate, to the end of one file.
So two copies that speak at one time for 10 ms show there, however busy the machine is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_KEPT: Final = 20


class Speaker(NamedTuple):
    """One copy."""

    root: str
    domid: int


class Word(NamedTuple):
    """One packet of the guest's."""

    speaker: Speaker
    boot_id: str
    counter: int


class Words:
    """Reads a file of words, and judges."""

    def __init__(self, path: Path) -> None:
        """Read from the beginning of `path`, which need not exist yet."""
        self.violations: list[str] = []
        self.heard = 0
        self.takeovers = 0
        self.late = 0
        self._path, self._offset = path, 0
        self._speaker: Speaker | None = None
        self._before: set[Speaker] = set()
        self._boot_id = ""
        self._began_at = 0
        self._newest = 0

    def read(self, *, stood_still: Iterable[str] = ()) -> None:
        """Judge what was said since.

        Args:
            stood_still: Roots of hosts of which something stood still meanwhile. An acknowledged
                epoch that was about to be released then is released late: its packets come late,
                as a network may bring them, but they are of a state that the owner has.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._judge(_word(line), frozenset(stood_still))

    def _judge(self, word: Word, stood_still: frozenset[str]) -> None:
        self.heard += 1
        if word.speaker != self._speaker:
            if word.speaker in self._before:
                self._judge_late(word, stood_still)
                return
            self._take_over(word)
        elif word.boot_id == self._boot_id and word.counter != self._newest + 1:
            self._accuse(word, f"said {word.counter} after {self._newest}")
        self._boot_id, self._newest = word.boot_id, max(word.counter, self._newest)

    def _judge_late(self, word: Word, stood_still: frozenset[str]) -> None:
        is_held = word.boot_id == self._boot_id and word.counter < self._began_at
        if is_held and word.speaker.root in stood_still:
            self.late += 1
        else:
            self._accuse(word, f"said {word.counter} though {self._speaker} speaks since then")

    def _take_over(self, word: Word) -> None:
        if self._speaker is not None:
            self.takeovers += 1
            self._before.add(self._speaker)
            if word.boot_id == self._boot_id and word.counter <= self._newest:
                self._accuse(word, f"goes on at {word.counter}: {self._newest} was said already")
            if word.boot_id != self._boot_id:
                self._accuse(word, "was booted anew")
        self._speaker, self._began_at, self._newest = word.speaker, word.counter, 0

    def _accuse(self, word: Word, what: str) -> None:
        if len(self.violations) < _KEPT:
            self.violations.append(f"{word.speaker} {what}")


def _word(line: bytes) -> Word:
    said = json.loads(line)
    return Word(Speaker(said["root"], said["domid"]), said["boot_id"], said["counter"])
