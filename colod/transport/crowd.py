"""Callers that have proved nothing yet: a few at a time, and none of them keeps the peer out.

Where there are too many, one of the host that has the most of them goes, the one that came first.
So a host that only opens connections crowds out its own, and the peer, who proves itself in one
round trip, is let in however many silent ones there are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

MAX_STRANGERS: Final = 8
"""Connections that may be unproven at a time."""

_LINES_AT_ONCE: Final = 10
_LINE_EVERY_S: Final = 60.0


class Caller(Protocol):
    """A connection of whoever it is."""

    @property
    def peer_address(self) -> str:
        """The other end, with its port where it has one."""
        ...

    async def close(self) -> None:
        """Close it; once more does no harm."""
        ...


class Grumble:
    """Log lines that strangers cause: the first ones, then one in a minute, with what it left out.

    A session's log is in memory, and nobody rotates it.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `logger`, as often as `clock` (seconds) allows."""
        self._logger, self._clock = logger, clock
        self._credit = float(_LINES_AT_ONCE)
        self._counted_at = clock()
        self._left_out = 0

    def log(self, level: int, message: str, *words: object) -> None:
        """Write a line, or count it."""
        now = self._clock()
        gained = (now - self._counted_at) / _LINE_EVERY_S
        self._counted_at, self._credit = now, min(_LINES_AT_ONCE, self._credit + gained)
        if self._credit < 1:
            self._left_out += 1
            return
        self._credit -= 1
        if self._left_out:
            message, words = f"{message} left_out=%d", (*words, self._left_out)
            self._left_out = 0
        self._logger.log(level, message, *words)


class Crowd:
    """Runs what callers do to prove themselves, each as a task of its own."""

    def __init__(self, grumble: Grumble, most: int = MAX_STRANGERS) -> None:
        """Listen to `most` callers at a time; `grumble` tells whom it became too many."""
        self._grumble = grumble
        self._most = most
        self._strangers: dict[asyncio.Task[None], str] = {}
        self._tasks: dict[asyncio.Task[None], Caller] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def meet(self, caller: Caller, proof: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `proof` for `caller`; where there are too many, one of them is sent away for it.

        Args:
            caller: Closed when its task is cancelled.
            proof: Calls `trust` as soon as the caller is known to be the peer.
        """
        if len(self._strangers) >= self._most:
            self._send_one_away()
        task = asyncio.create_task(proof)
        self._tasks[task] = caller
        self._strangers[task] = _host(caller.peer_address)
        task.add_done_callback(self._ended)
        return task

    def trust(self) -> None:
        """Take the caller whose proof runs now for no stranger any more: it is not sent away."""
        task = asyncio.current_task()
        assert task is not None
        self._strangers.pop(task, None)

    async def disperse(self) -> None:
        """End all of them, and wait until those that were sent away are closed, too."""
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._closing)

    def _send_one_away(self) -> None:
        counts = Counter(self._strangers.values())
        most = max(counts.values())
        task = next(task for task, host in self._strangers.items() if counts[host] == most)
        del self._strangers[task]
        address = self._tasks[task].peer_address
        self._grumble.log(logging.WARNING, "caller.crowded_out address=%s", address)
        task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        caller = self._tasks.pop(task)
        self._strangers.pop(task, None)
        if task.cancelled():  # one that had not begun has closed nothing
            closing = asyncio.get_running_loop().create_task(caller.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _host(address: str) -> str:
    host, _, port = address.rpartition(":")
    return host if port.isdigit() else address
