"""The window of a switchover's last checkpoint: kept for one attempt, and for so long only."""

from __future__ import annotations

import asyncio

import pytest

from colod.output.gate import LOCK_STEP_BYTES
from colod.session.quiesce import MAX_ATTEMPT_CHARS, Quiesce, Stage

LONG = LOCK_STEP_BYTES + 1


async def is_kept(quiesce: Quiesce) -> bool:
    waiting = asyncio.create_task(quiesce.passed())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if waiting.done():
        return False
    waiting.cancel()
    return True


async def test_a_window_that_nobody_wants_is_not_kept() -> None:
    quiesce = Quiesce()
    quiesce.window(5, is_certain=True)
    assert not await is_kept(quiesce)
    assert (quiesce.kept_epoch, quiesce.final_epoch) == (0, 0)


async def test_the_next_certain_window_is_kept_until_the_guest_is_paused() -> None:
    quiesce = Quiesce()
    assert quiesce.want("a") == ""
    quiesce.window(5, is_certain=False)
    assert not await is_kept(quiesce)
    quiesce.window(6, is_certain=True)
    assert await is_kept(quiesce)
    assert (quiesce.kept_epoch, quiesce.final_epoch) == (6, 0)
    waiting = asyncio.create_task(quiesce.passed())
    await asyncio.sleep(0)
    assert quiesce.finish("a") == ""
    await waiting
    quiesce.may_resume(6, LONG)
    quiesce.window(7, is_certain=True)  # a guest without PV drivers is suspended again, unchanged
    assert not await is_kept(quiesce)
    assert (quiesce.kept_epoch, quiesce.final_epoch) == (0, 6)


@pytest.mark.parametrize("attempt", ["b", ""])
async def test_a_pause_for_another_attempt_ends_nothing(attempt: str) -> None:
    quiesce = Quiesce()
    quiesce.want("a")
    quiesce.window(5, is_certain=True)
    assert "no window" in quiesce.finish(attempt)
    assert await is_kept(quiesce)


async def test_a_pause_before_the_window_or_after_it_is_refused() -> None:
    quiesce = Quiesce(window_s=0.01)
    quiesce.want("a")
    assert "no window" in quiesce.finish("a")
    quiesce.window(5, is_certain=True)
    await quiesce.passed()
    assert quiesce.stage is Stage.IDLE
    assert "no window" in quiesce.finish("a")
    assert quiesce.final_epoch == 0


async def test_a_checkpoint_as_short_as_the_pipe_proves_nothing() -> None:
    quiesce = Quiesce()
    quiesce.want("a")
    quiesce.window(5, is_certain=True)
    quiesce.finish("a")
    quiesce.may_resume(5, LOCK_STEP_BYTES)
    assert quiesce.final_epoch == 0


async def test_another_attempt_forgets_the_former_one_and_lets_its_window_go() -> None:
    quiesce = Quiesce()
    quiesce.want("a")
    quiesce.window(5, is_certain=True)
    waiting = asyncio.create_task(quiesce.passed())
    await asyncio.sleep(0)
    quiesce.want("b")
    await waiting
    assert (quiesce.stage, quiesce.attempt, quiesce.epoch) == (Stage.WANTED, "b", 0)
    quiesce.window(6, is_certain=True)
    quiesce.finish("b")
    assert quiesce.final_epoch == 6
    quiesce.want("c")
    assert quiesce.final_epoch == 0


@pytest.mark.parametrize("attempt", ["", "x" * (MAX_ATTEMPT_CHARS + 1)])
async def test_an_attempt_needs_a_name_of_a_sound_length(attempt: str) -> None:
    quiesce = Quiesce()
    assert "characters" in quiesce.want(attempt)
    assert quiesce.stage is Stage.IDLE
