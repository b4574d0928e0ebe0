"""What the reading of libxl's stream waits for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from colod.session.ending import Ending
from colod.session.intake import Intake
from colod.session.pipes import Pipe
from colod.session.progress import Progress
from colod.session.sending import Sending
from tests.unit.session_samples import remus_stream


@pytest.fixture
def pipe() -> Iterator[tuple[Pipe, int]]:
    """Return libxl's pipe: the end that is read, and the number of the one that is written."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    yield Pipe(reading), writing
    os.close(reading)
    os.close(writing)


class KeepingWire:
    """A wire that sends nothing until it is flushed."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.sent: list[bytes] = []

    async def send(self, epoch: int, payload: memoryview) -> None:
        self.kept.append(bytes(payload))

    async def seal(self, epoch: int) -> None:
        self.kept.append(b"")

    async def flush(self) -> None:
        for _ in range(50):  # a link that takes its time
            await asyncio.sleep(0)
        self.sent += self.kept
        self.kept = []


def waits_for(intake: Intake) -> str:
    progress = Progress()
    intake.report(progress, 0.0)
    return progress.waits_for


async def drained(intake: Intake, pipe: Pipe) -> str:
    """Let the intake read for as long as it can; return what it waits for then."""
    reading = asyncio.create_task(intake.drain(pipe))
    for _ in range(1000):
        await asyncio.sleep(0)
    said = waits_for(intake)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return said


async def test_with_nothing_in_the_pipe_it_waits_for_xl(pipe: tuple[Pipe, int]) -> None:
    reading, writing = pipe
    sample = remus_stream(2)
    os.write(writing, sample.data[: sample.seals[0] + 64])
    intake = Intake(Sending(), 1 << 20, None)
    assert waits_for(intake) == ""
    assert await drained(intake, reading) == "xl"


async def test_without_room_it_waits_for_the_link(pipe: tuple[Pipe, int]) -> None:
    reading, writing = pipe
    sample = remus_stream(2)
    os.write(writing, sample.data)
    intake = Intake(Sending(), 4096, None)
    assert len(sample.data) > 4096
    assert await drained(intake, reading) == "link"


async def test_what_came_before_the_end_is_sent_and_not_only_kept_for_more(
    pipe: tuple[Pipe, int],
) -> None:
    reading, writing = pipe
    sample = remus_stream(3)
    os.write(writing, sample.data)
    intake, wire = Intake(Sending(), 1 << 20, None), KeepingWire()
    sending = asyncio.create_task(intake.transmit(wire))
    draining = asyncio.create_task(intake.drain(reading))
    await asyncio.sleep(0)
    elsewhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(elsewhere, writing)  # the fixture closes it
    os.close(elsewhere)
    with pytest.raises(Ending, match="xl closed the stream"):
        await draining
    sent = b"".join(wire.sent)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert sent == sample.data
    assert wire.sent.count(b"") == 3
