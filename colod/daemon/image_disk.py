"""The disk that replicas' images are on: it may hang, and then nothing else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from colod.errors import CheckpointError
from colod.threads import Threads

ANSWER_S: Final = 10.0
"""How long it may take to name its files or its free room."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_threads = Threads("image-disk", 4)


async def on_image_disk(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return what `work` returns, which asks that disk.

    Its threads are its own: of a disk that hangs for good each call leaves one behind, and where
    all are, further calls only wait for their time to be over.

    Raises:
        CheckpointError: If the disk does not answer in time; what was asked of it may still happen.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            return await _threads.run(work, *args, **kwargs)
    except TimeoutError as error:
        raise CheckpointError(
            f"the disk of the images does not answer within {ANSWER_S:g} s",
            advice="see to checkpoints.directory; replication and takeovers do not wait for it",
        ) from error
