"""The schedule writes what is due, says what it could not, and loses nothing over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon import image_schedule as module
from colod.daemon.host import Host
from colod.daemon.image_ring import ImageRing
from colod.daemon.image_schedule import ImageSchedule
from colod.errors import CheckpointError, NotAllowedNow, PreflightRefused
from colod.model import GuestName, Role
from colod.v1 import session_pb2

GUEST = GuestName("web")


class Images:
    """Writes an image at once, or fails."""

    def __init__(self) -> None:
        self.written: list[Path] = []
        self.kept_error: Exception | None = None
        self.room_error: Exception | None = None
        self.error: Exception | None = None

    def check_kept(self, service: object) -> session_pb2.ReplicaImage:
        """Have one of 1 MiB."""
        if self.kept_error:
            raise self.kept_error
        return session_pb2.ReplicaImage(image_bytes=1 << 20)

    def check_room(self, image: object) -> None:
        """Have room."""
        if self.room_error:
            raise self.room_error

    async def write(self, service: object, path: Path) -> AsyncIterator[Any]:
        """Write it."""
        if self.error:
            raise self.error
        path.write_bytes(b"x")  # noqa: ASYNC240 (a test's own small file)
        self.written.append(path)
        yield session_pb2.ImageExport(epoch=42, is_done=True)


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def schedule(tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch) -> ImageSchedule:
    monkeypatch.setattr(module, "_TICK_S", 0.01)
    limits = SimpleNamespace(
        image_directory=tmp_path, image_every_s=3600.0, images_kept=2, scheduled_bytes=1 << 30
    )
    service = SimpleNamespace(guest=GUEST, journal=SimpleNamespace(role=Role.SECONDARY))
    host = SimpleNamespace(
        parts=SimpleNamespace(limits=limits),
        services={GUEST: service},
        all_services=lambda: (service,),
    )
    made = ImageSchedule(cast("Host", host))
    monkeypatch.setattr(made, "_checkpoints", images)
    return made


async def run_for(schedule: ImageSchedule, seconds: float = 0.3) -> None:
    """Let it run."""
    schedule.start()
    await asyncio.sleep(seconds)
    await schedule.stop()


async def run_until(schedule: ImageSchedule, fits: Callable[[], object]) -> None:
    """Let it run until something is so."""
    schedule.start()
    async with asyncio.timeout(20):
        while not fits():  # noqa: ASYNC110 (what is waited for is no event)
            await asyncio.sleep(0.01)
    await schedule.stop()


def told(schedule: ImageSchedule) -> Any:
    """Return how it stands."""
    return schedule.told(schedule._host.all_services())


async def test_an_image_is_written_when_it_is_due_and_not_before(
    schedule: ImageSchedule, images: Images
) -> None:
    assert schedule.last(GUEST) is None
    await run_until(schedule, lambda: images.written and schedule.last(GUEST))
    await run_for(schedule)
    (path,) = images.written
    assert path.parent.name == "scheduled"
    assert schedule.last(GUEST) == pytest.approx(time.time(), abs=30)
    reply = told(schedule)
    assert [each.name for each in reply.images] == [path.name]
    assert (reply.guests[0].trouble, reply.keep_images) == ("", 2)


@pytest.mark.parametrize("ahead", [1, 3])
async def test_images_of_the_future_are_no_reason_to_wait_nor_to_write_on_and_on(
    schedule: ImageSchedule, images: Images, tmp_path: Path, ahead: int
) -> None:
    (tmp_path / "scheduled").mkdir()
    future = [tmp_path / "scheduled" / f"web-2999010{day}T000000Z.xlsave" for day in (1, 2, 3)]
    for path in future[:ahead]:
        path.write_bytes(b"x")
    await run_until(schedule, lambda: images.written and schedule._retry_at)
    schedule._retry_at.clear()
    await run_for(schedule)
    (written,) = images.written
    assert written.exists()
    assert future[ahead - 1].exists()
    assert schedule.last(GUEST) == pytest.approx(time.time(), abs=30)


async def test_an_image_that_vanishes_is_not_written_on_and_on(
    schedule: ImageSchedule, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageRing, "images", lambda *_: ())
    await run_until(schedule, lambda: images.written and schedule._retry_at)
    await run_for(schedule)
    assert len(images.written) == 1


@pytest.mark.parametrize("where", ["kept_error", "room_error", "error"])
async def test_what_fails_is_said_and_loses_nothing(
    schedule: ImageSchedule, images: Images, tmp_path: Path, where: str
) -> None:
    (tmp_path / "scheduled").mkdir()
    old = [tmp_path / "scheduled" / f"web-2023010{each}T000000Z.xlsave" for each in range(1, 5)]
    for path in old:
        path.write_bytes(b"x")
    errors = {
        "kept_error": NotAllowedNow("PROTECTED", "the disk is full"),
        "room_error": PreflightRefused(["the disk is full"]),
        "error": CheckpointError("the disk is full"),
    }
    setattr(images, where, errors[where])
    await run_until(schedule, lambda: told(schedule).guests[0].trouble)
    assert images.written == []
    assert all(path.exists() for path in old)
    assert "the disk is full" in told(schedule).guests[0].trouble
    setattr(images, where, None)
    schedule._retry_at.clear()
    await run_until(schedule, lambda: not (told(schedule).guests[0].trouble or old[2].exists()))
    assert len(images.written) == 1
    assert told(schedule).guests[0].trouble == ""
    assert [path.exists() for path in old] == [False, False, False, True]


async def test_without_a_schedule_nothing_is_written(
    schedule: ImageSchedule, images: Images
) -> None:
    schedule._host.parts.limits.image_every_s = 0.0
    await run_for(schedule)
    assert images.written == []
    assert told(schedule) is None
    assert schedule.last(GUEST) is None
