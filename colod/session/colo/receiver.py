"""The secondary's session in COLO: the copy runs here, and reaches nobody but the comparator.

    copy ─▶ filters ─▶ SecondaryRelay ─▶ OUTPUT frames        INPUT frames ─▶ filters ─▶ copy

A pause cannot keep this copy from speaking, since it runs. Two locks do: its filters lead to the
relay only, and its way out is plugged besides; both are verified before xl gets anything that could
make it run. At HandOver, which comes when this host owns the guest, the copy is paused before xl
lets it go: from there on it is a copy like any other, which only the daemon lets run, and unlocks.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from pathlib import Path
from typing import Final

from colod.errors import ColodError, PeerUnreachable, StreamError
from colod.output.colo.ports import PortOptions
from colod.output.colo.relay import SecondaryRelay
from colod.session.colo.filters import FilterCommands
from colod.session.colo.frames import FrameSink
from colod.session.colo.receiving import ColoReceiving
from colod.session.ending import Ending
from colod.session.link import Link
from colod.session.pipes import Pipe
from colod.session.process import Watched, run_bounded
from colod.session.receiver import Receiver
from colod.session.receiving import Handing
from colod.session.spec import SessionSpec
from colod.stream.events import CheckpointStateSeen, Direction
from colod.stream.frames import MAX_CONTROL_BYTES, Frame, FrameType
from colod.stream.libxl import ControlId
from colod.stream.parser import StreamParser
from colod.transport.base import Transport
from colod.v1 import types_pb2

RELAY_SOCKET: Final = "relay.sock"

_EXISTS_S: Final = 10.0
_COMMAND_S: Final = 30.0
_POLL_S: Final = 0.2
_SUSPEND_S: Final = 20.0
"""How long a suspension under way is waited for before the copy is paused: it cannot suspend then,
and xl would wait for that."""

_log = logging.getLogger(__name__)


class ColoReceiver(Receiver):
    """Keeps one guest's running copy in step with the primary."""

    def __init__(
        self,
        spec: SessionSpec,
        directory: Path,
        transport: Transport,
        backup: Transport | None = None,
    ) -> None:
        """Prepare; nothing is touched before `run`. `backup` is of the second path, if any."""
        super().__init__(spec, directory, transport, backup)
        assert spec.colo is not None
        self._colo = spec.colo
        self._filters = FilterCommands(spec.colo.filters_argv)
        self._receiving: ColoReceiving = ColoReceiving(spec.staging_bytes)
        self._input = FrameSink()
        self._relay: SecondaryRelay | None = None
        self._suspended = 0
        self._is_let_go = False
        self._changed_state = asyncio.Event()
        self._phase = ""

    @property
    def _incoming(self) -> str:
        return f"{self.spec.guest}--incoming"

    def comparison(self, now: float) -> types_pb2.Comparison | None:
        """Return how the copy is reached, and what was lost on its way to the comparator."""
        counts = None if self._relay is None else self._relay.counts()
        return types_pb2.Comparison(
            phase=self._phase,
            checkpoints=0 if counts is None else counts.marks,
            secondary_frames=0 if counts is None else counts.frames,
            stale_frames=0 if counts is None else counts.lost_frames,
            busy_s=0.0 if counts is None else counts.busy_s,
            input_lost_frames=self._input.lost_frames,
        )

    # -- the two locks

    async def _take_second_pause(self) -> None:
        """Lock the copy up as soon as it exists, instead of pausing it.

        Raises:
            Ending: If that cannot be done.
        """
        await self._begun.wait()
        await self._until_incoming()
        sockets = await self._filters.lock(self._incoming)
        await self._open_relay(sockets)
        self._phase = "locked"
        _log.info("copy.locked")
        self.report.set_second_pause()
        self._paused.set()

    async def _until_incoming(self) -> None:
        limit_s = self.spec.pause_timeout_s
        while True:
            if await self._has_incoming():
                return
            if self._tail_at and time.monotonic() > self._tail_at + limit_s:
                message = f"no {self._incoming} to lock within {limit_s:g} s"
                raise Ending.failed("session.filters", message)
            await asyncio.sleep(_POLL_S)

    async def _has_incoming(self) -> bool:
        return (await run_bounded(self.spec.exists_argv, _EXISTS_S)).status == 0

    async def _open_relay(self, sockets: Path) -> None:
        path = self._directory / RELAY_SOCKET
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(self._carry_output, path)
        relay = self._relay = SecondaryRelay(
            PortOptions(address=sockets / "colo-secondary.sock", is_dialled=True),
            PortOptions(address=path, is_dialled=True),
            lambda port: _log.info("relay.disconnected port=%s", port),
        )
        relay.open()
        self.spawn(relay.run())
        try:
            await self._input.connect(sockets / "colo-mirrored.sock")
        except OSError as error:
            raise Ending.failed("session.filters", f"{sockets}: {error}") from error

    async def _carry_output(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send what the relay hands on, marks and all; without a link it is lost.

        A link that broke has no successor in COLO, so what follows is read, and dropped.
        """
        is_linked = True
        try:
            while octets := await reader.read(MAX_CONTROL_BYTES):
                if self.link is None or not is_linked:
                    continue
                try:
                    await self.link.send(FrameType.OUTPUT, octets)
                except PeerUnreachable:
                    is_linked = False
                    _log.info("relay.without_link")
        finally:
            writer.close()

    # -- frames

    async def _on_frame(self, frame: Frame) -> None:
        if frame.type is not FrameType.INPUT:
            await super()._on_frame(frame)
            return
        try:
            self._input.take(frame.payload)
        except StreamError as error:
            raise Ending.failed("session.protocol", f"INPUT: {error}") from error

    # -- xl

    async def _next_handings(self) -> list[Handing]:
        """Return what xl is given next; cut the copy's output before the end of a checkpoint."""
        handing = await self._handings.get()
        if handing.epoch:
            await self._cut(handing.epoch)
        return [handing]

    async def _cut(self, epoch: int) -> None:
        """Mark where the copy was suspended for `epoch`: what it says later has that state.

        Raises:
            Ending: If that cannot be told: the checkpoint must not be made then.
        """
        await self._paused.wait()
        await self._until_suspended(epoch - 1)
        assert self._relay is not None
        try:
            self._relay.cut(epoch)
        except ColodError as error:
            raise Ending.failed("session.cut", f"epoch {epoch}: {error}") from error

    async def _until_suspended(self, times: int) -> None:
        while self._suspended < times:
            self._changed_state.clear()
            await self._changed_state.wait()

    async def _return(self, output: Pipe, link: Link) -> None:
        """Carry xl's return channel to the sender, and note what it says of the copy.

        Raises:
            Ending: If it is not what libxl says in COLO.
        """
        buffer = memoryview(bytearray(MAX_CONTROL_BYTES))
        parser = StreamParser(direction=Direction.BACK)
        while count := await output.read_into(buffer):
            try:
                events = parser.feed(buffer[:count])
            except StreamError as error:
                raise Ending.from_error(error) from error
            for event in events:
                self._note_state(event)
            try:
                await link.send(FrameType.RETURN, buffer[:count])
            except PeerUnreachable:
                continue  # whoever reads the link notices

    def _note_state(self, event: object) -> None:
        if not isinstance(event, CheckpointStateSeen):
            return
        if event.control_id == ControlId.CHECKPOINT_SVM_SUSPENDED:
            self._suspended += 1
        self._changed_state.set()

    async def _watch_xl(self, process: subprocess.Popen[bytes], xl: Watched) -> None:
        await xl.ended()
        status = process.wait()
        _log.info("xl.ended status=%d let_go=%s", status, self._is_let_go)
        # Before that the copy is not paused, and may be in the middle of a checkpoint.
        if not self._is_let_go:
            self.report.set_toolstack(0)
            raise Ending.toolstack_lost(f"xl migrate-receive ended with status {status}")
        try:
            # Stock libxl crashes here, and leaves name and filters as they were: see docs/colo.md.
            await self._finish_takeover()
        except BaseException:
            self.report.set_toolstack(0)  # the daemon waits for this word
            raise

    # -- promotion

    async def _hand_over(self) -> None:
        """Stop the copy where it is, and have xl let it go.

        What the copy has done since the newest checkpoint, the client may have seen: the primary's
        equal output was let out by it. So it goes on from there, and not from the checkpoint.
        """
        await self._parted.wait()
        await self._handings.join()
        try:
            async with asyncio.timeout(_SUSPEND_S):
                await self._until_suspended(self._receiving.news)
        except TimeoutError:
            _log.warning("hand_over.unsuspended news=%d", self._receiving.news)
        ran = await run_bounded(self.spec.pause_argv, _COMMAND_S)
        if ran.status != 0 or "error" in ran.said.lower():
            message = f"{' '.join(self.spec.pause_argv)}: {ran.said or ran.status}"
            raise Ending.failed("session.pause", message)
        assert self._xl_input is not None
        _log.info("hand_over.begun epoch=%d", self._receiving.handed_epoch)
        self._is_let_go = True
        self._xl_input.close()

    async def _finish_takeover(self) -> None:
        """Give the paused copy its name, where xl did not.

        Its locks stay: the daemon takes them away right before it lets the copy run.

        Raises:
            Ending: If it has not got it.
        """
        if await self._has_incoming():
            ran = await run_bounded(self._colo.rename_argv, _COMMAND_S)
            if ran.status != 0:
                message = f"{self._incoming} cannot be renamed: {ran.said or ran.status}"
                raise Ending.toolstack_lost(message)
        self._phase = "handed_over"
        self.report.set_handed_over()
