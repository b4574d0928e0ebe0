"""The primary's session: libxl's stream in, frames out, xl's return channel back.

xl runs it as its transport command, so it holds xl's pipes by birth. When the peer is lost it stops
reading, xl stays blocked, and the guest stops at its next checkpoint until ownership is settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from colod.errors import PeerRefused, PeerUnreachable, StreamError, VersionMismatch
from colod.measures import Measures
from colod.output.kinds import label_of, make_plugs
from colod.session.deltas import agreed, make_encoder, offer, warm_up
from colod.session.ending import Ending, State
from colod.session.holding import Holding
from colod.session.intake import Intake
from colod.session.link import Link
from colod.session.living import live
from colod.session.mending import Caller, Route, mend
from colod.session.pipes import PIPE_BYTES, Pipe
from colod.session.process import Watched
from colod.session.progress import Progress
from colod.session.quiesce import Quiesce
from colod.session.rebooting import RebootWatch
from colod.session.sending import Sending
from colod.session.session import Session
from colod.session.spec import SessionSpec
from colod.session.wire import DeltaWire, PlainWire, Wire
from colod.stream.events import Event
from colod.stream.frames import Frame, FrameType
from colod.transport.base import Transport
from colod.v1 import types_pb2

_ATTEMPT_S = 5.0
_BETWEEN_ATTEMPTS_S = 0.25
_INIT = 1  # whose child a process becomes when its parent has ended
# Between xl's death and the end of its pipe: its save helper notices, and closes the other copy.
_HELPER_S = 2.0
_RETURN_FRAMES = 64
_ACK_LOOK_S = 1.0

_log = logging.getLogger(__name__)


class Sender(Session):
    """Carries one guest's epochs to the other host."""

    def __init__(
        self,
        spec: SessionSpec,
        directory: Path,
        transport: Transport,
        backup: Transport | None = None,
    ) -> None:
        """Prepare; nothing is touched before `run`. `backup` is of the second path, if any."""
        super().__init__(spec, directory)
        routes = [Route(transport, spec.address)]
        if backup is not None and spec.backup_address:
            routes.append(Route(backup, spec.backup_address))
        self._caller = Caller(spec, routes)
        self._sending = Sending(self._on_event)
        self._plugs = make_plugs(spec.gate, label_of(spec.guest, spec.pairing))
        self._holding: Holding | None = None
        self._intake: Intake | None = None
        self._returned: asyncio.Queue[bytearray] = asyncio.Queue(_RETURN_FRAMES)

    def progress(self, now: float) -> Progress:
        """Return how far replication has come."""
        progress = self._sending.progress(now)
        if self._intake is not None:
            self._intake.report(progress, now)
        return progress

    def gate(self) -> types_pb2.Gate | None:
        """Return how the guest's output is held, None where it is not."""
        return None if self._holding is None else self._holding.status()

    def quiesce(self) -> Quiesce | None:
        """Return what keeps the final checkpoint's window, None where no window is known."""
        return None if self._holding is None else self._holding.quiesce

    def measures(self) -> Measures:
        """Return what was measured of every epoch."""
        return self._sending.measures

    async def work(self) -> None:
        """Connect, then relay until something ends it."""
        stdin, stdout = Pipe(0), Pipe(os.dup(1))  # only the process's exit closes them
        os.dup2(2, 1)  # nothing but the return channel may reach xl
        self.spawn(self._watch_toolstack())
        rebooting = RebootWatch(self.spec, self.report, lambda: self.control.has_clients)
        self.spawn(rebooting.run())
        self.spawn(self._write_returned(stdout))
        await self._hold(stdin)
        intake = self._intake = self._reserve()
        await asyncio.to_thread(warm_up, self.spec.deltas)
        self.link = await self._connect()
        self._sending.use_digest(self.link.digest)
        self.report.set_peer_connected(True)
        self.report.advance(State.SYNCING)
        mending = (mend(self.link, self._caller),) if self.link.resuming else ()
        ending = await live(
            self.link,
            self.spec,
            self.report,
            on_frame=self._on_frame,
            is_daemon_up=lambda: self.control.has_clients,
            others=(
                intake.drain(stdin, self.link.check_awake),
                self._transmit(intake, self.link),
                self._watch_acks(),
                self.until_over(),
                *mending,
                *self._besides(self.link),
            ),
        )
        self.ended(ending)
        await self._part(self.link, ending)
        self.report.set_peer_connected(False)

    def _besides(self, link: Link) -> Sequence[Coroutine[Any, Any, None]]:
        """Return what else is done for as long as the link lives."""
        return ()

    # -- connecting

    async def _connect(self) -> Link:
        """Return a link to the right receiver; try again for as long as nobody answers."""
        deadline = time.monotonic() + self.spec.connect_timeout_s
        while True:
            try:
                link, path = await self._caller.first(min(_ATTEMPT_S, self.spec.connect_timeout_s))
            except (PeerUnreachable, TimeoutError) as error:
                if time.monotonic() >= deadline:
                    message = f"cannot reach {self.spec.peer}: {error}"
                    raise Ending.peer_lost("peer.unreachable", message) from error
                _log.info("peer.unreachable error=%r", str(error))
                await asyncio.sleep(_BETWEEN_ATTEMPTS_S)
            except (PeerRefused, VersionMismatch, StreamError) as error:
                code = error.code if not isinstance(error, StreamError) else "session.protocol"
                raise Ending.failed(code, str(error)) from error
            else:
                self.outlive_breaks(link, path)
                return link

    # -- replicating

    async def _hold(self, stdin: Pipe) -> None:
        """Make the gate ready, if the guest has one."""
        if self._plugs is None:
            return
        holding = Holding(
            self._plugs, stdin, PIPE_BYTES, self._changed, measures=self._sending.measures
        )
        await holding.prepare()
        self._holding = holding
        self.spawn(holding.run())
        self.spawn(holding.watch())

    def _reserve(self) -> Intake:
        """Reserve the memory that the session may use."""
        octets = self.spec.staging_bytes
        try:
            return Intake(self._sending, octets, self._holding)
        except (OSError, OverflowError) as error:
            message = f"staging_bytes = {octets}: {error}"
            raise Ending.failed("session.memory", message) from error

    async def _transmit(self, intake: Intake, link: Link) -> None:
        await intake.transmit(await self._wire(link))

    async def _wire(self, link: Link) -> Wire:
        """Return the way in which both sides agreed to carry the stream."""
        offered = offer(self.spec.deltas)
        terms = agreed(offered, link.capabilities)
        if terms is None:
            return PlainWire(link, self._sending)
        try:
            encoder = await asyncio.to_thread(make_encoder, self.spec.deltas, terms)
        except (OSError, MemoryError) as error:
            raise Ending.failed("session.memory", f"no page store: {error}") from error
        return DeltaWire(link, self._sending, encoder)

    async def _watch_acks(self) -> None:
        """End replication where the other host lives, but its xl takes nothing any more.

        The receiver goes on giving signs of life, and the guest would be mute for ever. What counts
        is this process's own looks: one that stood still has not waited.

        Raises:
            Ending: Once the same epoch has waited for `ack_timeout_s`.
        """
        limit_s, waits_for, waited_s = self.spec.ack_timeout_s, 0, 0.0
        step_s = min(_ACK_LOOK_S, limit_s / 4)
        while waited_s < limit_s:
            await asyncio.sleep(step_s)
            oldest = self._sending.unacked_epoch
            is_same = oldest > 1 and oldest == waits_for  # a first copy may take its time
            waits_for, waited_s = oldest, waited_s + step_s if is_same else 0.0
        message = f"{self.spec.peer} has not acknowledged epoch {waits_for} within {limit_s:g} s"
        raise Ending.peer_lost("peer.stalled", f"{message}: its xl seems to hang")

    def _on_event(self, event: Event) -> None:
        if self._holding is not None:
            self._holding.on_event(event)

    async def _on_frame(self, frame: Frame) -> None:
        if frame.type is FrameType.ACK:
            self._sending.acknowledged(frame.epoch, time.monotonic())
            if self._holding is not None:
                self._holding.acknowledged(frame.epoch)
            self.report.advance(State.REPLICATING)
            self.control.publish_soon()
        elif frame.type is FrameType.RETURN and not self._returned.full():
            self._returned.put_nowait(frame.payload)
        else:
            message = f"{frame.type.name} from the receiver, more than xl reads or out of place"
            raise Ending.failed("session.protocol", message)

    async def _write_returned(self, stdout: Pipe) -> None:
        while True:
            part = await self._returned.get()
            with contextlib.suppress(OSError):  # xl has stopped to listen: nothing depends on it
                await stdout.write([part])

    # -- endings

    async def _part(self, link: Link, ending: Ending) -> None:
        """Tell the receiver what it has to know, and hear what it still has to say."""
        if ending.state is State.FINISHED:
            await link.say_goodbye(FrameType.CLOSE, "released", str(ending))
        elif ending.state is State.TOOLSTACK_LOST:
            await self._hear_out(link)
        elif ending.state is State.FAILED and not ending.code.startswith("peer."):
            await link.say_goodbye(FrameType.ABORT, ending.abort_code, str(ending))
        await link.close()

    async def _hear_out(self, link: Link) -> None:
        """Say that the host is alive, and book the ACKs of what was sent before."""
        with contextlib.suppress(PeerUnreachable, TimeoutError, Ending):
            async with asyncio.timeout(self.spec.silence_s):
                link.let_be_last()
                await link.send(FrameType.CLOSE, b"toolstack_lost: xl or the guest has ended")
                await link.listen(self.report, self._on_frame)

    async def _watch_toolstack(self) -> None:
        """Notice the end of xl, our parent, also while its pipe is not read."""
        try:
            xl = watched_parent()
        except ProcessLookupError:
            raise Ending.toolstack_lost("xl was gone before the session began") from None
        self.report.set_toolstack(xl.pid)
        await xl.ended()
        xl.close()
        self.report.set_toolstack(0)
        await asyncio.sleep(_HELPER_S)  # the pipe's own end tells more, if it is being read
        raise Ending.toolstack_lost("xl has ended")


def watched_parent() -> Watched:
    """Watch the process that started us.

    Raises:
        ProcessLookupError: If it has ended, also if init has adopted us since.
    """
    if (parent := os.getppid()) == _INIT:
        raise ProcessLookupError(parent)
    return Watched(parent)
