"""The pipes between a session and xl, without copies and without blocking."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Sequence

from colod.transport.base import Buffer
from colod.transport.sockets import AsyncDescriptor, drop_sent

PIPE_BYTES = 1 << 20
_PARTS_PER_CALL = 256


class Pipe:
    """One end of a pipe to xl."""

    def __init__(self, number: int) -> None:
        """Take over the descriptor `number` and widen the pipe to PIPE_BYTES where allowed."""
        os.set_blocking(number, False)
        with contextlib.suppress(OSError):  # no pipe, or beyond the user's share: a loss of speed
            fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._number = number
        self._descriptor = AsyncDescriptor(number)
        self._is_open = True

    async def read_into(self, buffer: memoryview) -> int:
        """Read what is there into `buffer`; return how many bytes, 0 at the end of the file."""
        while True:
            try:
                return os.readv(self._number, [buffer])
            except BlockingIOError:
                await self._descriptor.readable()

    def read_now(self, buffer: memoryview) -> int | None:
        """Read what is there into `buffer`, which is not empty.

        Returns:
            How many bytes, 0 at the end of the file, None if there is nothing yet.
        """
        try:
            return os.readv(self._number, [buffer])
        except BlockingIOError:
            return None

    async def readable(self) -> None:
        """Return when there is something to read, the end of file included."""
        await self._descriptor.readable()

    async def write(self, parts: Sequence[Buffer]) -> None:
        """Write `parts` in order; return when the pipe has all of them.

        Raises:
            OSError: If nobody reads the pipe any more, or it was closed on this side.
        """
        rest = [memoryview(part) for part in parts if len(part)]
        while rest:
            try:
                rest = drop_sent(rest, os.writev(self._number, rest[:_PARTS_PER_CALL]))
                await asyncio.sleep(0)
            except BlockingIOError:
                await self._descriptor.writable()

    def resize(self, octets: int) -> int:
        """Make room for `octets` bytes in the pipe; return for how many there is.

        Raises:
            OSError: EBUSY if it holds more than that; EPERM if it may not have so much.
        """
        return fcntl.fcntl(self._number, fcntl.F_SETPIPE_SZ, octets)

    def close(self) -> None:
        """Close this end; for xl that is the end of the file."""
        if self._is_open:
            self._is_open = False
            self._descriptor.let_go()
            os.close(self._number)
            self._number = -1
