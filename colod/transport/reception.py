"""The door of a transport whose callers prove themselves: several at a time, each within a limit.

`accept` gives only those who did. Whoever is silent, or talks nonsense, holds nobody up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from colod.errors import NetworkError, PeerError
from colod.transport.sockets import SocketConnection, SocketListener

GREETING_S: Final = 5.0
"""Time for whoever connects to prove that it is the peer."""

MAX_STRANGERS: Final = 8
"""Connections that are not proven yet, or not taken by `accept`; more wait in the kernel."""

_log = logging.getLogger(__name__)


class Closable(Protocol):
    """What a proof makes of a socket."""

    async def close(self) -> None:
        """Close it; never raises and never waits for the other side."""
        ...


Proven = TypeVar("Proven", bound=Closable)


class Reception(Generic[Proven]):
    """Proves several callers at a time; `accept` gives those who are the peer."""

    def __init__(
        self,
        inner: SocketListener,
        prove: Callable[[SocketConnection], Awaitable[Proven]],
        *,
        greeting_s: float = GREETING_S,
    ) -> None:
        """Take over `inner`; nobody is let in before the first `accept`.

        Args:
            inner: Where callers come.
            prove: Makes the connection to the peer of a caller's socket, which it closes if it
                fails: with PeerError where the caller is to blame, NetworkError where this side is.
            greeting_s: Time that one proof may take.
        """
        self._inner = inner
        self._prove = prove
        self._greeting_s = greeting_s
        self._slots = asyncio.Semaphore(MAX_STRANGERS)
        self._tasks: dict[asyncio.Task[None], SocketConnection | None] = {}
        self._proven: deque[Proven] = deque()
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._is_accepting = False

    @property
    def address(self) -> str:
        """What the sender passes to `connect`."""
        return self._inner.address

    async def accept(self) -> Proven:
        """Return the next connection to the peer.

        Raises:
            NetworkError: If the listener is broken or was closed.
        """
        if not (self._is_accepting or self._failure):
            self._is_accepting = True
            self._start(None)
        while not self._proven:
            if self._failure is not None:
                raise NetworkError(str(self._failure)) from self._failure
            self._news.clear()
            await self._news.wait()
        self._slots.release()
        return self._proven.popleft()

    async def close(self) -> None:
        """Stop listening; accepted connections live on, the others end."""
        self._fail(NetworkError(f"cannot accept on {self.address}: closed"))
        await self._inner.close()
        greeted = dict(self._tasks)
        for task in greeted:
            task.cancel()
        await asyncio.gather(*greeted, return_exceptions=True)
        for carrier in greeted.values():  # a task that had not begun has closed nothing
            if carrier is not None:
                await carrier.close()
        while self._proven:
            await self._proven.popleft().close()

    def _start(self, carrier: SocketConnection | None) -> None:
        work = self._accept_all() if carrier is None else self._greet(carrier)
        task = asyncio.create_task(work)
        self._tasks[task] = carrier
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._news.set()

    async def _accept_all(self) -> None:
        while True:
            await self._slots.acquire()
            self._start(await self._inner.accept())

    async def _greet(self, carrier: SocketConnection) -> None:
        is_proven = False
        try:
            async with asyncio.timeout(self._greeting_s):
                connection = await self._prove(carrier)
            self._proven.append(connection)
            is_proven = True
            self._news.set()
        except TimeoutError:
            reason = f"no handshake within {self._greeting_s:g} s"
            _log.warning("caller.refused address=%s reason=%r", carrier.peer_address, reason)
        except PeerError as error:
            _log.warning("caller.refused address=%s reason=%r", carrier.peer_address, str(error))
        except NetworkError as error:
            _log.error("caller.refused address=%s reason=%r", carrier.peer_address, str(error))
        finally:
            if not is_proven:
                self._slots.release()
