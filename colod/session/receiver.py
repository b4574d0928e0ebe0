"""The secondary's session: frames in, whole epochs to `xl migrate-receive`, acknowledgements back.

It starts xl and holds its pipes. The end of xl's input makes xl let the copy go, so the input stays
open, whatever happens to the sender, until the daemon says HandOver or Release; and before xl gets
anything that it could start, a pause reference of our own holds the copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Final

from colod.errors import NetworkError, PeerUnreachable, ToolstackError
from colod.session.admission import Admission
from colod.session.deltas import warm_up
from colod.session.ending import Ending, State
from colod.session.keeping import Keeping
from colod.session.link import Link
from colod.session.living import live
from colod.session.pipes import Pipe
from colod.session.process import Watched, run_bounded, start_ticks
from colod.session.progress import Progress
from colod.session.protocol import TOOLSTACK_FILE
from colod.session.receiving import Handing, Receiving
from colod.session.session import Session
from colod.session.spec import SessionSpec
from colod.session.unfolding import Unfolding, unfolding
from colod.stream.frames import MAX_CONTROL_BYTES, Frame, FrameType
from colod.transport.base import Listener, Transport
from colod.v1 import session_pb2

_EXISTS_S = 10.0
_PAUSE_S = 30.0
_POLL_S = 0.2
_AT_ONCE: Final = 64
_SHORT_BYTES: Final = 16 << 10
"""So many epochs, none longer than that, are handed to xl and acknowledged at one go."""
_PAUSE_FAILED = "Pausing domain"
"""In libxl's error when the hypercall failed. Source: Xen tools/libs/light/libxl_domain.c."""

_log = logging.getLogger(__name__)


