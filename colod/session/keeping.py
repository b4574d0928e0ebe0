"""Keep an image of the replica beside the epochs' path, and write it out when asked.

A thread of its own takes every byte *after* xl has it and the acknowledgement is sent, so no epoch
waits for it. Only the first copy, during which the guest is not stopped, goes no faster than the
disk takes it. What waits for the thread is bounded: when that is not enough the image is given up
and not the replica.

An image that is asked for is written in slices, whenever no epoch waits (`colod.stream.image`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from colod.errors import ColodError
from colod.session.imagefile import ImageFile
from colod.session.images import DiskPages, ImageSpec
from colod.session.receiving import Handing
from colod.session.spec import SessionSpec
from colod.stream.image.keeper import ImageKeeper
from colod.stream.image.pages import PAGE_BYTES, PageFile
from colod.v1 import session_pb2

CONFIG_FILE: Final = "config.json"
"""In the session's directory: the domain's configuration, as the stream brought it."""
STALL_S: Final = 20.0
_AHEAD_BYTES: Final = 8 << 20
_ERROR_CHARS: Final = 500

_log = logging.getLogger(__name__)


class Pages(PageFile, Protocol):
    """A file of pages that is given back when it is closed."""

    def close(self) -> None:
        """Give up the file and all that is in it."""
        ...


class Keeping:
    """The image of one replica. Its methods are the event loop's, those with a `_` the thread's."""

    def __init__(
        self,
        spec: SessionSpec,
        directory: Path,
        *,
        open_pages: Callable[[Path, str], Pages] = DiskPages,
        stall_s: float = STALL_S,
    ) -> None:
        """Prepare; nothing is touched before `start`.

        Args:
            spec: The session's.
            directory: Its directory.
            open_pages: Makes the file of pages, in a directory and by a name.
            stall_s: How long the first copy waits for a disk that takes nothing.
        """
        self._open_pages = open_pages
        self._stall_s = stall_s
        self._spec = spec
        self._image: ImageSpec = spec.image
        self._directory = directory
        self._limit_bytes = spec.staging_bytes
        self._queue: queue.SimpleQueue[Handing | ImageFile | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending = 0
        self._trouble = ""
        self._has_room = asyncio.Event()
        self._acked: dict[int, float] = {}
        self._keeper: ImageKeeper | None = None
        self._wanted: ImageFile | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether an image is to be kept."""
        return self._image.is_wanted

    def start(self) -> None:
        """Begin."""
        if self.is_wanted:
            loop = asyncio.get_running_loop()

            def wake() -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended: so has the session
                    loop.call_soon_threadsafe(self._has_room.set)

            threading.Thread(target=self._run, args=(wake,), name="image", daemon=True).start()

    async def give(self, handing: Handing, now: float, *, is_first_copy: bool) -> None:
        """Take what xl has been given.

        Args:
            handing: All of it.
            now: When xl had it.
            is_first_copy: Whether the guest does not stand still for it: wait for room then.
        """
        if not self.is_wanted or self._trouble:
            return
        with self._lock:
            self._pending += handing.cost_bytes
            if handing.epoch:
                self._acked = {handing.epoch: now, **self._acked}
        self._queue.put(handing)
        if not is_first_copy:
            if self._pending > self._limit_bytes:
                self.give_up(
                    f"the disk is {self._pending} bytes behind: keep images on a faster one "
                    "(checkpoints.directory), or raise session.staging_mib on the secondary"
                )
            return
        while self._pending > _AHEAD_BYTES and not self._trouble:
            self._has_room.clear()
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._has_room.wait()
            except TimeoutError:
                self.give_up(f"the disk has taken nothing for {self._stall_s:g} s")

    def give_up(self, why: str) -> None:
        """Keep no image any more; what the pages took is given back.

        Nobody waits for the thread, which may hang in the disk: a takeover must not.
        """
        self._end_with(why)
        self._has_room.set()

    def _end_with(self, why: str) -> None:
        with self._lock:
            if not self.is_wanted or self._trouble:
                return
            self._trouble = why[:_ERROR_CHARS]
        _log.warning("image.given_up reason=%r", why)
        self._queue.put(None)

    def export(self, command: session_pb2.SessionCommand.ExportImage) -> str:
        """Begin to write an image; return why not, or nothing."""
        if not self.is_wanted:
            return "no image is kept of this replica: checkpoints.keep is off"
        if self._trouble:
            return f"no image is kept of this replica any more: {self._trouble}"
        if self._keeper is None or not self._keeper.epoch:
            return "no epoch is whole yet"
        if self._wanted is not None and not self._wanted.is_over:
            return f"image {self._wanted.name} is being written"
        path = Path(command.path)
        if not path.is_absolute():
            return f"{path}: want an absolute path"
        config = Path(command.config_path) if command.config_path else None
        self._wanted = ImageFile(command.id, path, config)
        self._queue.put(self._wanted)
        self._fail_if_given_up(self._wanted)
        return ""

    def _fail_if_given_up(self, wanted: ImageFile) -> None:
        if self._trouble:  # just now: nobody takes it from the queue any more
            wanted.fail(self._trouble)

    def status(self, now: float) -> session_pb2.ReplicaImage | None:
        """Return how the image stands, None where none is wanted."""
        if not self.is_wanted:
            return None
        keeper, wanted = self._keeper, self._wanted
        told = session_pb2.ReplicaImage(
            is_kept=keeper is not None and not self._trouble,
            trouble=self._trouble,
            epoch_age_s=-1,
            pending_bytes=self._pending,
        )
        if keeper is not None:
            told.epoch, told.pages = keeper.epoch, keeper.pages
            told.image_bytes = keeper.pages * PAGE_BYTES
            told.epoch_age_s = self._age(keeper.epoch, now)
        if wanted is not None:
            told.export.CopyFrom(wanted.told())
        return told

    def _age(self, epoch: int, now: float) -> float:
        acked = self._acked.get(epoch)
        return -1.0 if acked is None else max(0.0, now - acked)

    # --- the thread ---------------------------------------------------------------------------

    def _run(self, wake: Callable[[], None]) -> None:
        pages: Pages | None = None
        try:
            name = f"{self._spec.guest}-{self._spec.pairing[:8]}"
            pages = self._open_pages(Path(self._image.directory), name)
            keeper = ImageKeeper(pages, max_pages=self._image.max_bytes // PAGE_BYTES)
            self._keeper = keeper
            while not self._trouble:
                self._next(keeper)
                wake()
        except ColodError as error:
            self._end_with(f"{error}{f': {error.advice}' if error.advice else ''}")
        except OSError as error:
            self._end_with(f"{self._image.directory}: {error.strerror or error}")
        except Exception as error:
            # A defect, or no memory: the replica does not depend on its image.
            _log.exception("image.defect")
            self._end_with(f"a defect of colod: {type(error).__name__}: {error}")
        finally:
            self._end(pages)
            wake()

    def _end(self, pages: Pages | None) -> None:
        if self._wanted is not None:
            self._wanted.fail(self._trouble)
        if pages is not None:
            pages.close()
        self._keeper = None
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        with self._lock:
            self._pending = 0

    def _next(self, keeper: ImageKeeper) -> None:
        """Take what has come, or write some more of an image where nothing has."""
        wanted = self._wanted
        is_writing = wanted is not None and wanted.is_being_written
        try:
            given = self._queue.get(block=not is_writing)
        except queue.Empty:
            assert wanted is not None
            wanted.step(keeper)
            return
        if isinstance(given, ImageFile):
            given.begin(keeper, self._age(keeper.epoch, time.monotonic()))
        elif given is not None:
            self._feed(keeper, given)

    def _feed(self, keeper: ImageKeeper, given: Handing) -> None:
        had_config = bool(keeper.config)
        for part in given.parts:
            keeper.feed(part)
        if keeper.config and not had_config:
            path = self._directory / CONFIG_FILE
            path.touch(mode=0o600)
            path.write_bytes(keeper.config)
        with self._lock:
            self._pending -= given.cost_bytes
            self._acked = {e: at for e, at in self._acked.items() if e >= keeper.epoch}
