"""What both kinds of session share: it moves bytes, reports, and lets nothing go unasked.

Whatever goes wrong, also a defect of its own, leaves the session alive with its pipes open, since
for xl the end of a pipe means failover. Only the daemon's Release ends it. SIGTERM, SIGINT and
SIGHUP are logged and otherwise passed over: they come to whole process groups and units, and a
session that obeyed would make xl resume one copy or the other with nobody's leave.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from colod.errors import ColodError
from colod.measures import Measures
from colod.session.agreement import RESUME
from colod.session.control import ControlServer
from colod.session.ending import Ending, State
from colod.session.link import Link
from colod.session.progress import Progress, age
from colod.session.protocol import CONTROL_SOCKET
from colod.session.quiesce import Quiesce
from colod.session.report import Report
from colod.session.spec import SessionSpec
from colod.v1 import session_pb2, types_pb2

ORPHAN_CHECK_S = 2.0
_PARTING_S = 10.0

_log = logging.getLogger(__name__)


class Session(ABC):
    """One process for one guest on one host."""

    def __init__(self, spec: SessionSpec, directory: Path) -> None:
        """Prepare; nothing is touched before `run`."""
        self.spec = spec
        self.report = Report(spec, self._changed)
        self.control = ControlServer(directory / CONTROL_SOCKET, self._status, self._on_command)
        self.link: Link | None = None
        self._directory = directory
        self._released = asyncio.Event()
        self._over: asyncio.Future[Ending] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Do the session's work until the daemon releases it.

        Raises:
            SessionError: If the control socket cannot be made; nothing was begun then.
        """
        self._ignore_signals()
        self._over = asyncio.get_running_loop().create_future()
        await self.control.start()
        self.spawn(self._watch_orphaned())
        working = self.spawn(self.work())
        await self._released.wait()
        if self.link is not None:  # time to say goodbye, and for the peer to read it
            await asyncio.wait([working], timeout=_PARTING_S)
        self.report.finish()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.control.close()

    @abstractmethod
    async def work(self) -> None:
        """Replicate for as long as that goes; raise an Ending when it does not any more."""

    @abstractmethod
    def progress(self, now: float) -> Progress:
        """Return how far replication has come."""

    def gate(self) -> types_pb2.Gate | None:
        """Return how the guest's output is held, None where it is not."""
        return None

    def measures(self) -> Measures | None:
        """Return what was measured of every epoch, None where that is the other side's to do."""
        return None

    def quiesce(self) -> Quiesce | None:
        """Return what keeps the final checkpoint's window, None where no window is known."""
        return None

    def hand_over(self) -> str:
        """Begin to hand the copy over to xl; return why not, or nothing."""
        return "hand_over is for the receiver"

    def export_image(self, command: session_pb2.SessionCommand.ExportImage) -> str:
        """Begin to write an image of the replica; return why not, or nothing."""
        return "export_image is for the receiver"

    def image(self, now: float) -> session_pb2.ReplicaImage | None:
        """Return how the image of the replica stands, None where none is kept."""
        return None

    def comparison(self, now: float) -> types_pb2.Comparison | None:
        """Return how the two copies' output is compared, None where it is not."""
        return None

    def make_checkpoint(self) -> str:
        """Ask for a checkpoint now; return why not, or nothing."""
        return "checkpoints are made by the clock here, not on demand"

    def ended(self, ending: Ending) -> None:
        """End replication; everything is kept as it is."""
        if self._over is not None and not self._over.done():
            self._over.set_result(ending)
        if ending.state is not State.FINISHED and self.report.end(ending):
            _log.warning(
                "session.ended state=%s code=%s error=%r",
                ending.state.name,
                ending.code,
                str(ending),
            )

    async def until_over(self) -> None:
        """Wait until something ends replication that the link to the peer does not know of.

        Raises:
            Ending: Then.
        """
        assert self._over is not None
        raise await asyncio.shield(self._over)

    def outlive_breaks(self, link: Link, path: int) -> None:
        """Have `link`, new and over the path of that index, outlive breaks if both sides will.

        Raises:
            Ending: If there is no memory for that.
        """
        if RESUME not in link.capabilities:
            return
        octets = self.spec.resume_bytes
        try:
            resuming = link.mend_by(octets, path=path, changed=self._link_changed)
        except MemoryError:
            message = f"resume_bytes = {octets}: there is not so much memory"
            raise Ending.failed("session.memory", message) from None
        self.spawn(resuming.pump())

    def _link_changed(self) -> None:
        if self.link is None or (resuming := self.link.resuming) is None:
            return
        if resuming.is_attached:
            _log.info("link.mended path=%d number=%d", resuming.path, resuming.number)
        else:
            _log.warning("link.broken reason=%r", resuming.why)
        self.report.set_peer_connected(resuming.is_attached)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` beside the rest; however it fails, the session lives on and says so."""
        task = asyncio.create_task(self._supervised(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _supervised(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Ending as ending:
            self.ended(ending)
        except ColodError as error:
            self.ended(Ending.from_error(error))
        except Exception as error:
            # A defect of ours. To exit would make xl resume or start a copy.
            _log.exception("session.defect")
            self.ended(Ending.failed("defect.session", f"{type(error).__name__}: {error}"))

    def release(self, reason: str) -> None:
        """Let go of everything and exit."""
        _log.info("session.released reason=%r", reason)
        self.ended(Ending(State.FINISHED, "released", reason))
        self._released.set()

    async def _on_command(self, command: session_pb2.SessionCommand) -> str:
        if command.generation < self.spec.generation:
            return f"generation {command.generation} is older than {self.spec.generation}"
        match command.WhichOneof("command"):
            case "release":
                self.release(command.release.reason)
                return ""
            case "hand_over":
                return self.hand_over()
            case "report_status":
                return ""
            case "export_image":
                return self.export_image(command.export_image)
            case "make_checkpoint":
                return self.make_checkpoint()
            case "quiesce" | "quiesced":
                return self._switch_over(command)
        return "unknown command"

    def _switch_over(self, command: session_pb2.SessionCommand) -> str:
        quiesce = self.quiesce()
        if quiesce is None:
            return "there is no gate here, so no checkpoint's window is known"
        if command.HasField("quiesce"):
            return quiesce.want(command.quiesce.attempt)
        return quiesce.finish(command.quiesced.attempt)

    def _status(self) -> session_pb2.SessionStatus:
        now = time.monotonic()
        progress = self.progress(now)
        if (link := self.link) is not None:
            progress.peer_heard_age_s = age(now, link.heard_at)
            progress.rtt_s = link.rtt_s
            self.report.capabilities = link.capabilities
            self.report.peer_address = link.peer_address
        status = self.report.status(progress, self.gate(), self.measures(), self.quiesce())
        if link is not None:
            status.link.CopyFrom(link.status())
        if (image := self.image(now)) is not None:
            status.image.CopyFrom(image)
        if (comparison := self.comparison(now)) is not None:
            status.comparison.CopyFrom(comparison)
        return status

    def _changed(self) -> None:
        self.control.publish_soon()

    def _ignore_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, _log.warning, "signal.ignored signal=%s", number.name)

    async def _watch_orphaned(self) -> None:
        """End a session that no daemon can find any more, once nothing hangs on it."""
        while True:
            await asyncio.sleep(ORPHAN_CHECK_S)
            if not self.report.toolstack_pid and not self._directory.exists():
                self.release("its directory was removed and xl is gone")
