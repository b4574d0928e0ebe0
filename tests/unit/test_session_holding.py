"""colod.session.holding: order of effects, lock-step with the pipe, the conservative rule."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from colod.errors import NetworkError
from colod.output.gate import LOCKED_READ_BYTES, PIPE_PAGE_BYTES, Phase
from colod.output.port import NotClosed, Survey
from colod.session.holding import Holding
from colod.stream.events import EpochOpened, EpochSealed, GuestMayResume
from colod.v1 import types_pb2

FULL = 1 << 20
EPOCH_BYTES = 100_000


class Plugs:
    """The port's double: notes what is done, and does it when it is let."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failures: dict[str, NetworkError] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.surveyed = Survey()

    def _do(self, what: str) -> None:
        assert self.gate.wait(60)
        if what in self.failures:
            raise self.failures.pop(what)
        self.done.append(what)

    def prepare(self) -> None:
        self._do("prepare")

    def close(self) -> None:
        self._do("close")

    def cover(self, interface: str) -> None:
        self._do(f"cover {interface}")

    def set_barrier(self) -> None:
        self._do("barrier")

    def release_one(self) -> None:
        self._do("release")

    def open(self) -> None:
        self._do("open")

    def discard(self) -> None:
        self._do("discard")

    def survey(self) -> Survey:
        return self.surveyed


