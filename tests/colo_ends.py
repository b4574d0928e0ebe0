"""The other ends of a COLO proxy's sockets, for tests: what QEMU and libxl are to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from colod.output.colo.core import Event, ProxyOptions
from colod.output.colo.framing import Framed, FrameReader, encode_frames
from colod.output.colo.notify import CHECKPOINT, INIT, INIT_ANSWER, REQUEST, encode_word
from colod.output.colo.ports import Address, PortOptions
from colod.output.colo.proxy import ColoProxy, ProxyPorts

LIMIT_S = 30.0


async def until(condition: Callable[[], bool]) -> None:
    """Let the proxy work until something holds."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110  (the proxy tells nobody of each frame)
            await asyncio.sleep(0.001)


class End:
    """One socket's other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._read: list[bytes] = []

    @classmethod
    async def connected(cls, address: Address) -> End:
        if isinstance(address, Path):
            return cls(*await asyncio.open_unix_connection(address))
        return cls(*await asyncio.open_connection(*address))

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def frames(self, count: int) -> list[bytes]:
        """Return the next frames."""
        async with asyncio.timeout(LIMIT_S):
            while len(self._read) < count:
                octets = await self.reader.read(1 << 16)
                assert octets, "the proxy closed"
                items = self._frames.feed(octets)
                self._read += [each.frame for each in items if isinstance(each, Framed)]
        frames, self._read = self._read[:count], self._read[count:]
        return frames

    async def is_closed(self) -> bool:
        """Wait for the end of the connection; return whether nothing came before it."""
        async with asyncio.timeout(LIMIT_S):
            try:
                return not await self.reader.read()
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class FakeLibxl:
    """The words that libxl says and expects."""

    def __init__(self, end: End) -> None:
        self.end = end

    async def begin(self) -> None:
        self.end.send(encode_word(INIT))
        assert await self._read(encode_word(INIT_ANSWER))

    def checkpoint(self) -> None:
        self.end.send(encode_word(CHECKPOINT))

    async def is_asked(self) -> bool:
        """Wait for the next word; return whether it asks for a checkpoint."""
        return await self._read(encode_word(REQUEST))

    async def _read(self, wire: bytes) -> bool:
        async with asyncio.timeout(LIMIT_S):
            return await self.end.reader.readexactly(len(wire)) == wire


class Bench:
    """A proxy and all its ends."""

    def __init__(self, proxy: ColoProxy, events: list[Event]) -> None:
        self.proxy = proxy
        self.events = events

    async def connect(self) -> None:
        ends = [await End.connected(each) for each in self.proxy.addresses.values()]
        self.primary, self.secondary, self.out, notify = ends
        self.libxl = FakeLibxl(notify)
        await until(lambda: len(self.proxy.connected) == 4)

    async def say(self, *frames: bytes) -> None:
        """Let the primary send frames, and the proxy take them."""
        count = self.proxy.counts().primary_frames + len(frames)
        self.primary.send(encode_frames(frames))
        await until(lambda: self.proxy.counts().primary_frames >= count)

    async def echo(self, *frames: bytes) -> None:
        """Let the secondary send frames, and the proxy take them."""
        count = self.proxy.counts().secondary_frames + len(frames)
        self.secondary.send(encode_frames(frames))
        await until(lambda: self.proxy.counts().secondary_frames >= count)

    async def committed(self) -> None:
        """Let libxl say that a checkpoint was made, and the proxy hear it."""
        number = self.proxy.checkpoint + 1
        self.libxl.checkpoint()
        await until(lambda: self.proxy.checkpoint == number)

    async def checkpoint(self) -> None:
        """Cut both inputs, and make a checkpoint."""
        self.proxy.fence()
        await self.committed()

    async def compare(self) -> None:
        """Begin a pairing, and make its first checkpoint."""
        await self.libxl.begin()
        await self.checkpoint()


def unix_ports(directory: Path, **more: object) -> ProxyPorts:
    """Return ports in a directory: not tmp_path, whose name may be too long for a socket."""
    options = {
        name: PortOptions(address=directory / f"{name}.sock")
        for name in ("primary", "secondary", "out", "notify")
    }
    return ProxyPorts(**{**options, **more})  # type: ignore[arg-type]


def loopback_ports(**more: object) -> ProxyPorts:
    """Return ports on loopback that the kernel chooses."""
    options = {
        name: PortOptions(address=("127.0.0.1", 0))
        for name in ("primary", "secondary", "out", "notify")
    }
    return ProxyPorts(**{**options, **more})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def serving(
    ports: ProxyPorts, options: ProxyOptions, *, connects: bool = True, **hooks: Callable[..., Any]
) -> AsyncIterator[Bench]:
    """Run a proxy, and end it; `hooks` are further arguments of it."""
    events: list[Event] = []
    bench = Bench(ColoProxy(ports, options, events.append, **hooks), events)
    bench.proxy.open()
    running = asyncio.create_task(bench.proxy.run())
    try:
        if connects:
            await bench.connect()
        yield bench
        assert not running.done(), "the proxy ended by itself"
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        for each in ("primary", "secondary", "out"):
            if hasattr(bench, each):
                await getattr(bench, each).close()
        if hasattr(bench, "libxl"):
            await bench.libxl.end.close()
