"""A disk of images that hangs: who asks it is told so in time, and nothing else waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.daemon import image_disk
from colod.daemon.image_disk import on_image_disk
from colod.errors import CheckpointError

ASKED = 12  # more than there are threads for it


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Give what lets the disk answer again."""
    monkeypatch.setattr(image_disk, "ANSWER_S", 0.2)
    answers = threading.Event()
    yield answers
    answers.set()


async def test_a_disk_that_hangs_is_named_and_holds_up_nothing_else(
    hanging: threading.Event,
) -> None:
    asked = [asyncio.create_task(on_image_disk(hanging.wait)) for _ in range(ASKED)]
    assert await asyncio.to_thread(lambda: 7) == 7, "the threads of everything else are free"
    for each in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(each, CheckpointError)
        assert "does not answer" in str(each)
        assert "checkpoints.directory" in each.advice


async def test_it_is_asked_again_once_it_answers(hanging: threading.Event, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        await on_image_disk(hanging.wait)
    hanging.set()
    assert not await on_image_disk((tmp_path / "none").exists)


async def test_what_it_says_against_a_call_comes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await on_image_disk((tmp_path / "none").stat)
