"""colod.session.pacing: what keeps a link to its rate where the kernel cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.session.link import Link
from colod.session.pacing import Bucket, PacedConnection, Shape, shape
from colod.transport.base import Buffer


class Memory:
    """A connection that keeps what is written, and when."""

    peer_address = "memory"

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.written: list[tuple[float, bytes]] = []
        self.is_closed = False
        self._clock = clock

    async def read_into(self, buffer: memoryview) -> int:
        buffer[0] = 7
        return 1

    async def write(self, *parts: Buffer) -> None:
        self.written.append((self._clock(), b"".join(parts)))

    async def finish(self) -> None:
        pass

    async def close(self) -> None:
        self.is_closed = True


class Socket(Memory):
    """One that has a socket, whose kernel may pace."""

    def __init__(self, *, can_pace: bool) -> None:
        super().__init__()
        self._can_pace = can_pace
        self.rate = 0

    @property
    def dscp(self) -> int | None:
        return 18

    def pace(self, bytes_per_s: int) -> bool:
        self.rate = bytes_per_s
        return self._can_pace


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, duration_s: float) -> None:
        self.now += duration_s
        await asyncio.sleep(0)


@given(st.integers(125_000, 10**9), st.lists(st.lists(st.integers(0, 40_000), max_size=4)))
async def test_no_time_sees_more_than_the_rate_and_nothing_is_changed(
    rate: int, writes: list[list[int]]
) -> None:
    time = Time()
    memory = Memory(time)
    paced = PacedConnection(memory, rate, clock=time, sleep=time.sleep)
    wanted = b""
    for write in writes:
        parts = [bytes([index % 251]) * size for index, size in enumerate(write)]
        wanted += b"".join(parts)
        await paced.write(*parts)
    assert b"".join(part for _, part in memory.written) == wanted
    burst = max(4096, int(rate * 0.02))
    sent = 0
    for at, part in memory.written:
        sent += len(part)
        assert sent <= burst + rate * (at - 100.0) * 1.000001 + 1


async def test_a_long_write_is_never_silent_for_long() -> None:
    time = Time()
    memory = Memory(time)
    paced = PacedConnection(memory, 125_000, clock=time, sleep=time.sleep)
    await paced.write(bytes(1 << 20))
    times = [at for at, _ in memory.written]
    assert max(b - a for a, b in pairwise(times)) < 0.05


async def test_a_write_that_is_cancelled_leaves_the_connection_closed() -> None:
    memory = Memory()
    paced = PacedConnection(memory, 125_000)
    writing = asyncio.create_task(paced.write(bytes(10 << 20)))
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert memory.is_closed


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    bucket = Bucket(1000.0, 100.0, 0.0)
    assert bucket.take(100, 50.0) == 0.0
    assert bucket.take(100, 50.0) == pytest.approx(0.1)
    assert bucket.take(100, 1000.0) == 0.0


def test_the_kernel_paces_where_it_says_that_it_does_and_the_session_elsewhere() -> None:
    willing, unwilling, plain = Socket(can_pace=True), Socket(can_pace=False), Memory()
    assert shape(willing, 10**6) == (willing, Shape(18, 10**6, "kernel"))
    assert willing.rate == 10**6
    connection, held = shape(unwilling, 10**6)
    assert isinstance(connection, PacedConnection)
    assert held == Shape(18, 10**6, "session")
    assert shape(plain, 10**6)[1] == Shape(None, 10**6, "session")


def test_without_a_limit_the_connection_is_left_as_it_is() -> None:
    plain, marked = Memory(), Socket(can_pace=True)
    assert shape(plain, 0) == (plain, Shape())
    assert shape(marked, 0) == (marked, Shape(18))
    assert marked.rate == 0


def test_a_link_tells_what_holds_and_not_what_was_asked_for() -> None:
    status = Link(Socket(can_pace=True), 1, 125_000).status()
    assert (status.dscp, status.rate_bytes_per_s, status.rate_by) == (18, 125_000, "kernel")
    unknown = Link(Memory(), 1).status()
    assert (unknown.HasField("dscp"), unknown.rate_bytes_per_s, unknown.rate_by) == (False, 0, "")
