"""What the transports over stream sockets share: connections and listeners without copies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

from colod.errors import NetworkError, PeerUnreachable
from colod.transport import shaping
from colod.transport.base import Buffer

_PARTS_PER_CALL = 64
_NOT_YET = (BlockingIOError, InterruptedError)
# What accept() reports of a connection that died while it waited, or of a passing shortage.
_PASSING = frozenset(
    {
        errno.ECONNABORTED,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENOTCONN,
        errno.EPROTO,
    }
)
_SHORTAGE_PAUSE_S = 0.1


class AsyncDescriptor:
    """Waits for one non-blocking file descriptor; whoever waits is woken when it is closed."""

    def __init__(self, number: int) -> None:
        """Watch the open descriptor `number`, which the caller goes on to own."""
        self._number = number
        self._waiting: set[asyncio.Future[None]] = set()

    async def readable(self) -> None:
        """Return when there is something to read, the end of file included.

        Raises:
            OSError: If the descriptor was let go.
        """
        loop = asyncio.get_running_loop()
        await self._ready(loop.add_reader, loop.remove_reader)

    async def writable(self) -> None:
        """Return when bytes are taken or the other end is gone.

        Raises:
            OSError: If the descriptor was let go.
        """
        loop = asyncio.get_running_loop()
        await self._ready(loop.add_writer, loop.remove_writer)

    def let_go(self) -> None:
        """Wake everybody who waits; call it before the descriptor is closed."""
        for future in self._waiting:
            _wake(future)
        if self._number >= 0 and self._waiting:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._number)
            loop.remove_writer(self._number)
        self._number = -1

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        number = self._number
        if number < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        add(number, _wake, future)
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if self._number >= 0:  # otherwise the number may be somebody else's by now
                remove(number)


class SocketConnection:
    """A connected stream socket as a `Connection`."""

    def __init__(self, sock: socket.socket, peer_address: str) -> None:
        """Take over `sock`."""
        sock.setblocking(False)
        self._socket = sock
        self._descriptor = AsyncDescriptor(sock.fileno())
        self._peer_address = peer_address

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        return self._peer_address

    @property
    def dscp(self) -> int | None:
        """How the kernel marks what is sent, None where there are no such marks."""
        return shaping.marked(self._socket)

    def pace(self, bytes_per_s: int) -> bool:
        """Have the kernel send no faster; return whether it says that it will."""
        return shaping.pace(self._socket, bytes_per_s)

    async def read_into(self, buffer: memoryview) -> int:
        """Receive into `buffer`; 0 at the end of the stream.

        Raises:
            PeerUnreachable: If the connection broke or was closed on this side.
        """
        try:
            while True:
                try:
                    return self._socket.recv_into(buffer)
                except _NOT_YET:
                    await self._descriptor.readable()
        except OSError as error:
            raise self._broken(error) from error

    async def write(self, *parts: Buffer) -> None:
        """Send `parts` in order; return when the kernel has all of them.

        Raises:
            PeerUnreachable: If the connection broke or was closed on this side.
        """
        rest = [memoryview(part) for part in parts if len(part)]
        try:
            while rest:
                rest = drop_sent(rest, await self._send_some(rest))
        except OSError as error:
            raise self._broken(error) from error
        except BaseException:
            await self.close()
            raise

    async def finish(self) -> None:
        """End this side's direction; the other side reads its end after all that was written.

        Raises:
            PeerUnreachable: If the connection broke or was closed on this side.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._broken(error) from error

    def send_at_once(self, part: Buffer) -> None:
        """Send what the kernel takes of `part` without waiting; the rest is lost.

        For the last word before `close`, to a peer that may be gone.
        """
        with contextlib.suppress(OSError):
            self._socket.send(part)

    async def close(self) -> None:
        """Close both directions at once; a call that waits on the socket fails."""
        with contextlib.suppress(OSError):  # not connected any more: nobody is there to be told
            self._socket.shutdown(socket.SHUT_RDWR)
        self._descriptor.let_go()
        self._socket.close()

    async def _send_some(self, parts: list[memoryview]) -> int:
        while True:
            try:
                return self._socket.sendmsg(parts[:_PARTS_PER_CALL])
            except _NOT_YET:
                await self._descriptor.writable()

    def _broken(self, error: Exception) -> PeerUnreachable:
        return PeerUnreachable(f"connection to {self._peer_address} broke: {error}")


class SocketListener:
    """A listening stream socket as a `Listener`."""

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        prepare: Callable[[socket.socket], str],
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over `sock`, which listens already.

        Args:
            sock: The listening socket.
            address: What the sender passes to `connect`.
            prepare: Sets an accepted socket's options and returns the peer's address.
            forget: Removes what the address left behind in the file system.
        """
        sock.setblocking(False)
        self._socket = sock
        self._descriptor = AsyncDescriptor(sock.fileno())
        self._address = address
        self._prepare = prepare
        self._forget = forget

    @property
    def address(self) -> str:
        """What the sender passes to `connect`."""
        return self._address

    async def accept(self) -> SocketConnection:
        """Return the next connection that is alive.

        Raises:
            NetworkError: If the listener is broken or was closed.
        """
        while True:
            try:
                sock, _ = self._socket.accept()
                return SocketConnection(sock, self._prepare(sock))
            except _NOT_YET:
                await self._wait()
            except OSError as error:
                if error.errno not in _PASSING:
                    raise self._broken(error) from error
                await asyncio.sleep(_SHORTAGE_PAUSE_S)

    async def _wait(self) -> None:
        try:
            await self._descriptor.readable()
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> NetworkError:
        return NetworkError(f"cannot accept on {self._address}: {error}")

    async def close(self) -> None:
        """Stop listening; accepted connections live on."""
        self._descriptor.let_go()
        self._socket.close()
        self._forget()


def drop_sent(parts: list[memoryview], sent_bytes: int) -> list[memoryview]:
    """Return what is left of `parts` after their first `sent_bytes` bytes."""
    for index, part in enumerate(parts):
        if sent_bytes < len(part):
            return [part[sent_bytes:], *parts[index + 1 :]]
        sent_bytes -= len(part)
    return []


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