class Receiver(Session):
    """Keeps one guest's copy up to date on this host."""

    def __init__(
        self,
        spec: SessionSpec,
        directory: Path,
        transport: Transport,
        backup: Transport | None = None,
    ) -> None:
        """Prepare; nothing is touched before `run`. `backup` is of the second path, if any."""
        super().__init__(spec, directory)
        self._transport, self._backup = transport, backup
        self._receiving = Receiving(spec.staging_bytes)
        self._unfolding: Unfolding | None = None
        self._keeping = Keeping(spec, directory)
        self._handings: asyncio.Queue[Handing] = asyncio.Queue()  # bounded by Receiving.has_room
        self._room = asyncio.Event()
        self._begun = asyncio.Event()
        self._tail_at: float | None = None
        self._paused = asyncio.Event()
        self._parted = asyncio.Event()
        self._is_handing_over = False
        self._xl: Watched | None = None
        self._xl_input: Pipe | None = None
        self._held_over: Handing | None = None

    def progress(self, now: float) -> Progress:
        """Return how far replication has come."""
        return self._receiving.progress(now)

    def image(self, now: float) -> session_pb2.ReplicaImage | None:
        """Return how the image of the replica stands, None where none is kept."""
        return self._keeping.status(now)

    def export_image(self, command: session_pb2.SessionCommand.ExportImage) -> str:
        """Begin to write an image of the replica; return why not, or nothing."""
        if self._is_handing_over:
            return "the replica is being promoted"
        return self._keeping.export(command)

    async def work(self) -> None:
        """Start xl, let the sender in, and follow it until something ends that."""
        try:
            await asyncio.to_thread(warm_up, self.spec.deltas)
            self._keeping.start()
            output = await self._start_xl()
            admission = Admission(self.spec, await self._listen())
            self.link = await admission.sender()
            self.outlive_breaks(self.link, admission.path)
            self._receiving.use_digest(self.link.digest)
            self.spawn(self._return(output, self.link))
            await self._follow(self.link, admission)
        finally:
            self._parted.set()

    async def _listen(self) -> list[Listener]:
        """Listen on every path; the second one may be missing, the first may not.

        Raises:
            NetworkError: If the first one cannot be used.
        """
        listeners: list[Listener] = [await self._transport.listen()]
        if self._backup is not None:
            try:
                listeners.append(await self._backup.listen())
            except NetworkError as error:
                _log.warning("backup.unusable error=%r", str(error))
        self.report.set_listen_addresses([each.address for each in listeners])
        return listeners

    async def _follow(self, link: Link, admission: Admission) -> None:
        self.report.set_peer_connected(True)
        self.report.advance(State.SYNCING)
        readmitting = (admission.readmit(link),) if link.resuming else ()
        ending = await live(
            link,
            self.spec,
            self.report,
            on_frame=self._on_frame,
            is_daemon_up=lambda: self.control.has_clients,
            others=(self.until_over(), *readmitting),
        )
        self.ended(ending)
        self._receiving.drop_unfinished()
        await self._part(link, ending)
        self.report.set_peer_connected(False)

    async def _part(self, link: Link, ending: Ending) -> None:
        """Tell the sender what it has to know; let it hear the last acknowledgements."""
        if ending.state is State.FINISHED:
            await link.say_goodbye(FrameType.CLOSE, "released", str(ending))
        elif ending.code == "session.handed_over":
            await link.say_goodbye(FrameType.CLOSE, "handed_over", str(ending))
        elif ending.state is State.TOOLSTACK_LOST:
            await link.say_goodbye(FrameType.ABORT, "replica_lost", str(ending))
        elif ending.state is State.FAILED and not ending.code.startswith("peer."):
            await link.say_goodbye(FrameType.ABORT, ending.abort_code, str(ending))
        elif not ending.is_unheard:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.spec.silence_s):
                    await self._handings.join()
        await link.close()

    # -- frames

    async def _on_frame(self, frame: Frame) -> None:
        now = time.monotonic()
        if frame.type is FrameType.DELTA and self._unfolding is None:
            self._unfolding = await self._unfold()
        if frame.type is (FrameType.DATA if self._unfolding is None else FrameType.DELTA):
            await self._on_data(frame, now)
        elif frame.type is FrameType.SEAL:
            if self._unfolding is not None:
                self._unfolding.seal()
            self._queue(self._receiving.seal(frame.epoch, frame.payload), now)
        else:
            message = f"{frame.type.name} is no frame of this sender"
            raise Ending.failed("session.protocol", message)
        await self._wait_for_room()

    async def _unfold(self) -> Unfolding:
        """Make ready for deltas, if those were agreed on and come from the first frame on."""
        assert self.link is not None
        made = None
        if not self._receiving.has_begun:
            made = await unfolding(self.spec.deltas, self.link.capabilities)
        if made is None:
            raise Ending.failed("session.protocol", "DELTA is no frame that was agreed on")
        return made

    async def _on_data(self, frame: Frame, now: float) -> None:
        if self._unfolding is None:
            self._queue(self._receiving.data(frame.epoch, frame.payload, now), now)
            return
        async for part in self._unfolding.parts(frame.payload):
            self._queue(self._receiving.data(frame.epoch, part, now), now)
            await self._wait_for_room()

    def _queue(self, handings: tuple[Handing, ...], now: float) -> None:
        for handing in handings:
            self._begun.set()
            if handing.needs_pause:
                self._tail_at = now
            self._handings.put_nowait(handing)

    async def _wait_for_room(self) -> None:
        """Read no further while xl has more before it than may be held."""
        assert self.link is not None
        while not self._receiving.has_room:
            self.link.pause()
            self._room.clear()
            await self._room.wait()
            self.link.resume()

    # -- xl

    async def _start_xl(self) -> Pipe:
        """Start xl; return its return channel."""
        process, write_end, read_end = await asyncio.to_thread(_start_xl, self.spec.receive_argv)
        self._xl, self._xl_input = Watched(process.pid), Pipe(write_end)
        self._remember_xl(process.pid)
        self.report.set_toolstack(process.pid)
        self.spawn(self._watch_xl(process, self._xl))
        self.spawn(self._hand(self._xl, self._xl_input))
        self.spawn(self._take_second_pause())
        return Pipe(read_end)

    def _remember_xl(self, pid: int) -> None:
        """Leave word of xl: it outlives this process, and then the daemon has to find it."""
        try:
            path = self._directory / TOOLSTACK_FILE
            path.write_text(f"{pid} {start_ticks(pid)}\n")
        except OSError as error:  # a full disk: the daemon, while it lives, hears it from us
            _log.warning("toolstack.unwritten error=%r", str(error))

    async def _hand(self, xl: Watched, xl_input: Pipe) -> None:
        """Give xl what it may have, in order, and acknowledge what it has."""
        while True:
            handings = await self._next_handings()
            if handings[0].needs_pause:
                await self._paused.wait()
            try:
                await xl_input.write([part for each in handings for part in each.parts])
            except OSError as error:
                raise Ending.toolstack_lost(f"xl has closed its input: {error}") from error
            if xl.has_ended:
                return  # what it was given is lost with it; _watch_xl says so
            is_first_copy = not self._receiving.handed_epoch
            await self._handed(handings)
            for handing in handings:
                self._handings.task_done()
                await self._keeping.give(handing, time.monotonic(), is_first_copy=is_first_copy)

    async def _next_handings(self) -> list[Handing]:
        """Wait for what xl is to be given next; return with it what else is there, if it is short.

        No acknowledgement waits for a long one behind it.
        """
        handings = [self._held_over or await self._handings.get()]
        self._held_over = None
        if handings[0].cost_bytes > _SHORT_BYTES or not self._receiving.handed_epoch:
            return handings
        while len(handings) < _AT_ONCE and not self._handings.empty():
            handing = self._handings.get_nowait()
            if handing.cost_bytes > _SHORT_BYTES:
                self._held_over = handing
                break
            handings.append(handing)
        return handings

    async def _handed(self, handings: list[Handing]) -> None:
        """Note that xl has all of `handings`, and acknowledge the epochs among them."""
        now = time.monotonic()
        for handing in handings:
            self._receiving.handed(handing, now)
        self._room.set()
        epochs = [each.epoch for each in handings if each.epoch]
        if not epochs:
            return
        self.report.advance(State.REPLICATING)
        self.control.publish_soon()
        if self.link is not None:
            acks = [self.link.header(FrameType.ACK, each, 0) for each in epochs]
            with contextlib.suppress(PeerUnreachable):  # whoever reads the link will notice
                await self.link.send_all(acks)

    async def _return(self, output: Pipe, link: Link) -> None:
        """Carry xl's return channel to the sender; without one, still let xl write."""
        buffer = memoryview(bytearray(MAX_CONTROL_BYTES))
        while count := await output.read_into(buffer):
            with contextlib.suppress(PeerUnreachable):
                await link.send(FrameType.RETURN, buffer[:count])

    async def _watch_xl(self, process: subprocess.Popen[bytes], xl: Watched) -> None:
        await xl.ended()
        status = process.wait()
        _log.info("xl.ended status=%d handing_over=%s", status, self._is_handing_over)
        if self._is_handing_over and status == 0:
            self.report.set_handed_over()
            return
        self.report.set_toolstack(0)
        raise Ending.toolstack_lost(f"xl migrate-receive ended with status {status}")

    # -- the second pause reference

    async def _take_second_pause(self) -> None:
        """Pause the incoming copy once more as soon as it exists.

        Raises:
            Ending: If that cannot be done, or it is not known whether it was.
        """
        await self._begun.wait()
        while not await self._try_pause():
            if self._tail_at and time.monotonic() > self._tail_at + self.spec.pause_timeout_s:
                message = f"no second pause reference within {self.spec.pause_timeout_s:g} s"
                raise Ending.failed("session.pause", message)
            await asyncio.sleep(_POLL_S)
        _log.info("second_pause.taken")
        self.report.set_second_pause()
        self._paused.set()

    async def _try_pause(self) -> bool:
        """Take the reference once; return False where it was certainly not taken.

        xl exits with 0 whatever became of it, so what it says decides: it names errors.
        A second try after a first that worked would make two of one, and the copy would never run
        after a promotion: where that is not certain, it is not tried again.
        """
        if (await run_bounded(self.spec.exists_argv, _EXISTS_S)).status != 0:
            return False
        ran = await run_bounded(self.spec.pause_argv, _PAUSE_S)
        if ran.status == 0 and "error" not in ran.said.lower():
            return True
        if _PAUSE_FAILED in ran.said or (ran.status is not None and ran.status > 0):
            return False
        message = f"unknown whether {' '.join(self.spec.pause_argv)} had its effect"
        raise Ending.failed("session.pause", f"{message}: {ran.said or ran.status}")

    # -- the daemon's commands

    def hand_over(self) -> str:
        """Begin to hand the copy over to xl; return why not, or nothing."""
        if self._is_handing_over:
            return ""
        if self._xl is None or self._xl.has_ended:
            return "xl migrate-receive is gone"
        if not self.report.second_pause:
            return "there is no second pause reference: xl would start the copy"
        if not self._receiving.handed_epoch:
            return "no epoch is whole yet"
        self._is_handing_over = True
        self._keeping.give_up("the replica is being promoted")  # and needs what disk there is
        self.ended(Ending.peer_lost("session.handed_over", "told to hand the copy over"))
        self.spawn(self._hand_over())
        return ""

    async def _hand_over(self) -> None:
        """Give xl every whole epoch that came, then the end of its input."""
        await self._parted.wait()
        await self._handings.join()
        assert self._xl_input is not None
        _log.info("hand_over.begun epoch=%d", self._receiving.handed_epoch)
        self._xl_input.close()


def _start_xl(argv: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start xl; return it, where to write its input, and where to read its output."""
    input_read, input_write = os.pipe()
    output_read, output_write = os.pipe()
    try:
        process = subprocess.Popen(
            argv, stdin=input_read, stdout=output_write, stderr=2, start_new_session=True
        )
    except OSError as error:
        os.close(input_write)
        os.close(output_read)
        raise ToolstackError(argv, 127, str(error)) from error
    finally:
        os.close(input_read)
        os.close(output_write)
    return process, input_write, output_read
