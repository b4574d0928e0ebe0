"""The daemon's end of the sessions: their directories, their control sockets, their processes.

A session outlives the daemon. What is needed to find it again, and xl with it, is in its directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from colod.errors import SessionError
from colod.failover.view import Link
from colod.model import GuestName, PairingId, Role
from colod.session.protocol import (
    CONTROL_SOCKET,
    LOG_FILE,
    PID_FILE,
    SPEC_FILE,
    TOOLSTACK_FILE,
    MessageDecoder,
    encode_message,
)
from colod.toolstack import process
from colod.toolstack.port import ProcessRef
from colod.v1 import session_pb2, types_pb2

_RETRY_S: Final = 0.2
HANGS_S: Final = 60.0
"""A session tells how it is every second; one that was silent for so long hangs."""
_READ_BYTES: Final = 64 << 10
_PAIRING_CHARS: Final = 8
_GUEST_CHARS: Final = 32

_LINKS: Final = {
    types_pb2.SESSION_STATE_CONNECTING: Link.STARTING,
    types_pb2.SESSION_STATE_SYNCING: Link.SYNCING,
    types_pb2.SESSION_STATE_REPLICATING: Link.FOLLOWING,
    types_pb2.SESSION_STATE_PEER_LOST: Link.BROKEN,
    types_pb2.SESSION_STATE_TOOLSTACK_LOST: Link.BROKEN,
    types_pb2.SESSION_STATE_FINISHED: Link.BROKEN,
    types_pb2.SESSION_STATE_FAILED: Link.BROKEN,
}


def session_name(guest: GuestName, role: Role, pairing: PairingId) -> str:
    """Return the name of a session's directory and unit.

    A long guest name is cut: the path of the socket below it must fit into 107 bytes (unix(7)).
    """
    return f"{guest[:_GUEST_CHARS]}-{role}-{pairing[:_PAIRING_CHARS]}"


class SessionHandle:
    """One session on this host, alive or not.

    Attributes:
        directory: Its directory.
        status: What it last said, None before it was first reached.
        status_at: Monotonic time of that.
    """

    def __init__(self, directory: Path, role: Role, on_change: Callable[[], None]) -> None:
        """Watch the session of `directory`; `on_change` is called when it says something new."""
        self.directory = directory
        self.status: session_pb2.SessionStatus | None = None
        self.status_at = 0.0
        self._role = role
        self._on_change = on_change
        self._writer: asyncio.StreamWriter | None = None
        self._said = asyncio.Event()
        self._commands = 0
        self._awaited: dict[int, str | None] = {}
        self._xl: ProcessRef | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Keep a connection to the session for as long as it lives."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name=f"session {self.directory.name}")

    async def close(self) -> None:
        """Stop watching; the session goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # --- facts ------------------------------------------------------------------------------

    @property
    def process(self) -> ProcessRef | None:
        """The session's process, if it lives."""
        return _living(self.directory / PID_FILE)

    @property
    def has_ended(self) -> bool:
        """Whether its process was there and is not any more."""
        path = self.directory / PID_FILE
        with contextlib.suppress(OSError):  # it is empty for a moment before it names anybody
            return bool(path.read_text().strip()) and self.process is None
        return False

    @property
    def toolstack(self) -> ProcessRef | None:
        """The xl that belongs to it, if it lives."""
        known = _living(self.directory / TOOLSTACK_FILE) or _if_living(self._xl)
        return known if known is not None or self._role is Role.SECONDARY else self._find_remus()

    @property
    def speaks_for_toolstack(self) -> bool:
        """Whether its process lives, goes on telling, and has not told that its xl is gone."""
        if self.process is None:
            return False
        if self.status is None:
            return True
        is_heard = time.monotonic() - self.status_at < HANGS_S
        return is_heard and self.status.toolstack_pid != 0

    def _find_remus(self) -> ProcessRef | None:
        """Find `xl remus` by our spec in its arguments: it may have started without a session."""
        mark = str(self.directory / SPEC_FILE)
        for each in process.processes():
            is_shell = not each.argv or Path(each.argv[0]).name in ("sh", "dash", "bash")
            if "remus" in each.argv and not is_shell and any(mark in arg for arg in each.argv):
                return each.ref
        return None

    @property
    def is_connected(self) -> bool:
        """Whether the session talks to us now."""
        return self._writer is not None

    @property
    def link(self) -> Link:
        """How the session stands, for decisions."""
        if self.process is None:
            return Link.NONE
        if self.status is None:
            return Link.STARTING
        return _LINKS.get(self.status.state, Link.BROKEN)

    @property
    def peer_heard_at(self) -> float | None:
        """Monotonic time when the other session was last heard, None while it never was."""
        if self.status is None or self.status.progress.peer_heard_age_s < 0:
            return None
        return self.status_at - self.status.progress.peer_heard_age_s

    @property
    def peer_address(self) -> str:
        """Where the other session is, "" while that is not known."""
        return "" if self.status is None else self.status.peer_address

    # --- talking ----------------------------------------------------------------------------

    async def command(
        self, command: session_pb2.SessionCommand, *, timeout_s: float
    ) -> session_pb2.SessionStatus | None:
        """Send `command` and return the status that answers it; None if the session ended first.

        Raises:
            SessionError: If it cannot be reached, does not answer in time, or refuses.
        """
        if not await self.until(lambda: self.is_connected, timeout_s=timeout_s):
            raise SessionError(f"session {self.directory.name} cannot be reached")
        self._commands += 1
        command.id = self._commands
        assert self._writer is not None
        self._writer.write(encode_message(command))
        self._awaited[command.id] = None
        try:
            answered = await self.until(
                lambda: not self.is_connected or self._awaited[command.id] is not None,
                timeout_s=timeout_s,
            )
            error = self._awaited[command.id]
        finally:
            del self._awaited[command.id]
        if not answered:
            raise SessionError(f"session {self.directory.name} does not answer")
        if error:
            raise SessionError(f"session {self.directory.name}: {error}")
        return self.status if self.is_connected else None

    async def until(self, fits: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until `fits`, looked at after everything the session says; return whether it did."""
        try:
            async with asyncio.timeout(timeout_s):
                while not fits():
                    self._said.clear()
                    # Not by wait_for: before Python 3.12 it may lose a cancellation.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_RETRY_S):
                            await self._said.wait()
        except TimeoutError:
            return fits()
        return True

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(OSError, SessionError):
                await self._converse()
            self._writer = None
            self._changed()
            await asyncio.sleep(_RETRY_S)

    async def _converse(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self.directory / CONTROL_SOCKET))
        decoder = MessageDecoder(session_pb2.SessionStatus)
        try:
            while data := await reader.read(_READ_BYTES):
                for status in decoder.feed(data):
                    self._heard(status)
                    self._writer = writer
                    self._changed()
        finally:
            writer.close()

    def _heard(self, status: session_pb2.SessionStatus) -> None:
        if status.command_id in self._awaited:  # the next status may answer the next command
            self._awaited[status.command_id] = status.command_error
        known = self.status.toolstack_pid if self.status is not None else 0
        self.status, self.status_at = status, time.monotonic()
        if status.toolstack_pid and status.toolstack_pid != known:
            self._xl = process.process_ref(status.toolstack_pid)
            _remember(self.directory / TOOLSTACK_FILE, self._xl)

    def _changed(self) -> None:
        self._said.set()
        self._on_change()


def write_spec(directory: Path, spec: Mapping[str, Any]) -> None:
    """Make the session's directory with its specification; it holds a secret.

    Raises:
        SessionError: If that failed.
    """
    try:
        directory.mkdir(mode=0o700, parents=True)
        path = directory / SPEC_FILE
        path.touch(mode=0o600)
        path.write_text(json.dumps({"version": 1, **spec}))
    except OSError as error:
        raise SessionError(f"{directory}: {error.strerror}") from error


def log_path(directory: Path) -> Path:
    """Return where the session and its xl write what they have to say."""
    return directory / LOG_FILE


def last_words(directory: Path, limit: int = 400) -> str:
    """Return the end of the session's log, in one line."""
    try:
        with log_path(directory).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - limit))
            text = log.read(limit).decode(errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())


def remove_directory(directory: Path) -> None:
    """Remove what a dead session left, its log included."""
    shutil.rmtree(directory, ignore_errors=True)


def _remember(path: Path, ref: ProcessRef | None) -> None:
    if ref is not None:
        # What cannot be written (a full disk) is still known as long as this daemon lives.
        with contextlib.suppress(OSError):
            path.write_text(f"{ref.pid} {ref.start_ticks}\n")


def _living(path: Path) -> ProcessRef | None:
    try:
        pid, ticks = (int(word) for word in path.read_text().split()[:2])
    except (OSError, ValueError):
        return None
    return _if_living(ProcessRef(pid=pid, start_ticks=ticks))


def _if_living(ref: ProcessRef | None) -> ProcessRef | None:
    is_there = ref is not None and process.start_ticks(ref.pid) == ref.start_ticks
    return ref if is_there else None
