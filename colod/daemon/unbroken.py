"""Carry out to its end what must not be left half-way when its caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def unbroken(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what `work` returns, and end only when it has ended.

    A request is cancelled when its client's time is over, while a thread of ours writes on: what is
    on disk and what is remembered would then differ. So a cancellation waits for the end of `work`.

    Raises:
        asyncio.CancelledError: If the caller was cancelled meanwhile; `work` was done all the same.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # looked at: nobody else will
        raise cancelled
    return task.result()
