"""The connection to the other session: frames both ways, signs of life, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from colod.errors import PeerUnreachable, StreamError
from colod.session.ending import Ending, said, say
from colod.session.pacing import shape
from colod.session.progress import UNKNOWN
from colod.session.report import Report
from colod.session.spec import SessionSpec
from colod.stream.frames import (
    DAEMON_UP,
    PING_BODY,
    Buffer,
    Frame,
    FrameDecoder,
    FrameType,
    Welcome,
    encode,
    encode_header,
)
from colod.transport.base import Connection
from colod.v1 import types_pb2

# Time in which the other side may still read what it was told last.
_GOODBYE_S = 2.0
# After a write failed: time in which its reason, sent by the other side before, may be read.
_REASON_S = 1.0

_log = logging.getLogger(__name__)

OnFrame = Callable[[Frame], Awaitable[None]]


class Link:
    """Frames over one connection."""

    def __init__(self, connection: Connection, generation: int, bytes_per_s: int = 0) -> None:
        """Take over `connection`, whose other end is not known yet.

        Args:
            connection: As the transport made it.
            generation: Put into each frame, and demanded of each.
            bytes_per_s: Most that is sent, 0 for as fast as it goes.
        """
        self._connection, self.shape = shape(connection, bytes_per_s)
        self._generation = generation
        self._decoder = FrameDecoder(may_bring_data=False)
        self._writing = asyncio.Lock()
        self._pong: int | None = None
        self._pong_due = asyncio.Event()
        self._is_paused = False
        self._turn_at = time.monotonic()
        self._stall_s = float("inf")
        self._stood_still = ""
        self.heard_at = time.monotonic()
        self.rtt_s = UNKNOWN
        self.capabilities: tuple[str, ...] = ()
        self.digest = ""

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        return self._connection.peer_address

    def trust(self, welcome: Welcome) -> None:
        """Let DATA in: the other side has proved who it is, and agreed to `welcome`."""
        self._decoder.may_bring_data = True
        self.agree(welcome)

    def agree(self, welcome: Welcome) -> None:
        """Keep what both sides have agreed on."""
        self.capabilities, self.digest = welcome.capabilities, welcome.digest

    async def send(self, kind: FrameType, payload: Buffer = b"", *, epoch: int = 0) -> None:
        """Send one frame; return when `payload` may be reused.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        await self.send_all((self.header(kind, epoch, len(payload)), payload))

    def header(self, kind: FrameType, epoch: int, payload_bytes: int) -> bytes:
        """Return the header of a frame for `send_all`."""
        return encode_header(
            kind, generation=self._generation, epoch=epoch, payload_bytes=payload_bytes
        )

    async def send_all(self, parts: Sequence[Buffer]) -> None:
        """Send whole frames; return when their payloads may be reused.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        async with self._writing:
            await self._connection.write(*parts)
        await asyncio.sleep(0)  # a connection that is always writable must not starve the rest

    async def receive(self) -> Frame:
        """Return the next frame.

        Raises:
            PeerUnreachable: If the connection ended or broke.
            StreamError: If what came is no frame.
        """
        while True:
            if frame := self._decoder.next():
                return self._checked(frame)
            await asyncio.sleep(0)  # a connection that is always readable must not starve the rest
            count = await self._connection.read_into(self._decoder.wanted)
            if not count:
                where = "between" if self._decoder.is_between_frames else "inside"
                message = f"{self.peer_address} ended the connection {where} frames"
                raise PeerUnreachable(message)
            self.heard_at = time.monotonic()
            self._decoder.received(count)

    def _checked(self, frame: Frame) -> Frame:
        if frame.generation != self._generation:
            message = f"{frame.type.name} of generation {frame.generation}, not {self._generation}"
            raise StreamError(message, offset=0)
        return frame

    def pause(self) -> None:
        """Stop to judge silence: this side does not read for now."""
        self._is_paused = True

    def resume(self) -> None:
        """Judge silence again, from now on."""
        self._is_paused = False
        self.heard_at = time.monotonic()

    def expect_turns(self, limit_s: float) -> None:
        """Take this process for one that stood still where it does nothing for `limit_s`."""
        self._turn_at, self._stall_s = time.monotonic(), limit_s

    def check_awake(self) -> None:
        """Check that this process did not stand still; to be asked before anything irrevocable.

        A host whose dom0 was stopped for a while wakes up with old words of its peer in its
        buffers: by those it would let the guest run, which may run on the other host by now.

        Raises:
            Ending: If it did, once and for all.
        """
        now = time.monotonic()
        gap_s, self._turn_at = now - self._turn_at, now
        if gap_s > self._stall_s:
            self._stood_still = f"this host stood still for {gap_s:.1f} s"
        if self._stood_still:
            raise Ending.peer_lost("session.stood_still", self._stood_still)

    async def watch(self, silence_s: float) -> None:
        """Wait until nothing was heard for `silence_s`.

        Raises:
            Ending: Then.
        """
        while True:
            rest = self.heard_at + silence_s - time.monotonic()
            if rest <= 0 and not self._is_paused:
                message = f"nothing heard from {self.peer_address} for {silence_s:g} s"
                raise Ending.peer_lost("peer.silent", message)
            await asyncio.sleep(max(rest, silence_s / 10))

    async def beat(self, interval_s: float, is_daemon_up: Callable[[], bool]) -> None:
        """Send a PING every `interval_s`, and the PONGs that are due; never returns.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        next_ping = 0.0
        while True:
            self.check_awake()
            flags = DAEMON_UP if is_daemon_up() else 0
            if time.monotonic() >= next_ping:
                next_ping = time.monotonic() + interval_s
                token = time.monotonic_ns() // 1000
                await self.send(FrameType.PING, PING_BODY.pack(flags, token))
            if self._pong is not None:
                token, self._pong = self._pong, None
                await self.send(FrameType.PONG, PING_BODY.pack(flags, token))
            self._pong_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_ping - time.monotonic())):
                    await self._pong_due.wait()

    async def listen(self, report: Report, on_frame: OnFrame) -> None:
        """Read frames, answer those that are about the connection, and pass on the others.

        Raises:
            Ending: When the other side said that it ends, or broke a rule.
            PeerUnreachable: If the connection ended without a word.
        """
        while True:
            try:
                frame = await self.receive()
            except StreamError as error:
                raise Ending.failed("session.protocol", str(error)) from error
            self.check_awake()
            if not self._take(frame, report):
                await on_frame(frame)

    def _take(self, frame: Frame, report: Report) -> bool:
        """Deal with a frame that is about the connection; tell whether it was one."""
        match frame.type:
            case FrameType.PING:
                flags, self._pong = PING_BODY.unpack(frame.payload)
                report.set_peer_daemon_up(bool(flags & DAEMON_UP))
                self._pong_due.set()
            case FrameType.PONG:
                flags, token = PING_BODY.unpack(frame.payload)
                self.rtt_s = max(0.0, (time.monotonic_ns() // 1000 - token) / 1e6)
                report.set_peer_daemon_up(bool(flags & DAEMON_UP))
            case FrameType.CLOSE:
                code, reason = said(frame.payload)
                raise Ending.peer_lost(f"peer.{code}", reason)
            case FrameType.ABORT:
                code, reason = said(frame.payload)
                raise Ending.failed(f"peer.{code}", reason)
            case _:
                return False
        return True

    async def say_goodbye(self, kind: FrameType, code: str, reason: str) -> None:
        """Send CLOSE or ABORT as the last frame and give the other side time to read it."""
        frame = encode(kind, say(code, reason), generation=self._generation)
        with contextlib.suppress(PeerUnreachable, StreamError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                async with self._writing:
                    await self._connection.write(frame)
                while True:  # closing with unread bytes would make TCP drop what we said
                    await self.receive()
        await self.close()

    async def stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Cancel work on this link, between two frames if the other side takes them."""
        try:
            # A write that is cancelled would leave half a frame, and nothing could be said after.
            async with asyncio.timeout(_GOODBYE_S), self._writing:
                _cancel(tasks)
        except TimeoutError:
            _cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> types_pb2.SessionLink:
        """Return what is known of the connection."""
        held = self.shape
        known = {} if held.dscp is None else {"dscp": held.dscp}
        return types_pb2.SessionLink(rate_bytes_per_s=held.bytes_per_s, rate_by=held.by, **known)

    async def close(self) -> None:
        """Close the connection; whoever waits for it fails."""
        await self._connection.close()


async def live(
    link: Link,
    spec: SessionSpec,
    report: Report,
    *,
    on_frame: OnFrame,
    is_daemon_up: Callable[[], bool],
    others: Sequence[Coroutine[Any, Any, None]] = (),
) -> Ending:
    """Keep the link alive and return how it ended.

    Args:
        link: To a peer that has proved who it is.
        spec: The session's.
        report: Where the peer's word on its daemon is noted.
        on_frame: Takes each frame that is not about the connection.
        is_daemon_up: Whether this side's daemon is there.
        others: What else is done for as long as the link lives; it may end the link by raising.
    """
    link.expect_turns(spec.silence_s)
    work = (
        link.listen(report, on_frame),
        _lenient(link.beat(spec.ping_interval_s, is_daemon_up)),
        link.watch(spec.silence_s),
        *(_lenient(other) for other in others),
    )
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ending = _ending_of(next(task for task in tasks if task in done))
        if ending.is_unheard:
            # A write to a dead link stands still, while the other host may be taking the guest
            # over: whoever has to know of this end must not wait for the end of a frame.
            _cancel(tasks)
        return ending
    finally:
        await link.stop(tasks)


async def _lenient(work: Coroutine[Any, Any, None]) -> None:
    """Let a failed write wait for the reader, which may find out why."""
    try:
        await work
    except PeerUnreachable:
        await asyncio.sleep(_REASON_S)
        raise


def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _ending_of(task: asyncio.Task[None]) -> Ending:
    error = task.exception()
    if isinstance(error, Ending):
        return error
    if isinstance(error, PeerUnreachable):
        return Ending.peer_lost("peer.unreachable", str(error))
    assert error is not None, "work for a link only ends by raising"
    raise error
