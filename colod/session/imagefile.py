"""One image that was asked for, on its way to the disk."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from enum import Enum
from pathlib import Path
from typing import Final

from colod.durable import sync_directory
from colod.errors import CheckpointError
from colod.stream.image.export import Export
from colod.stream.image.keeper import ImageKeeper
from colod.v1 import session_pb2

PART_SUFFIX: Final = ".part"
"""What an image's name ends with until all of it is on the disk."""

_ERROR_CHARS: Final = 500

_log = logging.getLogger(__name__)


class _Stage(Enum):
    WAITING = 0
    WRITING = 1
    SETTLING = 2
    DONE = 3
    FAILED = 4


class ImageFile:
    """Written by one thread, `begin` and `step` and `fail`; anybody may look at it."""

    def __init__(self, name: str, path: Path, config_path: Path | None) -> None:
        """Want an image.

        Args:
            name: What it is called where it was asked for.
            path: Where it is to be; nothing may be there.
            config_path: The configuration that it is to have, None for the guest's own.
        """
        self.name = name
        self._path = path
        self._config_path = config_path
        self._stage = _Stage.WAITING
        self._number = -1
        self._export: Export | None = None
        self._epoch_age_s = -1.0
        self._error = ""

    @property
    def is_over(self) -> bool:
        """Whether it is done or was given up."""
        return self._stage in (_Stage.DONE, _Stage.FAILED)

    @property
    def is_being_written(self) -> bool:
        """Whether `step` has something to do."""
        return self._stage is _Stage.WRITING

    def begin(self, keeper: ImageKeeper, epoch_age_s: float) -> None:
        """Take the moment that the image is of."""
        self._epoch_age_s = epoch_age_s
        try:
            config = self._config_path.read_bytes() if self._config_path else b""
            if self._path.exists():
                self.fail(f"{self._path}: want a file that is not there yet")
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._number = os.open(self._part, flags, 0o600)
            self._export = keeper.export(self._put, config=config)
        except (OSError, CheckpointError) as error:
            self.fail(str(error))
            return
        self._stage = _Stage.WRITING

    def step(self, keeper: ImageKeeper) -> None:
        """Write a slice of it; bring the whole to the disk in a thread, which may take long."""
        assert self._export is not None
        if self._export.step():
            return
        keeper.end_export()
        if self._export.error is not None:
            self.fail(str(self._export.error))
            return
        self._stage = _Stage.SETTLING
        threading.Thread(target=self._settle, name="image-sync", daemon=True).start()

    def fail(self, why: str) -> None:
        """Give it up, unless it is over or its last bytes are on the way to the disk."""
        if self.is_over or self._stage is _Stage.SETTLING:
            return
        self._give_up(why)

    def told(self) -> session_pb2.ImageExport:
        """Return how it stands."""
        told = session_pb2.ImageExport(
            id=self.name,
            epoch_age_s=self._epoch_age_s,
            is_done=self._stage is _Stage.DONE,
            error=self._error,
        )
        if (export := self._export) is not None:
            told.epoch, told.saved_pages = export.epoch, export.saved_pages
            told.written_bytes, told.total_bytes = export.written_bytes, export.total_bytes
        return told

    @property
    def _part(self) -> Path:
        return self._path.with_name(self._path.name + PART_SUFFIX)

    def _put(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(self._number, rest) :]

    def _settle(self) -> None:
        try:
            os.fsync(self._number)
            os.link(self._part, self._path)  # unlike a renaming it replaces nothing
            self._part.unlink()
            sync_directory(self._path.parent)
            os.close(self._number)
        except OSError as error:
            self._give_up(str(error))
            return
        self._stage = _Stage.DONE
        _log.info("image.written path=%s", self._path)

    def _give_up(self, why: str) -> None:
        self._error = why[:_ERROR_CHARS] or "given up"
        self._stage = _Stage.FAILED
        if self._number >= 0:
            with contextlib.suppress(OSError):
                os.close(self._number)
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
        _log.warning("image.failed path=%s reason=%r", self._path, why)
