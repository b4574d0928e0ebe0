"""Virtual time: an event loop in which waiting takes no time, and no thread ever runs."""

from __future__ import annotations

import asyncio
import inspect
import selectors
from collections.abc import Callable
from typing import Any


class Stuck(Exception):
    """Nothing will ever happen any more."""


class _NoFiles(selectors.SelectSelector):
    """Selects nothing; the wait for it is what lets time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let `timeout` seconds pass at once."""
        if timeout is None:
            raise Stuck
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while anything is left to do.

    Two runs of the same program are the same to the last step: there are no threads (what would run
    in one runs in the loop, and may be a coroutine function), no files, and no real time.
    """

    def __init__(self) -> None:
        self._files = _NoFiles()
        super().__init__(self._files)

    def time(self) -> float:
        """Return the virtual seconds since the beginning."""
        return self._files.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` in the loop; wait for what it returns, if that can be waited for."""
        return self.create_task(_called(func, *args))


async def _called(func: Callable[..., Any], *args: Any) -> Any:
    result = func(*args)
    return await result if inspect.isawaitable(result) else result


class VirtualTime:
    """Stands for the module `time` where the simulated code looks at clocks."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wall_offset_s = 1.7e9

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def time(self) -> float:
        """Return wall-clock time, which may jump."""
        return self._loop.time() + self.wall_offset_s
