"""Where a transport is tried: what is known of it, and the means that all checks share."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from colod.errors import ColodError, NetworkError, PeerUnreachable
from colod.transport.base import Connection, Listener, Transport
from colod.transport.testing.relay import Relay

T = TypeVar("T")

Stranger = Callable[[str], AbstractAsyncContextManager[None]]
"""Knocks at an address in its own way, and stays as long as the context lasts."""

BLOCK_BYTES = 64 << 10
TOKEN_BYTES = 8

_OPEN_FILES: Final = Path("/proc/self/fd")
_POLL_S: Final = 0.02
_TURNS: Final = 20


class Nonconformity(Exception):
    """A transport does not do what `colod.transport.base` promises of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A transport that is to be checked.

    Attributes:
        sender: Made for the host that connects.
        receiver: Made for the host that listens.
        relay: Opens a relay in front of an address, so that the link can be broken beneath the
            transport; None where that cannot be: the checks that need it are not run then.
        strangers: Who may knock at a listener, by name; none: those checks are not run.
        proves_peer: Whether the transport itself proves who the peer is and protects its bytes.
        held_bytes: Most that both sides and the kernels may hold of what nobody reads.
        patience_s: Within what must happen at all, happens; more on a slow machine.
        quiet_s: What has not happened after this time is taken to wait.
        rounds: How often what is done again and again is done.
    """

    sender: Transport
    receiver: Transport
    relay: Callable[[str], Awaitable[Relay]] | None = None
    strangers: Mapping[str, Stranger] = field(default_factory=dict)
    proves_peer: bool = False
    held_bytes: int = 32 << 20
    patience_s: float = 10.0
    quiet_s: float = 0.2
    rounds: int = 20


@dataclass(frozen=True, slots=True)
class Leavings:
    """What a process has open.

    Attributes:
        tasks: That are not done.
        files: Number of its descriptors. Source: proc(5).
    """

    tasks: set[asyncio.Task[Any]]
    files: int

    def exceed(self, before: Leavings) -> bool:
        """Whether something came to what was open `before`."""
        return bool(self.tasks - before.tasks) or self.files > before.files


class Bench:
    """The means of one check; it closes all that was opened with them."""

    def __init__(self, subject: Subject) -> None:
        """Try `subject`."""
        self.subject = subject
        self._opened: list[Connection | Listener | Relay] = []
        self._tasks: list[asyncio.Task[Any]] = []

    # -- opening

    async def listen(self) -> Listener:
        """Return a listener of the receiver's."""
        return self._keep(await self.within(self.subject.receiver.listen(), "listen"))

    async def connect(self, address: str) -> Connection:
        """Return a connection of the sender's; whoever is there has to accept it."""
        connecting = self.subject.sender.connect(address, timeout_s=self.subject.patience_s)
        return self._keep(await self.within(connecting, "connect to a listener"))

    async def accept(self, listener: Listener) -> Connection:
        """Return the next connection of `listener`."""
        return self._keep(await self.within(listener.accept(), "accept somebody who connects"))

    async def pair(self) -> tuple[Connection, Connection]:
        """Return both ends of a new connection: who connected, who accepted."""
        return await self._pair(await self.listen())

    async def relayed_pair(self) -> tuple[Connection, Connection, Relay]:
        """Return both ends of a connection and what lies between them."""
        listener = await self.listen()
        relay = await self.relay(listener.address)
        ours, theirs = await self._pair(listener, relay.address)
        return ours, theirs, relay

    async def relay(self, address: str) -> Relay:
        """Return a relay in front of `address`."""
        assert self.subject.relay is not None, "the check says that it needs one"
        return self._keep(await self.subject.relay(address))

    async def _pair(self, listener: Listener, address: str = "") -> tuple[Connection, Connection]:
        return await both(
            self.connect(address or listener.address), self.accept(listener), "connect and accept"
        )

    def serve(self, listener: Listener) -> None:
        """Accept whoever comes, and give the first `TOKEN_BYTES` of each back."""
        self.start(self._serve(listener))

    async def _serve(self, listener: Listener) -> None:
        with contextlib.suppress(NetworkError):  # closed: the check is over
            while True:
                self.start(self._echo(self._keep(await listener.accept())))

    async def _echo(self, connection: Connection) -> None:
        with contextlib.suppress(PeerUnreachable, EOFError):  # gone, or a stranger
            await _read(connection, TOKEN_BYTES, token := bytearray())
            await connection.write(token)
            await _read(connection, 1, bytearray())
        await connection.close()

    async def meet(self, address: str, number: int, what: str) -> None:
        """Connect to a served address, and make sure that the right one answers."""
        token = number.to_bytes(TOKEN_BYTES)
        connection = await self.within(self.connect(address), what)
        await self.within(connection.write(token), f"{what}: write")
        await self.expect(connection, token, what)
        await connection.close()

    # -- waiting

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do `work` beside the check; it is cancelled when that ends."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def outcome(self, work: Coroutine[Any, Any, T] | asyncio.Task[T], what: str) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises:
            Nonconformity: If it does not end within the subject's patience.
        """
        task = work if isinstance(work, asyncio.Task) else self.start(work)
        await asyncio.wait([task], timeout=self.subject.patience_s)
        if not task.done():
            raise Nonconformity(f"{what}: not within {self.subject.patience_s:g} s")
        return task.result()

    async def within(self, work: Coroutine[Any, Any, T] | asyncio.Task[T], what: str) -> T:
        """Return what `work` returns, which has to succeed.

        Raises:
            Nonconformity: If it does not, or does not end within the subject's patience.
        """
        try:
            return await self.outcome(work, what)
        except ColodError as error:
            raise Nonconformity(f"{what}: {error!r}") from error

    async def waits(self, task: asyncio.Task[Any]) -> bool:
        """Whether `task` is still not done after a while."""
        await asyncio.wait([task], timeout=self.subject.quiet_s)
        for _ in range(_TURNS):  # this process may have stood still until now
            await asyncio.sleep(0)
        return not task.done()

    async def fails(
        self,
        work: Coroutine[Any, Any, object] | asyncio.Task[Any],
        error: type[ColodError],
        what: str,
    ) -> None:
        """Make sure that `work` ends with `error`.

        Raises:
            Nonconformity: If it ends otherwise, or not at all.
        """
        try:
            result = await self.outcome(work, what)
        except error:
            return
        except (Exception, asyncio.CancelledError) as other:
            if isinstance(other, Nonconformity):
                raise
            message = f"{what}: {other!r} where {error.__name__} is promised"
            raise Nonconformity(message) from other
        raise Nonconformity(f"{what}: returned {result!r} where {error.__name__} is promised")

    # -- bytes

    async def expect(self, connection: Connection, wanted: bytes, what: str) -> None:
        """Read as many bytes as `wanted` has, and make sure that they are the same.

        Raises:
            Nonconformity: If they are not, or fewer come.
        """
        got = bytearray()
        try:
            await self.outcome(_read(connection, len(wanted), got), f"{what}: read")
        except (EOFError, PeerUnreachable, Nonconformity) as error:
            _compare(got, wanted, what)
            come = f"{len(got)} of {len(wanted)} bytes had come"
            raise Nonconformity(f"{what}: {error!r}, when {come}") from error
        _compare(got, wanted, what)

    async def expect_end(self, connection: Connection, what: str) -> None:
        """Make sure that the stream has ended, and goes on to say so.

        Raises:
            Nonconformity: If it has not.
        """
        for _ in range(3):
            try:
                count = await self.outcome(_read_some(connection), f"{what}: read the end")
            except PeerUnreachable as error:
                raise Nonconformity(f"{what}: {error!r} where an end is promised") from error
            if count:
                raise Nonconformity(f"{what}: {count} more bytes where an end is promised")

    async def read_rest(self, connection: Connection) -> tuple[bytes, PeerUnreachable | None]:
        """Read to the end; return what came, and the error that it ended with, if it did."""
        got = bytearray()
        buffer = memoryview(bytearray(BLOCK_BYTES))
        try:
            while count := await self.outcome(connection.read_into(buffer), "read to the end"):
                got += buffer[:count]
        except PeerUnreachable as error:
            return bytes(got), error
        return bytes(got), None

    async def fill(self, connection: Connection) -> tuple[bytes, asyncio.Task[None]]:
        """Write until a write waits; return all that was given to write, and that write.

        Raises:
            Nonconformity: If more than `held_bytes` are taken that nobody reads.
        """
        given = bytearray()
        while len(given) <= self.subject.held_bytes:
            block = pattern(BLOCK_BYTES, f"block {len(given)}")
            given += block
            writing = self.start(connection.write(block))
            if await self.waits(writing):
                return bytes(given), writing
            writing.result()
        raise Nonconformity(
            f"a writer whose reader does not read: {len(given)} bytes were taken without waiting, "
            f"at most {self.subject.held_bytes} may be held"
        )

    # -- the end

    def leavings(self) -> Leavings:
        """Return what is open now."""
        return Leavings(asyncio.all_tasks(), sum(1 for _ in _OPEN_FILES.iterdir()))

    async def nothing_left(self, before: Leavings, what: str) -> None:
        """Wait until no more is open than `before`.

        Raises:
            Nonconformity: If some of it stays.
        """
        deadline = asyncio.get_running_loop().time() + self.subject.patience_s
        while (left := self.leavings()).exceed(before):
            if asyncio.get_running_loop().time() > deadline:
                tasks = ", ".join(repr(task.get_coro()) for task in left.tasks - before.tasks)
                files = left.files - before.files
                message = f"{what}: {files} descriptors and {tasks or 'no tasks'} are left"
                raise Nonconformity(message)
            await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """Cancel and close all that the check began."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for opened in reversed(self._opened):
            await opened.close()

    def _keep(self, opened: T) -> T:
        self._opened.append(opened)  # type: ignore[arg-type]
        return opened


