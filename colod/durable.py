"""Files that a crash leaves whole: the old content or the new. Everything here blocks."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in place of the file's, whole or not at all, and certain to survive a crash.

    The caller holds a lock: all writers of a file use the same temporary one.

    Raises:
        OSError: If that did not succeed; the old content or the new is there.
    """
    temporary = path.with_name(f".{path.name}.temporary")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o660), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make what was created, renamed or removed in `directory` certain to survive a crash."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
