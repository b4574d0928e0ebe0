"""A folder in memory for targets whose parsers read files; it goes when the process ends."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Final

_IN_MEMORY: Final = Path("/dev/shm")
"""Where it is there, a sync costs nothing."""


def make_folder() -> Path:
    """Return a new one, that this process alone uses."""
    where = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="colod-fuzz-", dir=where))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
