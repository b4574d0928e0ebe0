"""Transports that each break one promise of `colod.transport.base`, for the suite to find."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, Self

from colod.errors import NetworkError, PeerUnreachable
from colod.transport.base import Buffer, Connection, Listener, Transport
from colod.transport.tcp import TcpTransport
from colod.transport.testing import Relay, Subject, dial_tcp, dial_unix, strangers_over
from colod.transport.unix import UnixTransport


class Litter:
    """What a broken transport leaves behind; the test takes it away."""

    def __init__(self) -> None:
        self.opened: list[Connection | Listener] = []
        self.files: list[int] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    async def clear(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for task in self.tasks:
            if not task.cancelled() and task.exception() is None and task.result() is not None:
                self.opened.append(task.result())
        for opened in self.opened:
            if hasattr(opened, "close"):
                await opened.close()
        for number in self.files:
            os.close(number)


class Sound:
    """A connection in which nothing is broken; the others change one thing of it."""

    def __init__(self, inner: Connection, litter: Litter) -> None:
        self.inner, self.litter = inner, litter

    @property
    def peer_address(self) -> str:
        return self.inner.peer_address

    async def read_into(self, buffer: memoryview) -> int:
        return await self.inner.read_into(buffer)

    async def write(self, *parts: Buffer) -> None:
        await self.inner.write(*parts)

    async def finish(self) -> None:
        await self.inner.finish()

    async def close(self) -> None:
        await self.inner.close()


class SoundListener:
    """A listener in which nothing is broken."""

    def __init__(
        self, inner: Listener, litter: Litter, make: Callable[[Connection, Litter], Connection]
    ) -> None:
        self.inner, self.litter, self.make = inner, litter, make

    @property
    def address(self) -> str:
        return self.inner.address

    async def accept(self) -> Connection:
        return self.make(await self.inner.accept(), self.litter)

    async def close(self) -> None:
        await self.inner.close()


class SoundTransport:
    """A transport in which nothing is broken."""

    connection: ClassVar[type[Sound]] = Sound
    listener: ClassVar[type[SoundListener]] = SoundListener

    def __init__(self, inner: Transport) -> None:
        self.inner, self.litter = inner, Litter()

    @classmethod
    def from_options(cls, options: object, credentials: object = None) -> Self:
        raise NotImplementedError

    async def listen(self) -> Listener:
        inner = await self.inner.listen()
        self.litter.opened.append(inner)
        return self.listener(inner, self.litter, self.connection)

    async def connect(self, address: str, *, timeout_s: float) -> Connection:
        inner = await self.inner.connect(address, timeout_s=timeout_s)
        return self.connection(inner, self.litter)

    def subject(self) -> Subject:
        """Return it as the suite's subject; unix sockets below it."""
        return self._subject(Relay.over_unix, dial_unix)

    def _subject(self, relay: Any, dial: Any, *, proves_peer: bool = False) -> Subject:
        return Subject(
            sender=self,
            receiver=self,
            relay=relay,
            strangers=strangers_over(dial),
            proves_peer=proves_peer,
            held_bytes=4 << 20,
            patience_s=1.5,
            quiet_s=0.1,
        )


# -- bytes


class LosesAByte(Sound):
    async def write(self, *parts: Buffer) -> None:
        await self.inner.write(*(part[:-1] if len(part) > 50_000 else part for part in parts))


class TurnsPartsRound(Sound):
    async def write(self, *parts: Buffer) -> None:
        await self.inner.write(*reversed(parts))


class FillsBlocks(Sound):
    _kept = b""

    async def write(self, *parts: Buffer) -> None:
        self._kept += b"".join(parts)
        if len(self._kept) >= 4096:
            kept, self._kept = self._kept, b""
            await self.inner.write(kept)


class EndsAtNothing(Sound):
    async def write(self, *parts: Buffer) -> None:
        await self.inner.write(*parts)
        if not any(map(len, parts)):
            await self.inner.finish()


class LosesWhatIsLeftOver(Sound):
    async def read_into(self, buffer: memoryview) -> int:
        larger = memoryview(bytearray(4096))
        count = min(await self.inner.read_into(larger), len(buffer))
        buffer[:count] = larger[:count]
        return count


