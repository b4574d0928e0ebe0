"""Run one blocking call in a thread that nobody has to wait for.

A file system that hangs must delay neither the event loop nor the daemon's exit, as the threads of
an executor would: they are joined. So each call has a daemon thread of its own, and at most
`MAX_THREADS` may hang at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar, cast

MAX_THREADS = 8

_Result = TypeVar("_Result")


class TooManyHanging(Exception):
    """All threads hang in earlier calls; this one was not started."""


class BlockingCalls:
    """Starts blocking calls and bounds how many of them can hang."""

    def __init__(self) -> None:
        """Begin with no call under way."""
        self._free = threading.BoundedSemaphore(MAX_THREADS)

    async def run(self, call: Callable[[], _Result], *, timeout_s: float) -> _Result:
        """Return what `call` returns.

        Args:
            call: The function; after the time-out it may still go on, and take effect.
            timeout_s: Seconds to wait for it.

        Raises:
            TooManyHanging: If it was not started.
            TimeoutError: If it did not return in time.
        """
        if not self._free.acquire(blocking=False):
            raise TooManyHanging(f"{MAX_THREADS} earlier calls have not returned")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_Result] = loop.create_future()
        thread = threading.Thread(target=self._call, args=(call, loop, done), daemon=True)
        thread.start()
        async with asyncio.timeout(timeout_s):
            return await done

    def _call(
        self,
        call: Callable[[], _Result],
        loop: asyncio.AbstractEventLoop,
        done: asyncio.Future[_Result],
    ) -> None:
        result: _Result | None = None
        failure: BaseException | None = None
        try:
            result = call()
        except BaseException as error:  # carried over to the task that waits
            failure = error
        finally:
            self._free.release()
        # A closed loop refuses: nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, done, result, failure)


def _settle(
    done: asyncio.Future[_Result], result: _Result | None, failure: BaseException | None
) -> None:
    if done.done():
        return  # timed out or cancelled
    if failure is not None:
        done.set_exception(failure)
    else:
        done.set_result(cast("_Result", result))
