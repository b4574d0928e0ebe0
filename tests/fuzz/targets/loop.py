"""One event loop for all runs of a target whose parser waits for its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from tests.fuzz.target import demand

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; it must leave no task behind.

    Raises:
        Finding: If it does.
    """
    loop = _loop()
    result = loop.run_until_complete(work)
    left = asyncio.all_tasks(loop)
    demand(not left, f"tasks are left: {left}")
    return result