class SendsLater(Sound):
    """Gives buffers back before they are sent; `limit` bounds what waits, where it is given."""

    limit: int | None = 1 << 20

    def __init__(self, inner: Connection, litter: Litter) -> None:
        super().__init__(inner, litter)
        self._queue: list[Buffer] = []
        self._room, self._work = asyncio.Event(), asyncio.Event()
        self._error: PeerUnreachable | None = None
        self._task = litter.start(self._send())

    def keep(self, part: Buffer) -> Buffer:
        return memoryview(part)

    async def write(self, *parts: Buffer) -> None:
        self._queue += [self.keep(part) for part in parts if len(part)]
        self._work.set()
        while self.limit is not None and sum(map(len, self._queue)) > self.limit:
            self._room.clear()
            await self._room.wait()
        if self._error:
            raise self._error

    async def _send(self) -> None:
        with contextlib.suppress(PeerUnreachable):
            while True:
                await self._work.wait()
                await asyncio.sleep(0.005)
                while self._queue:
                    await self.inner.write(self._queue[0])
                    del self._queue[0]
                    self._room.set()
                self._work.clear()

    async def close(self) -> None:
        self._task.cancel()
        await self.inner.close()


class HoldsAnything(SendsLater):
    limit = None

    def keep(self, part: Buffer) -> Buffer:
        return bytes(part)


class LosesWhatItHeldAtClose(SendsLater):
    def keep(self, part: Buffer) -> Buffer:
        return bytes(part)


class TakesTurns(Sound):
    def __init__(self, inner: Connection, litter: Litter) -> None:
        super().__init__(inner, litter)
        self._turn = asyncio.Lock()

    async def read_into(self, buffer: memoryview) -> int:
        async with self._turn:
            return await self.inner.read_into(buffer)

    async def write(self, *parts: Buffer) -> None:
        async with self._turn:
            await self.inner.write(*parts)


class DropsForTheSlow(Sound):
    """Reads ahead, and drops what a slow reader has no room for."""

    def __init__(self, inner: Connection, litter: Litter) -> None:
        super().__init__(inner, litter)
        self._ahead: asyncio.Queue[bytes] = asyncio.Queue(2)
        self._task = litter.start(self._read_ahead())

    async def _read_ahead(self) -> None:
        buffer = memoryview(bytearray(8192))
        while count := await self.inner.read_into(buffer):
            with contextlib.suppress(asyncio.QueueFull):
                self._ahead.put_nowait(bytes(buffer[:count]))
            await asyncio.sleep(0)

    async def read_into(self, buffer: memoryview) -> int:
        part = await self._ahead.get()
        buffer[: len(part)] = part[: len(buffer)]
        return min(len(part), len(buffer))


# -- ends


class FinishesBothWays(Sound):
    async def finish(self) -> None:
        await self.inner.close()


class TakesBytesAfterFinish(Sound):
    async def write(self, *parts: Buffer) -> None:
        with contextlib.suppress(PeerUnreachable):
            await self.inner.write(*parts)


class LetsWaitersWait(Sound):
    async def read_into(self, buffer: memoryview) -> int:
        try:
            return await self.inner.read_into(buffer)
        except PeerUnreachable:
            await asyncio.Event().wait()
            raise


class EndsWhereItIsClosed(Sound):
    _is_closed = False

    async def read_into(self, buffer: memoryview) -> int:
        return 0 if self._is_closed else await self.inner.read_into(buffer)

    async def close(self) -> None:
        self._is_closed = True
        await self.inner.close()


class PadsTheEnd(Sound):
    _is_padded = False

    async def read_into(self, buffer: memoryview) -> int:
        try:
            count = await self.inner.read_into(buffer)
        except PeerUnreachable:
            count = 0
        if count or self._is_padded:
            return count
        self._is_padded = True
        buffer[0] = 0xFF
        return 1


class TakesABreakForAnEnd(Sound):
    async def read_into(self, buffer: memoryview) -> int:
        try:
            return await self.inner.read_into(buffer)
        except PeerUnreachable:
            return 0


class LosesPatience(Sound):
    async def read_into(self, buffer: memoryview) -> int:
        try:
            async with asyncio.timeout(0.05):
                return await self.inner.read_into(buffer)
        except TimeoutError as error:
            raise PeerUnreachable("silent") from error


# -- cancellation


class WritesOnWhenCancelled(Sound):
    async def write(self, *parts: Buffer) -> None:
        await asyncio.shield(self.litter.start(self.inner.write(*parts)))


class ReadsOnWhenCancelled(Sound):
    async def read_into(self, buffer: memoryview) -> int:
        return await asyncio.shield(self.litter.start(self._read(buffer)))

    async def _read(self, buffer: memoryview) -> int:
        return await self.inner.read_into(buffer)


class TakesCancellationForAnEnd(Sound):
    async def read_into(self, buffer: memoryview) -> int:
        try:
            return await self.inner.read_into(buffer)
        except asyncio.CancelledError:
            return 0


class AcceptsOnWhenCancelled(SoundListener):
    async def accept(self) -> Connection:
        inner = await asyncio.shield(self.litter.start(self.inner.accept()))
        return self.make(inner, self.litter)


