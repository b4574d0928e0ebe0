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
from colod.transport.crowd import Crowd, Grumble
from colod.transport.sockets import SocketConnection, SocketListener

GREETING_S: Final = 5.0
"""Time for whoever connects to prove that it is the peer."""

PROVEN_MAX: Final = 8
"""Connections of the peer that `accept` has not taken yet; more are closed."""

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
        self._grumble = Grumble(_log)
        self._crowd = Crowd(self._grumble)
        self._accepting: asyncio.Task[None] | None = None
        self._proven: deque[Proven] = deque()
        self._news = asyncio.Event()
        self._failure: BaseException | None = None

    @property
    def address(self) -> str:
        """What the sender passes to `connect`."""
        return self._inner.address

    async def accept(self) -> Proven:
        """Return the next connection to the peer.

        Raises:
            NetworkError: If the listener is broken or was closed.
        """
        if self._accepting is None and self._failure is None:
            self._accepting = asyncio.create_task(self._accept_all())
            self._accepting.add_done_callback(self._ended)
        while not self._proven:
            if self._failure is not None:
                raise NetworkError(str(self._failure)) from self._failure
            self._news.clear()
            await self._news.wait()
        return self._proven.popleft()

    async def close(self) -> None:
        """Stop listening; accepted connections live on, the others end."""
        self._fail(NetworkError(f"cannot accept on {self.address}: closed"))
        await self._inner.close()
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        await self._crowd.disperse()
        while self._proven:
            await self._proven.popleft().close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._news.set()

    async def _accept_all(self) -> None:
        while True:
            carrier = await self._inner.accept()
            self._crowd.meet(carrier, self._greet(carrier)).add_done_callback(self._ended)
            await asyncio.sleep(0)  # callers that never cease must not starve the rest

    async def _greet(self, carrier: SocketConnection) -> None:
        try:
            async with asyncio.timeout(self._greeting_s):
                connection = await self._prove(carrier)
        except TimeoutError:
            reason = f"no handshake within {self._greeting_s:g} s"
            self._refused(logging.WARNING, carrier, reason)
        except PeerError as error:
            self._refused(logging.WARNING, carrier, str(error))
        except NetworkError as error:
            self._refused(logging.ERROR, carrier, str(error))
        else:
            if len(self._proven) >= PROVEN_MAX:
                await connection.close()
                return
            self._proven.append(connection)
            self._news.set()

    def _refused(self, level: int, carrier: SocketConnection, reason: str) -> None:
        self._grumble.log(
            level, "caller.refused address=%s reason=%r", carrier.peer_address, reason
        )
