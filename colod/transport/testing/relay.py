"""A relay beneath a transport: it stalls, cuts, resets, or changes what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from colod.transport.inet import format_address, parse_address
from colod.transport.sockets import AsyncDescriptor

Dial = Callable[[str], Awaitable[socket.socket]]

_CHUNK_BYTES = 64 << 10
_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: close resets. Source: socket(7)


async def dial_tcp(address: str) -> socket.socket:
    """Return a bare connection to `host:port`."""
    return await _dial(
        socket.AF_INET6 if "[" in address else socket.AF_INET, parse_address(address)
    )


async def dial_unix(address: str) -> socket.socket:
    """Return a bare connection to the socket at the path `address`."""
    return await _dial(socket.AF_UNIX, address)


async def _dial(family: socket.AddressFamily, address: tuple[str, int] | str) -> socket.socket:
    sock = socket.socket(family)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class Relay:
    """Passes on what comes in both directions, until it is told otherwise."""

    def __init__(self, listening: socket.socket, address: str, dial: Dial, target: str) -> None:
        """Relay from `listening`, which others reach as `address`, to `target`."""
        self.address = address
        self._listening, self._dial, self._target = listening, dial, target
        self._sockets: list[socket.socket] = []
        self._lanes: list[_Lane] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._is_mute = False

    @classmethod
    async def over_tcp(cls, target: str) -> Self:
        """Open a relay on loopback, in front of the TCP address `target`."""
        host, _ = parse_address(target)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
        listening.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        name, port = listening.getsockname()[:2]
        return cls(listening, format_address(name, port), dial_tcp, target)._start()

    @classmethod
    async def over_unix(cls, target: str) -> Self:
        """Open a relay in the file system, in front of the socket at the path `target`."""
        directory = tempfile.TemporaryDirectory(prefix="relay")
        address = str(Path(directory.name) / "s")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(address)
        made = cls(listening, address, dial_unix, target)
        made._directory = directory
        return made._start()

    def _start(self) -> Self:
        self._listening.listen(16)
        self._listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(self._listening)
            self._sockets.append(near)
            if self._is_mute:
                continue
            far = await self._dial(self._target)
            self._sockets.append(far)
            for lane in (_Lane(near, far), _Lane(far, near)):
                self._lanes.append(lane)
                lane.resume()

    def mute(self) -> None:
        """From now on take every connection, and neither pass anything on nor answer."""
        self._is_mute = True

    async def deafen(self) -> None:
        """From now on let nobody in, not even into the kernel's queue."""
        await self._stop_accepting()
        self._listening.listen(0)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            async with asyncio.timeout(0.2):
                while True:
                    self._sockets.append(await self._dial_self())

    async def _dial_self(self) -> socket.socket:
        sock = socket.socket(self._listening.family)
        try:
            sock.setblocking(False)
            if sock.family == socket.AF_UNIX:
                sock.connect(self.address)
            else:
                address = self._listening.getsockname()
                await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def stall(self) -> None:
        """Take and pass on nothing more, in either direction."""
        await asyncio.gather(*(lane.stall() for lane in self._lanes))

    def resume(self) -> None:
        """Go on after `stall`; nothing is lost."""
        for lane in self._lanes:
            lane.resume()

    def flip(self) -> None:
        """Change one bit of the next bytes that pass, in each direction."""
        for lane in self._lanes:
            lane.flips = True

    async def reset(self) -> None:
        """Break both connections as a crash of both hosts would.

        On unix sockets that shows only to a side whose bytes were not read: `stall`, and have both
        sides write before.
        """
        await self.stall()
        for sock in self._sockets:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            sock.close()

    async def cut(self) -> None:
        """End both directions as the kernel does for a process that died."""
        await self.stall()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """End everything."""
        await self._stop_accepting()
        await self.stall()
        for sock in (*self._sockets, self._listening):
            sock.close()
        if self._directory is not None:
            self._directory.cleanup()

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)


class _Lane:
    """One direction."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.flips = False
        self._source, self._sink = source, sink
        self._left = bytearray()
        self._task: asyncio.Task[None] | None = None

    def resume(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._pass_on())

    async def stall(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pass_on(self) -> None:
        with contextlib.suppress(OSError):  # one side is gone; what the other sees is its affair
            while await self._take():
                await self._give()
            self._sink.shutdown(socket.SHUT_WR)

    async def _take(self) -> bool:
        readable = AsyncDescriptor(self._source.fileno()).readable
        while not self._left:
            await readable()
            with contextlib.suppress(BlockingIOError):
                got = bytearray(self._source.recv(_CHUNK_BYTES))
                if not got:
                    return False
                if self.flips:
                    self.flips = False
                    got[len(got) // 2] ^= 1
                self._left = got
        return True

    async def _give(self) -> None:
        writable = AsyncDescriptor(self._sink.fileno()).writable
        while self._left:
            await writable()
            with contextlib.suppress(BlockingIOError):
                del self._left[: self._sink.send(self._left)]
