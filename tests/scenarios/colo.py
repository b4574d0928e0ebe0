"""Chaos in COLO: both copies run, so what counts is who is heard, and what clients are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.scenarios.arena import GUEST, Arena
from tests.scenarios.words import Speaker, Word, Words
from tests.wires import Caller, Wire

_PATIENCE_S: Final = 3.0
"""How long the client waits for an answer before it connects anew."""

_BETWEEN_S: Final = 0.01


class ColoWords(Words):
    """Reads what the switch heard, and judges.

    A frame may come again: the guest's TCP sends what was not acknowledged once more. But it comes
    from one place at a time, and what a client was told once is never taken back.
    """

    def __init__(self, path: Path) -> None:
        """Read from the beginning of `path`, which need not exist yet."""
        super().__init__(path)
        self._told = 0

    def told(self, counter: int, boot_id: str) -> None:
        """Judge what a client was told: each answer counts on, whichever copy gave it."""
        if self._boot_id and boot_id != self._boot_id:
            self._blame(Speaker("a client", 0), f"was told of the boot {boot_id}")
        if counter <= self._told:
            self._blame(Speaker("a client", 0), f"was told {counter} after {self._told}")
        self._told = max(self._told, counter)

    def read(self, *, stood_still: Iterable[str] = ()) -> None:
        """Judge what was heard since, as `Words.read` does."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._hear(json.loads(line), frozenset(stood_still))

    def _hear(self, said: Mapping[str, Any], stood_still: frozenset[str]) -> None:
        self.heard += 1
        speaker = Speaker(said["root"], said["domid"])
        counter = int(said.get("counter", 0))
        if speaker in self._before and speaker != self._speaker:
            # What both copies had said, and a process that stood still had already let go.
            if speaker.root in stood_still and counter <= self._newest:
                self.late += 1
            else:
                self._blame(speaker, f"said {counter} though {self._speaker} speaks since then")
            return
        if speaker != self._speaker:
            self.takeovers += self._speaker is not None
            if self._speaker is not None:
                self._before.add(self._speaker)
            self._speaker = speaker
        if "boot_id" in said:
            if self._boot_id not in ("", said["boot_id"]):
                self._blame(speaker, "was booted anew")
            self._boot_id, self._newest = said["boot_id"], max(self._newest, counter)

    def _blame(self, speaker: Speaker, what: str) -> None:
        self._accuse(Word(speaker, self._boot_id, self._newest), what)


class Client(threading.Thread):
    """Asks the guest again and again, for as long as the arena lives."""

    def __init__(self, port: int, words: ColoWords) -> None:
        """Ask at `port`, and have `words` judge the answers."""
        super().__init__(name="client")
        self._port, self._words = port, words
        self._over = threading.Event()

    def run(self) -> None:
        """Ask until stopped; whatever has no answer in time is asked on another connection."""
        while not self._over.is_set():
            try:
                self._talk(Caller(self._port, _PATIENCE_S))
            except (OSError, ValueError, AssertionError):
                self._over.wait(_BETWEEN_S)

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self.join()

    def _talk(self, caller: Caller) -> None:
        try:
            while not self._over.wait(_BETWEEN_S):
                answer = caller.ask()
                self._words.told(answer["counter"], answer["boot_id"])
        finally:
            caller.close()


class ColoArena(Arena):
    """The pair under chaos, with a guest in COLO."""

    mode = "colo"
    interval_ms = 1000
    running_when_well = 2

    def _create_guest(self) -> None:
        self._wire = Wire(self.root, self.pair.guest_port)
        self._closing.callback(self._wire.close)
        self.words = words = ColoWords(self.root / "wire.log")
        self.pair.create_guest(
            GUEST, type="hvm", sim_wire=str(self._wire.socket), sim_memory_pages=64
        )
        client = Client(self.pair.guest_port, words)
        client.start()
        self._closing.callback(client.stop)
