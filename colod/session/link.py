"""The connection to the other session: frames both ways, signs of life, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from colod.errors import PeerUnreachable, StreamError
from colod.session.ending import Ending, said, say
from colod.session.pacing import shape
from colod.session.progress import UNKNOWN
from colod.session.report import Report
from colod.session.resuming import Resuming
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
_PATHS: Final = ("primary", "backup")
_WHY_CHARS: Final = 500
# Between two looks at a connection that seems silent.
_SECOND_LOOK_S = 0.05

PATH_SILENCE: Final = 0.5
"""Part of `silence_s` after which a connection is given up, where another one may take over.

The rest of it is the time to make that one, so both sides count each other as lost when they always
did: `silence_s` after this side was last heard, the other side may have given up on it.
"""

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
        self._word_due = asyncio.Event()
        self._is_greeting = True
        self._resuming: Resuming | None = None
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
        self._is_greeting = False

    @property
    def resuming(self) -> Resuming | None:
        """What mends the link, None where its first break is its end."""
        return self._resuming

    def mend_by(self, octets: int, *, path: int, changed: Callable[[], None]) -> Resuming:
        """Outlive the connection from now on, as both sides have agreed; `pump` comes next.

        Args:
            octets: Memory for what may have to be sent again.
            path: Index of the path that the connection goes over.
            changed: Called after each break and each mending.
        """
        made = Resuming(self._connection, octets, path=path, changed=changed)
        self._connection = self._resuming = made
        return made

    def take_over(self, other: Link, *, number: int, position: int, path: int) -> None:
        """Go on over the connection of `other`, on which both sides have greeted each other.

        Raises:
            PeerRefused, StreamError: As `Resuming.attach` does.
        """
        resuming = self._resuming
        assert resuming is not None
        may_wait_anew = resuming.has_heard
        resuming.attach(other._connection, number=number, position=position, path=path)
        self.shape = other.shape
        # A path on which a greeting passes and nothing else, as one of a smaller MTU, would else
        # be a link that is mended for ever.
        if may_wait_anew:
            self.heard_at = time.monotonic()

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
        if self._resuming is not None:
            await self._resuming.write(*parts)  # whole: it needs nobody to keep its turn
        else:
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
            wanted = self._decoder.wanted
            if self._is_greeting:  # what comes behind the greeting may be for another decoder
                wanted = wanted[: self._decoder.lacking_bytes]
            count = await self._connection.read_into(wanted)
            if not count:
                where = "between" if self._decoder.is_between_frames else "inside"
                message = f"{self.peer_address} ended the connection {where} frames"
                raise PeerUnreachable(message)
            self.heard_at = time.monotonic()
            self._decoder.received(count)
            if self._resuming is not None and self._resuming.is_word_due():
                self._word_due.set()

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
        """Wait until nothing was heard for `silence_s`, or a broken link was not mended in time.

        Raises:
            Ending: Then.
        """
        while True:
            rest = self.heard_at + silence_s - time.monotonic()
            if rest <= 0 and not self._is_paused:
                message = f"nothing heard from {self.peer_address} for {silence_s:g} s"
                raise Ending.peer_lost("peer.silent", message)
            self._check_mended(silence_s)
            step = silence_s / 10
            # A break may come at any time, and has a bound of its own.
            await asyncio.sleep(step if self._resuming is not None else max(rest, step))

    def _check_mended(self, silence_s: float) -> None:
        """Check that a broken link is still to be mended.

        The other side may have given a connection up on which it has heard nothing for
        PATH_SILENCE of `silence_s`: what is left of that is all the time there is.

        Raises:
            Ending: If that has passed.
        """
        resuming = self._resuming
        if resuming is None or resuming.broken_at is None or self._is_paused:
            return
        if time.monotonic() >= resuming.broken_at + silence_s * (1 - PATH_SILENCE):
            message = f"no other connection to {self.peer_address} was made in time"
            raise Ending.peer_lost("peer.unreachable", f"{message}: {resuming.why}")

    async def beat(self, interval_s: float, is_daemon_up: Callable[[], bool]) -> None:
        """Send a PING every `interval_s`, and the PONGs that are due; never returns.

        Raises:
            PeerUnreachable: If the connection broke.
        """
        next_ping = 0.0
        while True:
            self.check_awake()
            flags = DAEMON_UP if is_daemon_up() else 0
            is_due = time.monotonic() >= next_ping
            await self._tell_received(at_all=is_due)
            if is_due:
                next_ping = time.monotonic() + interval_s
            if is_due and not self.is_broken:  # a sign of life that is kept for later is none
                token = time.monotonic_ns() // 1000
                await self.send(FrameType.PING, PING_BODY.pack(flags, token))
            if self._pong is not None and not self.is_broken:
                token, self._pong = self._pong, None
                await self.send(FrameType.PONG, PING_BODY.pack(flags, token))
            self._word_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_ping - time.monotonic())):
                    await self._word_due.wait()

    @property
    def is_broken(self) -> bool:
        """Whether there is no connection now, and another one may take over."""
        return self._resuming is not None and not self._resuming.is_attached

    async def _tell_received(self, *, at_all: bool) -> None:
        """Tell the other side what has come, so that it need not keep that any more."""
        resuming = self._resuming
        if resuming is not None and resuming.is_attached and resuming.is_word_due(at_all=at_all):
            await self.send(FrameType.RECEIVED, epoch=resuming.word())

    async def patrol(self, silence_s: float) -> None:
        """Give up each connection on which nothing was heard for `silence_s`; never returns.

        Raises:
            PeerUnreachable: Once no other one may take over.
        """
        resuming = self._resuming
        assert resuming is not None
        while True:
            rest = max(self.heard_at, resuming.attached_at) + silence_s - time.monotonic()
            if rest <= 0 and not self._is_paused and resuming.is_attached:
                await asyncio.sleep(_SECOND_LOOK_S)  # what has come may only wait to be read
                if max(self.heard_at, resuming.attached_at) + silence_s <= time.monotonic():
                    resuming.drop(f"nothing heard for {silence_s:g} s over {self.peer_address}")
            await asyncio.sleep(max(rest, silence_s / 10))

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
                self._word_due.set()
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
            case FrameType.RECEIVED if self._resuming is not None:
                try:
                    self._resuming.confirm(frame.epoch)
                except StreamError as error:
                    raise Ending.failed("session.protocol", str(error)) from error
            case _:
                return False
        return True

    async def say_goodbye(self, kind: FrameType, code: str, reason: str) -> None:
        """Send CLOSE or ABORT as the last frame and give the other side time to read it."""
        frame = encode(kind, say(code, reason), generation=self._generation)
        self.let_be_last()
        with contextlib.suppress(PeerUnreachable, StreamError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self.send_all((frame,))
                while True:  # closing with unread bytes would make TCP drop what we said
                    await self.receive()
        await self.close()

    def let_be_last(self) -> None:
        """Let no other connection take over: what is said now is the last word."""
        if self._resuming is not None:
            self._resuming.let_be_last()

    async def stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Cancel work on this link, between two frames if the other side takes them."""
        try:
            # A write that is cancelled would leave half a frame, and nothing could be said after.
            async with asyncio.timeout(_GOODBYE_S), self._writing:
                cancel(tasks)
        except TimeoutError:
            cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> types_pb2.SessionLink:
        """Return what is known of the connection."""
        held, resuming = self.shape, self._resuming
        status = types_pb2.SessionLink(rate_bytes_per_s=held.bytes_per_s, rate_by=held.by)
        if held.dscp is not None:
            status.dscp = held.dscp
        if resuming is not None:
            status.may_resume = True
            status.path = _PATHS[resuming.path] if resuming.is_attached else ""
            status.resumed, status.broken_by = resuming.resumed, resuming.why[:_WHY_CHARS]
            status.kept_bytes = resuming.kept_bytes
            if resuming.broken_at is not None:
                status.broken_s = time.monotonic() - resuming.broken_at
        return status

    async def close(self) -> None:
        """Close the connection; whoever waits for it fails."""
        await self._connection.close()


def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel all of `tasks`, and wait for none."""
    for task in tasks:
        task.cancel()
