"""Threads for one kind of blocking work each, so that no kind waits for another.

asyncio's own pool has a handful of threads for everything (cores + 4): where it is shared, a few
calls that wait for a silent peer or a fence agent keep the journal of all other guests from being
written.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Threads:
    """A bounded number of threads for one kind of work."""

    def __init__(self, name: str, most: int) -> None:
        """Prepare; a thread is started when work finds none free.

        Args:
            name: What they do, for who looks at the process.
            most: How many there are at most; further work waits for one.
        """
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what `work` returns, called in one of these threads; see `asyncio.to_thread`.

        It goes on to its end when the caller is cancelled, unless it has not begun yet.
        """
        call = partial(contextvars.copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
