"""The images that are written by a schedule: the newest few of each guest, in bounded space.

They have a directory of their own below that of checkpoints, where no name of an operator's can
lead: nothing else is ever removed. An image goes only once its successor is whole on the disk, so
whatever fails, the ones that are there stay.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from colod.durable import sync_directory
from colod.errors import PreflightRefused
from colod.session.imagefile import PART_SUFFIX

DIRECTORY: Final = "scheduled"
"""Below `checkpoints.directory`."""
SUFFIX: Final = ".xlsave"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(rf"(.+)-(\d{{8}}T\d{{6}}Z){re.escape(SUFFIX)}")
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Scheduled:
    """One image.

    Attributes:
        unix_s: When it was begun, as its name says.
        guest: Of which guest.
        path: Where it is.
        size_bytes: How long it is.
    """

    unix_s: float
    guest: str
    path: Path
    size_bytes: int


class ImageRing:
    """The directory. Everything here blocks."""

    def __init__(self, directory: Path, *, most: int, most_bytes: int) -> None:
        """Keep `most` images of each guest, and `most_bytes` of all of them together."""
        self.directory = directory / DIRECTORY
        self._most = most
        self._most_bytes = most_bytes

    def images(self, guest: str = "") -> Sequence[Scheduled]:
        """Return the whole images of one guest, or of all, oldest first; none if there are none."""
        found = []
        with suppress(OSError):
            for path in self.directory.iterdir():
                image = _image(path)
                if image is not None and guest in ("", image.guest):
                    found.append(image)
        return sorted(found)

    @property
    def used_bytes(self) -> int:
        """What all of them take."""
        return sum(each.size_bytes for each in self.images())

    def check_room(self, wanted_bytes: int) -> None:
        """Check that one more image may be written beside all that are there.

        Raises:
            PreflightRefused: If not; nothing is removed for it.
        """
        used = self.used_bytes
        if used + wanted_bytes > self._most_bytes:
            raise PreflightRefused(
                [
                    f"{self.directory} has {_mib(used)} MiB of images, and the next needs "
                    f"{_mib(wanted_bytes)} MiB: that is more than checkpoints.scheduled_mib "
                    f"{_mib(self._most_bytes)}. None is removed before its successor is whole: "
                    "remove some, or raise it"
                ]
            )

    def begin(self, guest: str, unix_s: float) -> Path:
        """Return where the next image of `guest` goes; what a dead session left of one is removed.

        Raises:
            OSError: If the directory cannot be made, or what is left cannot be removed.
        """
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for path in self.directory.glob(f"*{SUFFIX}{PART_SUFFIX}"):
            named = _NAME.fullmatch(path.name.removesuffix(PART_SUFFIX))
            if named is not None and named[1] == guest:
                path.unlink(missing_ok=True)
        stamp = datetime.fromtimestamp(unix_s, UTC).strftime(_STAMP)
        return self.directory / f"{guest}-{stamp}{SUFFIX}"

    def prune(self, guest: str, written: Path, next_bytes: int) -> Sequence[Path]:
        """Remove images of `guest`, now that a newer one is whole; return which.

        Those go first whose names say that they are of later than that one: a clock was ahead when
        they were begun. Then the oldest.

        Args:
            guest: The guest.
            written: The image that was just written; it stays in any case.
            next_bytes: What its next image will take: for it there is to be room then.

        Raises:
            OSError: If one cannot be removed.
        """
        images = list(self.images(guest))
        begun_s = max((each.unix_s for each in images if each.path == written), default=0.0)
        others = [each for each in images if each.path != written]
        others.sort(key=lambda each: (each.unix_s <= begun_s, each))
        used, removed = self.used_bytes, list[Path]()
        while others and (len(others) + 1 > self._most or used + next_bytes > self._most_bytes):
            first = others.pop(0)
            first.path.unlink(missing_ok=True)
            used -= first.size_bytes
            removed.append(first.path)
        if removed:
            sync_directory(self.directory)
        return removed


def _image(path: Path) -> Scheduled | None:
    """Return the image that a path is, None of anything else."""
    named = _NAME.fullmatch(path.name)
    if named is None:
        return None
    try:
        status = path.lstat()
        begun = datetime.strptime(named[2], _STAMP).replace(tzinfo=UTC)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Scheduled(begun.timestamp(), named[1], path, status.st_size)


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // _MIB)
