"""What all services on ports share: their life, who is ended for what, and where defects go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from colod.errors import NotAllowedNow, PeerRefused, StreamError
from colod.output.colo.ports import Address, Port, PortOptions

_log = logging.getLogger(__name__)

_MOST_READS = 1024
"""More than any socket's buffer can hold: who fills it meanwhile is not suspended."""


class Serving:
    """The ports of one service.

    Attributes:
        malformed: How many connections were ended for what came by them, by port.
        busy_s: Processor time spent in callbacks, in seconds.
    """

    def __init__(self) -> None:
        """Begin without ports."""
        self.malformed: Counter[str] = Counter()
        self.busy_s = 0.0
        self._ports: list[Port] = []
        self._failed: asyncio.Future[None] | None = None

    @property
    def connected(self) -> frozenset[str]:
        """Which ports have a connection."""
        return frozenset(each.name for each in self._ports if each.is_connected)

    @property
    def addresses(self) -> dict[str, Address]:
        """Where each port listens, or connects to."""
        return {each.name: each.address for each in self._ports}

    @property
    def refused(self) -> Counter[str]:
        """How many connections were refused, by port."""
        return Counter({each.name: each.refused for each in self._ports if each.refused})

    def add(
        self,
        name: str,
        options: PortOptions,
        begin: Callable[[], object],
        take: Callable[[], object],
    ) -> Port:
        """Return a new port.

        Args:
            name: For logs and counts.
            options: Where it is.
            begin: Called when a connection begins.
            take: Called when there is something to read; it reads by `reading`.
        """
        port = Port(name, options, self.safely(begin), self.safely(take))
        self._ports.append(port)
        return port

    def open(self) -> None:
        """Listen.

        Raises:
            NetworkError: If one address cannot be listened on; then none is.
        """
        self._failed = asyncio.get_running_loop().create_future()
        try:
            for each in self._ports:
                each.open()
        except BaseException:
            self.close()
            raise

    async def run(self) -> None:
        """Serve until cancelled; end with whatever defect of ours a callback had."""
        assert self._failed is not None, "open() was not called"
        tasks = [
            asyncio.create_task(each.run(), name=f"colo-{each.name}")
            for each in self._ports
            if each.is_dialled
        ]
        for each in tasks:
            each.add_done_callback(self._ended)
        try:
            await self._failed
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """End all connections."""
        for each in self._ports:
            each.close()

    @contextmanager
    def reading(self, port: Port, gone: Callable[[], None]) -> Iterator[bytes | None]:
        """Read from a port; end its connection, and call `gone`, if it ends or makes no sense."""
        try:
            octets = port.read()
            if octets == b"":
                self._end(port, gone)
                octets = None
            yield octets
        except (StreamError, PeerRefused, NotAllowedNow) as error:
            self.malformed[port.name] += 1
            _log.warning("colo.malformed port=%s %s", port.name, error)
            self._end(port, gone)

    def safely(self, what: Callable[[], object]) -> Callable[[], None]:
        """Return a callback that is timed, and whose defects end `run`."""

        def call() -> None:
            begin = time.thread_time()
            try:
                what()
            except Exception as error:
                self._fail(error)
            finally:
                self.busy_s += time.thread_time() - begin

        return call

    def _end(self, port: Port, gone: Callable[[], None]) -> None:
        port.disconnect()
        _log.info("colo.disconnected port=%s", port.name)
        gone()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        assert self._failed is not None
        if not self._failed.done():
            self._failed.set_exception(error)


def drain(take: Callable[[], bool]) -> bool:
    """Take in all that the kernel has of a port; False if that has no end.

    Args:
        take: Reads once; returns whether there was something.
    """
    return any(not take() for _ in range(_MOST_READS))