class ConnectsOnWhenCancelled(SoundTransport):
    async def connect(self, address: str, *, timeout_s: float) -> Connection:
        connecting = self.inner.connect(address, timeout_s=timeout_s)
        inner = await asyncio.shield(self.litter.start(connecting))
        return self.connection(inner, self.litter)


# -- listening and connecting


class HasNoAddress(Sound):
    @property
    def peer_address(self) -> str:
        return ""


class LeavesAFile(Sound):
    def __init__(self, inner: Connection, litter: Litter) -> None:
        super().__init__(inner, litter)
        litter.files.append(os.open(os.devnull, os.O_RDONLY))


class RaisesWhatTheKernelSays(SoundTransport):
    async def connect(self, address: str, *, timeout_s: float) -> Connection:
        try:
            return await super().connect(address, timeout_s=timeout_s)
        except PeerUnreachable as error:
            raise ConnectionRefusedError(address) from error


class TakesAnyAddress(SoundTransport):
    async def connect(self, address: str, *, timeout_s: float) -> Connection:
        if not address.strip():
            raise ValueError(address)
        return await super().connect(address, timeout_s=timeout_s)


class KnowsNoTime(SoundTransport):
    async def connect(self, address: str, *, timeout_s: float) -> Connection:
        return await super().connect(address, timeout_s=3600)


class WaitsForAWord(SoundTransport):
    """Both sides say a byte first; nobody says until when."""

    async def connect(self, address: str, *, timeout_s: float) -> Connection:
        connection = await super().connect(address, timeout_s=timeout_s)
        self.litter.opened.append(connection)
        await connection.write(b"!")
        await connection.read_into(memoryview(bytearray(1)))
        return connection


class ListensForAWord(SoundListener):
    async def accept(self) -> Connection:
        connection = await super().accept()
        self.litter.opened.append(connection)
        with contextlib.suppress(PeerUnreachable):
            await connection.read_into(memoryview(bytearray(1)))
            await connection.write(b"!")
        return connection


class CrossesWires(SoundListener):
    _before: Connection | None = None

    async def accept(self) -> Connection:
        inner = await self.inner.accept()
        crossed = self.make(_Crossed(inner, self._before or inner), self.litter)
        self._before = inner
        return crossed


class _Crossed(Sound):
    def __init__(self, inner: Connection, other: Connection) -> None:
        super().__init__(inner, Litter())
        self._other = other

    async def write(self, *parts: Buffer) -> None:
        await self._other.write(*parts)


class HasTheAddressOfAll(SoundListener):
    @property
    def address(self) -> str:
        return str(Path(self.inner.address).with_name("the-same"))


class TakesItsConnectionsAlong(SoundListener):
    _accepted: Connection | None = None

    async def accept(self) -> Connection:
        self._accepted = await super().accept()
        return self._accepted

    async def close(self) -> None:
        await super().close()
        if self._accepted is not None:
            await self._accepted.close()


class LetsAcceptWait(SoundListener):
    async def accept(self) -> Connection:
        try:
            return await super().accept()
        except NetworkError:
            await asyncio.Event().wait()
            raise


class GoesOnListening(SoundListener):
    async def close(self) -> None:
        """Close nothing."""


class KeepsWhoCameLate(SoundListener):
    """Accepts ahead, and forgets whom it had when it is closed."""

    def __init__(
        self, inner: Listener, litter: Litter, make: Callable[[Connection, Litter], Connection]
    ) -> None:
        super().__init__(inner, litter, make)
        self._ahead: asyncio.Queue[Connection] = asyncio.Queue()
        self._task = litter.start(self._accept_ahead())

    async def _accept_ahead(self) -> None:
        while True:
            connection = await self.inner.accept()
            self.litter.opened.append(connection)
            self._ahead.put_nowait(connection)

    async def accept(self) -> Connection:
        getting = asyncio.ensure_future(self._ahead.get())
        await asyncio.wait({getting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return self.make(getting.result(), self.litter)
        getting.cancel()
        raise NetworkError("closed")

    async def close(self) -> None:
        self._task.cancel()
        await self.inner.close()


class ClaimsToProtect(SoundTransport):
    """Bare TCP that says it proves who the peer is."""

    def subject(self) -> Subject:
        return self._subject(Relay.over_tcp, dial_tcp, proves_peer=True)


def over_unix(
    directory: Path,
    *,
    connection: type[Sound] = Sound,
    listener: type[SoundListener] = SoundListener,
    transport: type[SoundTransport] = SoundTransport,
) -> SoundTransport:
    """Return a transport over unix sockets with the given parts."""
    kind = type("Broken", (transport,), {"connection": connection, "listener": listener})
    made: SoundTransport = kind(UnixTransport.from_options({"directory": str(directory)}))
    return made


def over_tcp(transport: type[SoundTransport]) -> SoundTransport:
    """Return a transport over TCP."""
    return transport(TcpTransport())
