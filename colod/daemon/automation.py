"""Whether this host acts by itself, or its operators have paused that: one file, fsynced.

Paused, a host takes no guest over and begins no pairing unless it is asked. What is paired goes on,
and an owner that loses its peer goes on alone as ever: that changes nothing of who runs the guest.
As with Patroni's `pause`, it is meant for work on the network or the witness.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from colod.daemon.unbroken import unbroken
from colod.durable import replace_file, sync_directory
from colod.errors import JournalError


class Pause(BaseModel):
    """Who paused automation, when (wall-clock time, for people only) and what for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    operator: str
    reason: str
    unix_s: FiniteFloat


class Automation:
    """The file `STATE/paused.json`; there while automation is paused.

    Attributes:
        pause: The pause, None while this host acts by itself.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there; a file that cannot be read counts as a pause, as it was meant."""
        self._path = path
        self._lock = asyncio.Lock()
        self.pause = _read(path)

    @property
    def is_paused(self) -> bool:
        """Whether this host does nothing by itself."""
        return self.pause is not None

    async def begin_pause(self, operator: str, reason: str) -> None:
        """Pause, or say anew who did and why; on disk when this returns.

        Raises:
            JournalError: If it could not be written.
        """
        pause = Pause(operator=operator, reason=reason, unix_s=time.time())
        content = pause.model_dump_json(indent=1).encode() + b"\n"
        await unbroken(self._change(partial(replace_file, self._path, content)))

    async def end_pause(self) -> None:
        """Let this host act by itself again.

        Raises:
            JournalError: If the file could not be removed for good.
        """
        await unbroken(self._change(partial(_remove, self._path)))

    async def _change(self, write: Callable[[], None]) -> None:
        """Write, and then go by what is on disk: the next start of the daemon will, too."""
        async with self._lock:
            try:
                await asyncio.to_thread(write)
            except OSError as error:
                raise JournalError(f"{self._path}: {error.strerror}") from error
            finally:
                self.pause = await asyncio.to_thread(_read, self._path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def _read(path: Path) -> Pause | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unread(path, error.strerror or str(error))
    try:
        return Pause.model_validate_json(content)
    except ValidationError as error:
        return _unread(path, f"it holds no pause ({error.error_count()} errors)")


def _unread(path: Path, why: str) -> Pause:
    return Pause(operator="", reason=f"{path} cannot be read: {why}", unix_s=0.0)
