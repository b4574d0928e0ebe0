"""A small file system of a host's own: it can stand still, as a slow disk does, or be full."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

SIZE_BYTES: Final = 48 << 20
_CHUNK_BYTES: Final = 1 << 16


class Disk:
    """An ext4 in a file, mounted on a directory."""

    def __init__(self, image: Path, directory: Path) -> None:
        """Make and mount it."""
        self._directory = directory
        self._filler = directory / "filler"
        self._is_frozen = False
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(directory))

    def freeze(self) -> None:
        """Let every write wait."""
        _run("fsfreeze", "--freeze", str(self._directory))
        self._is_frozen = True

    def thaw(self) -> None:
        """Let them go on."""
        if self._is_frozen:
            _run("fsfreeze", "--unfreeze", str(self._directory))
            self._is_frozen = False

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("wb", buffering=0) as file:
            size = _CHUNK_BYTES
            while size:
                try:
                    file.write(b"\xff" * size)
                    os.fsync(file.fileno())
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def mend(self) -> None:
        """End every fault."""
        self.thaw()
        self.empty()

    def close(self) -> None:
        """Unmount it; what writes to it must have ended."""
        self.thaw()
        _run("umount", str(self._directory))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
