"""What a receiver may keep of its replica on disk, and the file that pages are kept in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colod.stream.image.pages import PAGE_BYTES

KEPT_BYTES: Final = (1 << 20, 1 << 44)
_NAME: Final = ".pages-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What may be kept.

    Attributes:
        directory: Where the file of pages is made, on a disk; "" to keep nothing.
        max_bytes: Most that the pages may take there.
    """

    directory: str = ""
    max_bytes: int = KEPT_BYTES[1]

    @property
    def is_wanted(self) -> bool:
        """Whether anything is to be kept."""
        return bool(self.directory)


def parse_image(given: Any) -> ImageSpec:
    """Return the specification that a JSON value holds.

    Raises:
        ValueError: With the first thing that is wrong with it.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{given!r} is no table")
    if unknown := given.keys() - {"directory", "max_bytes"}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    spec = ImageSpec(**given)
    if not isinstance(spec.directory, str) or (
        spec.directory and not Path(spec.directory).is_absolute()
    ):
        raise ValueError(f"directory {spec.directory!r} is no absolute path")
    low, high = KEPT_BYTES
    if type(spec.max_bytes) is not int or not low <= spec.max_bytes <= high:
        raise ValueError(f"max_bytes {spec.max_bytes!r} is not within {low} to {high}")
    return spec


class DiskPages:
    """Pages in a file that nobody else sees and that ends with the process.

    The file has holes where the guest has no pages. It is written as a file and not mapped: a disk
    that is full is then an error to be handled, where a mapping would end the process.
    """

    def __init__(self, directory: Path, name: str) -> None:
        """Make the file.

        Raises:
            OSError: If it cannot be made.
        """
        path = directory / f"{_NAME}{name}"
        path.unlink(missing_ok=True)  # of a session that died between making and hiding it
        self._number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()

    def write(self, pfn: int, contents: memoryview) -> None:
        """Keep contents.

        Raises:
            OSError: If the disk is full or broken.
        """
        at = pfn * PAGE_BYTES
        while contents:
            count = os.pwrite(self._number, contents, at)
            contents, at = contents[count:], at + count

    def read(self, pfn: int, count: int) -> bytes:
        """Return contents that were written before.

        Raises:
            OSError: If the disk is broken.
        """
        wanted, at = count * PAGE_BYTES, pfn * PAGE_BYTES
        octets = os.pread(self._number, wanted, at)
        if len(octets) != wanted:
            raise OSError(f"{len(octets)} of {wanted} bytes can be read at {at}")
        return octets

    def close(self) -> None:
        """Give up the file and all that is in it."""
        os.close(self._number)
