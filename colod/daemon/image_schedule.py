"""Images of the replicas on this host, written every so often without being asked.

One at a time: the disk that takes them takes the guests' dirty pages too. What fails is said in
`checkpoint list`, in the log and by the age of the newest image, and is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from colod.daemon.checkpoints import MARGIN, Checkpoints
from colod.daemon.host import Host
from colod.daemon.image_ring import ImageRing, Scheduled
from colod.daemon.protection import ProtectionService
from colod.errors import CheckpointError, ColodError, NotAllowedNow
from colod.model import GuestName, Role
from colod.observe.logs import Event
from colod.v1 import admin_pb2, session_pb2

_log = structlog.get_logger()

_TICK_S: Final = 2.0
_RETRY_S: Final = 60.0
_LONGEST_S: Final = 3600.0


class ImageSchedule:
    """The schedule of one host; it does nothing where none is configured."""

    def __init__(self, host: Host) -> None:
        """Prepare; nothing is done before `start`."""
        self._host = host
        self._checkpoints = Checkpoints(host.parts)
        # As a thread last saw them: a disk that hangs must not stop the daemon's loop.
        self._images: Sequence[Scheduled] | None = None
        self._troubles: dict[GuestName, str] = {}
        self._retry_at: dict[GuestName, float] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def _ring(self) -> ImageRing | None:
        limits = self._host.parts.limits
        if limits.image_directory is None or limits.image_every_s <= 0:
            return None
        return ImageRing(
            limits.image_directory,
            most=limits.images_kept,
            most_bytes=limits.scheduled_bytes,
        )

    def start(self) -> None:
        """Begin."""
        if self._ring is not None:
            self._task = asyncio.create_task(self._run(), name="images by schedule")
            self._task.add_done_callback(_check_end)

    async def stop(self) -> None:
        """End; a session goes on with what it writes, and its image is whole or is none."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def last(self, guest: str) -> float | None:
        """Return when the newest image of a replica here was begun; 0 for none yet.

        None where none is wanted, or the disk has not been looked at yet. One that is of the
        future, by a clock that was ahead, tells nothing of when it was begun, and does not count.
        """
        service = self._host.services.get(GuestName(guest))
        if self._images is None or service is None or service.journal.role is not Role.SECONDARY:
            return None
        now = time.time()
        begun = (each.unix_s for each in self._images if each.guest == guest)
        return max((each for each in begun if each <= now), default=0.0)

    def told(self, services: Iterable[ProtectionService]) -> admin_pb2.ImageSchedule | None:
        """Return how the schedule stands for some guests, None where there is none."""
        ring, limits = self._ring, self._host.parts.limits
        if ring is None:
            return None
        images = self._images or ()
        replicas = [each.guest for each in services if each.journal.role is Role.SECONDARY]
        return admin_pb2.ImageSchedule(
            every_s=limits.image_every_s,
            keep_images=limits.images_kept,
            limit_bytes=limits.scheduled_bytes,
            used_bytes=sum(each.size_bytes for each in images),
            directory=str(ring.directory),
            guests=[
                admin_pb2.ScheduledGuest(
                    guest=guest,
                    trouble=self._troubles.get(guest, ""),
                    last_unix_s=self.last(guest) or 0.0,
                )
                for guest in replicas
            ],
            images=[_told(each) for each in images],
        )

    async def _run(self) -> None:
        while True:
            await self._look()
            for service in self._host.all_services():
                if self._is_due(service):
                    await self._attempt(service)
            await asyncio.sleep(_TICK_S)

    async def _look(self) -> None:
        if (ring := self._ring) is not None:
            self._images = await asyncio.to_thread(ring.images)

    def _is_due(self, service: ProtectionService) -> bool:
        last_s = self.last(service.guest)
        if last_s is None or time.monotonic() < self._retry_at.get(service.guest, 0.0):
            return False
        # By the wall clock, which outlasts the daemon.
        return time.time() - last_s >= self._host.parts.limits.image_every_s

    async def _attempt(self, service: ProtectionService) -> None:
        guest, begun = service.guest, time.monotonic()
        try:
            await self._write(service)
        except NotAllowedNow as error:
            # Mostly no failure: its replica is not whole yet, or not here now.
            self._troubles[guest] = str(error)
            self._again(guest)
        except (ColodError, OSError, TimeoutError) as error:
            self._failed(guest, str(error) or "it was not done in time")
        else:
            self._troubles.pop(guest, None)
            # Whatever the wall clock says by then, and whoever removes the image.
            self._retry_at[guest] = begun + self._least_s

    def _failed(self, guest: GuestName, why: str) -> None:
        if self._troubles.get(guest) != why:
            _log.error(Event.IMAGE_FAILED, protection=guest, error=why)
        self._troubles[guest] = why
        self._again(guest)

    def _again(self, guest: GuestName) -> None:
        self._retry_at[guest] = time.monotonic() + self._least_s

    @property
    def _least_s(self) -> float:
        """Least seconds between two attempts at an image of one guest."""
        return min(_RETRY_S, self._host.parts.limits.image_every_s)

    async def _write(self, service: ProtectionService) -> None:
        ring = self._ring
        assert ring is not None
        image = self._checkpoints.check_kept(service)
        if image.export.id and not (image.export.is_done or image.export.error):
            raise CheckpointError("another image of it is being written")
        wanted = int(image.image_bytes * MARGIN)
        await asyncio.to_thread(self._checkpoints.check_room, image)
        await asyncio.to_thread(ring.check_room, wanted)
        path = await asyncio.to_thread(ring.begin, service.guest, time.time())
        written = session_pb2.ImageExport()
        async with asyncio.timeout(max(_LONGEST_S, self._host.parts.limits.image_every_s)):
            async for told in self._checkpoints.write(service, path):
                written = told
        await self._look()
        removed = await asyncio.to_thread(ring.prune, service.guest, path, wanted)
        _log.info(
            Event.IMAGE_WRITTEN,
            protection=service.guest,
            path=str(path),
            epoch=written.epoch,
            size_bytes=written.written_bytes,
            removed=[each.name for each in removed],
        )


def _told(image: Scheduled) -> admin_pb2.ExportedImage:
    return admin_pb2.ExportedImage(
        name=image.path.name, size_bytes=image.size_bytes, unix_s=image.unix_s
    )


def _check_end(task: asyncio.Task[None]) -> None:
    """Tell of an end that nobody asked for: images are late then, and nothing else is."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical(Event.DEFECT_DETECTED, exc_info=error)
