"""An image that is kept beside the epochs' path never holds that up for good."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from colod.session.images import DiskPages, ImageSpec, parse_image
from colod.session.keeping import Keeping
from colod.session.receiving import Handing
from colod.session.spec import SessionSpec, parse_spec
from colod.stream import writer
from colod.v1 import session_pb2
from tests.unit.stream_samples import Sample
from tests.unit.test_session_spec import SEND
from tests.unit.test_stream_image import memory_of

MIB = 1 << 20
PAGES = 512


class HungDisk:
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = Event()

    def write(self, pfn: int, contents: memoryview) -> None:
        """Hang."""
        self.let_go.wait()

    def read(self, pfn: int, count: int) -> bytes:
        """Hang."""
        self.let_go.wait()
        return bytes(count * 4096)

    def close(self) -> None:
        """Nothing to give up."""


@pytest.fixture
def disk() -> Iterator[HungDisk]:
    found = HungDisk()
    yield found
    found.let_go.set()


def spec_in(directory: Path) -> SessionSpec:
    given = SEND | {"image": {"directory": str(directory), "max_bytes": 64 * MIB}}
    return replace(parse_spec(given), staging_bytes=4 * MIB)


@contextlib.asynccontextmanager
async def keeping(directory: Path) -> AsyncIterator[Keeping]:
    found = Keeping(spec_in(directory), directory)
    found.start()
    try:
        yield found
    finally:
        found.give_up("the test is over")


def pages(sample: Sample, first: int, count: int) -> Sample:
    contents = [bytes([first & 0xFF]) * 4096] * count
    return sample.libxc(writer.page_data(range(first, first + count), contents))


def handing(data: bytes, epoch: int = 0) -> Handing:
    return Handing((memoryview(data),), len(data), epoch)


def first_copy(count: int = 2) -> bytes:
    return pages(Sample().headers(), 0, count).state().seal().data


async def until(fits: object, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not fits():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def told(kept: Keeping) -> session_pb2.ReplicaImage:
    status = kept.status(time.monotonic())
    assert status is not None
    return status


async def test_what_xl_was_given_is_in_the_image_that_is_asked_for(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        await kept.give(handing(first_copy(), 1), time.monotonic(), is_first_copy=True)
        second = pages(Sample(), 1, 1).state().seal().data
        await kept.give(handing(second, 2), time.monotonic(), is_first_copy=False)
        await until(lambda: told(kept).epoch == 2)
        assert told(kept).epoch_age_s >= 0
        order = session_pb2.SessionCommand.ExportImage(id="x", path=str(tmp_path / "image"))
        assert kept.export(order) == ""
        await until(lambda: told(kept).export.is_done)
        assert told(kept).export.epoch == 2
    assert files_in(tmp_path) == ["config.json", "image"]
    memory, _ = memory_of((tmp_path / "image").read_bytes())
    first = {pfn: contents[0] for pfn, (_, contents) in memory.items() if contents}
    assert first == {0: 0, 1: 1}


async def test_a_disk_that_hangs_in_the_first_copy_costs_the_image(
    tmp_path: Path, disk: HungDisk
) -> None:
    kept = Keeping(spec_in(tmp_path), tmp_path, open_pages=lambda *_: disk, stall_s=0.1)
    kept.start()
    data = first_copy(PAGES) + bytes(8 * MIB)
    async with asyncio.timeout(20):
        await kept.give(handing(data), 0.0, is_first_copy=True)
    assert "taken nothing" in told(kept).trouble


async def test_a_takeover_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, disk: HungDisk
) -> None:
    kept = Keeping(spec_in(tmp_path), tmp_path, open_pages=lambda *_: disk, stall_s=3600)
    kept.start()
    data = first_copy(PAGES) + bytes(8 * MIB)
    giving = asyncio.create_task(kept.give(handing(data), 0.0, is_first_copy=True))
    await asyncio.sleep(0.05)
    assert not giving.done()
    kept.give_up("the replica is being promoted")
    async with asyncio.timeout(20):
        await giving


async def test_epochs_never_wait_and_a_disk_that_is_too_slow_is_given_up(
    tmp_path: Path, disk: HungDisk
) -> None:
    kept = Keeping(spec_in(tmp_path), tmp_path, open_pages=lambda *_: disk)
    kept.start()
    await kept.give(handing(first_copy(), 1), 0.0, is_first_copy=True)
    epoch = handing(bytes(MIB), 2)
    for _ in range(3):
        await kept.give(epoch, 0.0, is_first_copy=False)
    assert not told(kept).trouble
    await kept.give(epoch, 0.0, is_first_copy=False)
    assert "checkpoints.directory" in told(kept).trouble
    assert not told(kept).is_kept


async def test_a_stream_that_no_image_can_be_made_of_costs_the_image_only(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        await kept.give(handing(bytes(100)), 0.0, is_first_copy=True)
        await until(lambda: told(kept).trouble)
        await kept.give(handing(bytes(100)), 0.0, is_first_copy=True)
        assert not told(kept).is_kept


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with keeping(tmp_path / "nowhere") as kept:
        await until(lambda: told(kept).trouble)
        assert "nowhere" in told(kept).trouble


def test_pages_lie_in_a_file_without_a_name(tmp_path: Path) -> None:
    pages_ = DiskPages(tmp_path, "x")
    pages_.write(3, memoryview(bytes(4096) + b"a" * 4096))
    assert pages_.read(4, 1) == b"a" * 4096
    with pytest.raises(OSError, match="can be read"):
        pages_.read(5, 1)
    assert list(tmp_path.iterdir()) == []
    pages_.close()


@pytest.mark.parametrize(
    "given", [1, {"x": 1}, {"directory": "relative"}, {"directory": "/x", "max_bytes": 1}]
)
def test_what_may_be_kept_is_checked(given: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse_image(given)
    assert parse_image({}) == ImageSpec()
