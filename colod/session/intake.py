"""The two halves of the sender's data path, and the bounded memory between them.

`drain` takes out of libxl's pipe whatever is in it, as fast as it can be copied; `transmit` sends
it. So the guest, which stays suspended until libxc's CHECKPOINT is in the pipe, waits for memory
and not for the link, as long as there is room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from colod.session.ending import Ending
from colod.session.holding import Holding
from colod.session.pipes import PIPE_BYTES, Pipe
from colod.session.progress import Progress
from colod.session.sending import Sending
from colod.session.staging import Data, Sealed, Staging
from colod.session.wire import Wire

LIVE_BYTES: Final = 8 << 20
"""How much of the first copy may wait: the guest runs meanwhile, so more would gain nothing."""


class Intake:
    """libxl's stream on its way from the pipe to the link."""

    def __init__(self, sending: Sending, staging_bytes: int, holding: Holding | None) -> None:
        """Begin with nothing.

        Args:
            sending: Accounts for the stream.
            staging_bytes: Most that waits for the link.
            holding: The guest's gate, if it has one.

        Raises:
            OSError: If there is not so much memory.
        """
        self._sending = sending
        self._staging = Staging(staging_bytes)
        self._limit_bytes = staging_bytes
        self._holding = holding
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()
        self._stalled_s = 0.0
        self._stalled_since: float | None = None
        self._is_dry = False
        self._is_sent = True

    def report(self, progress: Progress, now: float) -> None:
        """Add what waits, for how long nothing could be taken in, and what is waited for."""
        progress.staged_bytes = self._staging.used_bytes
        progress.staged_peak_bytes = self._staging.peak_bytes
        progress.staging_bytes = self._limit_bytes
        since = self._stalled_since
        progress.stalled_s = self._stalled_s + (0.0 if since is None else now - since)
        progress.waits_for = self._waits_for()

    def _waits_for(self) -> str:
        if self._stalled_since is not None:
            return "link"
        if self._is_dry:
            return "xl"
        return "" if self._holding is None else self._holding.waits_for

    # -- in

    async def drain(self, pipe: Pipe, check_awake: Callable[[], None] = lambda: None) -> None:
        """Take the stream in until it ends; what came in good order before that is sent first.

        Args:
            pipe: libxl's.
            check_awake: Raises an Ending if the pipe must not be read any more: what is read lets
                the guest run.

        Raises:
            Ending: Then.
        """
        while True:
            room = await self._room()
            check_awake()
            count = pipe.read_now(room)
            if count is None:
                self._is_dry = True
                await pipe.readable()
                self._is_dry = False
                continue
            if count == 0:
                await self._until_sent()
                raise Ending.toolstack_lost("xl closed the stream: it, or the guest, has ended")
            self._take(room[:count])
            if self._sending.error is not None:
                await self._until_sent()
                raise Ending.from_error(self._sending.error)
            await asyncio.sleep(0)

    def _take(self, chunk: memoryview) -> None:
        for piece in self._sending.feed(chunk, time.monotonic()):
            if isinstance(piece, Data):
                self._staging.add(piece.epoch, len(piece.payload))
            else:
                self._staging.seal(piece.epoch)
        self._is_sent = False
        self._filled.set()

    async def _room(self) -> memoryview:
        """Wait until the pipe may be read and there is room; return where to."""
        bound = LIVE_BYTES if self._sending.epoch == 1 else self._limit_bytes
        if not len(self._staging.room(1, bound)):
            await self._stall(lambda: bool(len(self._staging.room(1, bound))))
        limit = None
        if self._holding is not None:
            limit = await self._holding.may_read(self._sending.record_rest_bytes)
        return self._staging.room(PIPE_BYTES if limit is None else min(limit, PIPE_BYTES), bound)

    async def _stall(self, is_over: Callable[[], bool]) -> None:
        """Leave libxl's pipe unread until the link has made room."""
        self._stalled_since = time.monotonic()
        try:
            await self._until(is_over)
        finally:
            self._stalled_s += time.monotonic() - self._stalled_since
            self._stalled_since = None

    async def _until_sent(self) -> None:
        await self._until(lambda: self._is_sent)

    async def _until(self, check: Callable[[], bool]) -> None:
        while not check():
            self._freed.clear()
            await self._freed.wait()

    # -- out

    async def transmit(self, wire: Wire) -> None:
        """Send what was taken in; never returns.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        while True:
            match self._staging.next():
                case None:
                    self._filled.clear()
                    await wire.flush()
                    self._is_sent = self._staging.is_empty  # what came meanwhile is not
                    self._freed.set()
                    await self._filled.wait()
                    continue
                case Data(epoch, payload):
                    await wire.send(epoch, payload)
                case Sealed(epoch):
                    await wire.seal(epoch)
            self._staging.taken()
            self._freed.set()