async def both(
    first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any], what: str
) -> tuple[Any, Any]:
    """Return what both give; if one fails, the other is given up.

    Raises:
        Nonconformity: If one raises an error of colod's.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except ExceptionGroup as errors:
        known, unknown = errors.split((Nonconformity, ColodError))
        if unknown is not None or known is None:
            raise
        error = known.exceptions[0]
        if isinstance(error, Nonconformity):
            raise error from None
        raise Nonconformity(f"{what}: {error!r}") from error
    return tasks[0].result(), tasks[1].result()


def pattern(size_bytes: int, name: str) -> bytes:
    """Return bytes in which nothing can be lost, doubled or moved without being noticed."""
    return hashlib.shake_128(name.encode()).digest(size_bytes)


async def _read(connection: Connection, size_bytes: int, got: bytearray) -> None:
    """Read exactly `size_bytes` into `got`.

    Raises:
        EOFError: If the stream ends before.
    """
    buffer = memoryview(bytearray(size_bytes))
    while len(got) < size_bytes:
        count = await connection.read_into(buffer[len(got) :])
        if not count:
            raise EOFError("an end")
        got += buffer[len(got) : len(got) + count]


def _compare(got: bytearray, wanted: bytes, what: str) -> None:
    """Find the first byte in which `got` is not how `wanted` begins.

    Raises:
        Nonconformity: If there is one.
    """
    for at, (came, was) in enumerate(zip(got, wanted, strict=False)):
        if came != was:
            raise Nonconformity(
                f"{what}: byte {at} of {len(wanted)} is {came:#04x}, {was:#04x} was written: "
                "bytes were lost, doubled, changed or moved"
            )


async def _read_some(connection: Connection) -> int:
    return await connection.read_into(memoryview(bytearray(16)))