class Pipe:
    """libxl's pipe: what it was resized to, and whether it is too full for that."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.is_full = False
        self.is_odd = False

    def resize(self, octets: int) -> int:
        if self.is_full and octets < FULL:
            raise OSError(errno.EBUSY, "busy")
        self.sizes.append(octets)
        return FULL if self.is_odd else octets


class Scene:
    """One gate and the stream that goes by."""

    def __init__(self, step_s: float) -> None:
        self.plugs, self.pipe, self.changes = Plugs(), Pipe(), 0
        self.holding = Holding(self.plugs, self.pipe, FULL, self._changed, step_s)
        self.offset = 0

    def _changed(self) -> None:
        self.changes += 1

    async def opens(self, epoch: int) -> None:
        """The first byte of an epoch, read as the sender reads."""
        await self.holding.may_read(0)
        self.holding.on_event(EpochOpened(self.offset, epoch))

    def resumes(self, epoch: int, length: int = EPOCH_BYTES) -> None:
        self.offset += length
        self.holding.on_event(GuestMayResume(self.offset, epoch))

    async def seals(self, epoch: int) -> None:
        await self.holding.may_read(0)
        self.offset += 8
        self.holding.on_event(EpochSealed(self.offset, epoch))

    async def epoch(self, epoch: int, *, is_acked: bool = True) -> None:
        """All of one epoch."""
        await self.opens(epoch)
        await self.holding.may_read(0)
        self.resumes(epoch)
        await self.seals(epoch)
        if is_acked:
            self.holding.acknowledged(epoch)

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not check():  # noqa: ASYNC110 - it waits for a thread
                await asyncio.sleep(0.001)


@asynccontextmanager
async def scene(step_s: float = 60) -> AsyncIterator[Scene]:
    found = Scene(step_s)
    running = asyncio.create_task(found.holding.run())
    try:
        yield found
    finally:
        found.plugs.gate.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_gate_closes_in_the_window_of_checkpoint_two_and_protects_from_its_ack() -> None:
    async with scene() as found:
        await found.epoch(1)
        await found.opens(2)
        await found.until(lambda: found.plugs.done == ["close"])
        await found.holding.may_read(0)
        found.resumes(2)
        await found.seals(2)
        assert not found.holding.status().is_protected
        found.holding.acknowledged(2)
        status = found.holding.status()
        assert status.is_protected
        assert status.sound_from == 2
        assert status.phase == types_pb2.GATE_PHASE_HOLDING


async def test_nothing_is_read_before_the_barrier_is_in_place() -> None:
    async with scene() as found:
        await found.epoch(1)
        await found.epoch(2)
        found.plugs.gate.clear()
        await found.opens(3)
        reading = asyncio.create_task(found.holding.may_read(0))
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
        assert found.plugs.done == ["close"]
        found.plugs.gate.set()
        assert await reading is None
        assert found.plugs.done == ["close", "barrier"]


async def test_the_pipe_is_a_page_long_between_the_resume_and_the_barrier_only() -> None:
    async with scene() as found:
        await found.epoch(1)
        assert found.pipe.sizes == [PIPE_PAGE_BYTES]
        await found.opens(2)
        await found.until(lambda: found.plugs.done)
        await found.until(lambda: found.pipe.sizes == [PIPE_PAGE_BYTES, FULL])


@pytest.mark.parametrize("is_acked", [True, False])
async def test_the_pipe_stays_a_page_long_while_a_switchover_keeps_the_window(
    *, is_acked: bool
) -> None:
    async with scene() as found:
        await found.epoch(1)
        await found.epoch(2, is_acked=is_acked)  # without that, the barrier is skipped
        found.holding.quiesce.want("attempt")
        await found.opens(3)
        await found.until(lambda: not found.holding.gate.window)
        reading = asyncio.create_task(found.holding.may_read(0))
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
        assert found.holding.waits_for == "switchover"
        assert found.pipe.sizes[-1] == PIPE_PAGE_BYTES, "the checkpoint must not fit in"
        assert not found.holding.quiesce.finish("attempt")
        assert await reading is None
        assert found.pipe.sizes[-1] == FULL


async def test_a_barrier_is_released_by_the_ack_of_its_epoch_and_in_order() -> None:
    async with scene() as found:
        for epoch in range(1, 5):
            await found.epoch(epoch)
        await found.until(lambda: found.holding.gate.released == 4)
        assert found.plugs.done == ["close", "barrier", "release", "barrier", "release"]
        assert found.holding.status().hold_s >= 0
        assert found.holding.status().barriers == 2


async def test_in_lock_step_no_more_is_read_than_what_surely_belongs_to_the_present_epoch() -> None:
    async with scene() as found:
        await found.opens(1)
        assert await found.holding.may_read(0) is None
        found.resumes(1)
        assert await found.holding.may_read(0) == LOCKED_READ_BYTES
        assert await found.holding.may_read(70_000) == 70_000


async def test_a_pipe_that_is_too_full_is_narrowed_once_it_was_read() -> None:
    async with scene() as found:
        await found.opens(1)
        found.pipe.is_full = True
        found.resumes(1)
        assert await found.holding.may_read(500) == 500
        assert found.pipe.sizes == []
        found.pipe.is_full = False
        await found.seals(1)
        assert found.pipe.sizes == [PIPE_PAGE_BYTES]
        await found.opens(2)
        await found.until(lambda: found.plugs.done == ["close"])


async def test_a_window_that_may_have_been_read_too_early_gets_no_barrier() -> None:
    async with scene() as found:
        await found.opens(1)
        found.resumes(1)
        # All of it came with one read: nothing was read after the pipe was narrowed.
        found.holding.on_event(EpochSealed(found.offset, 1))
        found.holding.on_event(EpochOpened(found.offset, 2))
        assert found.holding.gate.phase is Phase.OPEN
        assert found.holding.status().skipped == {"not_locked": 1}


async def test_a_pipe_that_cannot_be_narrowed_gives_no_certain_window() -> None:
    for spoil in ("is_full", "is_odd"):
        async with scene() as found:
            setattr(found.pipe, spoil, True)
            await found.epoch(1)
            await found.opens(2)
            assert found.holding.status().skipped == {"not_locked": 1}
            assert found.plugs.done == []


async def test_a_late_ack_makes_the_next_checkpoint_skip_its_barrier() -> None:
    async with scene() as found:
        for epoch in (1, 2):
            await found.epoch(epoch)
        await found.epoch(3, is_acked=False)
        await found.epoch(4, is_acked=False)
        assert found.holding.status().skipped == {"unacknowledged": 1}
        found.holding.acknowledged(4)
        await found.until(lambda: found.holding.gate.released == 3)
        assert found.plugs.done == ["close", "barrier", "release"]


async def test_a_gate_that_fails_to_close_and_is_as_before_is_tried_again() -> None:
    async with scene() as found:
        found.plugs.failures["close"] = NotClosed("no ifb", undone=True)
        await found.epoch(1)
        await found.epoch(2)
        status = found.holding.status()
        assert status.phase == types_pb2.GATE_PHASE_OPEN
        assert status.skipped == {"close_failed": 1}
        assert "no ifb" in status.error
        await found.epoch(3)
        assert found.holding.status().is_protected


async def test_a_gate_of_which_nobody_knows_the_state_stays_closed_and_the_guest_runs_on() -> None:
    for what, kind in (("close", NotClosed("half", undone=False)), ("barrier", NetworkError("?"))):
        async with scene() as found:
            await found.epoch(1)
            found.plugs.failures[what] = kind
            for epoch in (2, 3, 4):
                await found.epoch(epoch)
            status = found.holding.status()
            assert status.phase == types_pb2.GATE_PHASE_LOST
            assert not status.is_protected
            assert "release" not in found.plugs.done
            assert str(kind) in status.error


async def test_a_kernel_that_does_not_answer_loses_the_gate_and_not_the_guest() -> None:
    async with scene(step_s=0.05) as found:
        await found.epoch(1)
        await found.opens(2)
        await found.holding.may_read(0)
        found.plugs.gate.clear()
        found.resumes(2)
        await found.seals(2)
        await found.opens(3)
        assert await found.holding.may_read(0) is None, "the guest waits no longer"
        assert found.holding.gate.phase is Phase.LOST
        assert "no answer" in found.holding.status().error


async def test_a_failed_release_loses_the_gate() -> None:
    async with scene() as found:
        found.plugs.failures["release"] = NetworkError("?")
        for epoch in (1, 2, 3):
            await found.epoch(epoch)
        await found.until(lambda: found.holding.gate.phase is Phase.LOST)
        await found.epoch(4)
        assert "release" not in found.plugs.done


async def test_a_new_interface_is_covered_and_protection_is_claimed_anew_from_the_next_window() -> (
    None
):
    async with scene() as found:
        for epoch in (1, 2):
            await found.epoch(epoch)
        watching = asyncio.create_task(found.holding.watch())
        found.plugs.surveyed = Survey(
            packets=3,
            octets=300,
            dropped=2,
            appeared=frozenset({"vif1.1"}),
            added=frozenset({"vif1.1"}),
        )
        await found.until(lambda: "cover vif1.1" in found.plugs.done)
        assert found.holding.status().not_in_replica == ["vif1.1"]
        found.plugs.surveyed = Survey(packets=3, octets=300, dropped=2)
        await found.until(lambda: not found.holding.gate.uncovered)
        status = found.holding.status()
        assert not status.is_protected
        assert (status.held_packets, status.held_bytes, status.dropped_packets) == (3, 300, 2)
        await found.epoch(3)
        assert found.holding.status().is_protected
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert found.changes >= 4
