"""The primary's session in COLO: it holds the guest's output until the secondary has said the same.

    guest ─▶ filters ─▶ ColoProxy ─▶ filters ─▶ network        libxl ◀─▶ ColoProxy (checkpoints)
    the receiver's OUTPUT frames ─▶ ColoProxy                   what comes in ─▶ INPUT frames

Epochs, acknowledgements and endings are those of Remus; libxl makes a checkpoint when the proxy
asks for one. While nothing proves what the secondary says, output is held: a lost peer, a lost xl
or the end of this process never release anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from colod.measures import Measure
from colod.output.colo.core import Event, Phase, ProxyOptions
from colod.output.colo.ports import PortOptions
from colod.output.colo.proxy import ColoProxy, ProxyPorts
from colod.output.compare.checkpoints import CheckpointOptions
from colod.output.compare.decisions import Reason
from colod.output.compare.limits import Limits
from colod.session.colo.filters import FilterCommands
from colod.session.colo.frames import FrameQueue
from colod.session.colo.rate import Rate
from colod.session.ending import Ending, weight
from colod.session.link import Link
from colod.session.pipes import Pipe
from colod.session.sender import Sender
from colod.session.spec import SessionSpec
from colod.stream.frames import Frame, FrameType
from colod.transport.base import Transport
from colod.v1 import types_pb2

NOTIFY_SOCKET: Final = "colo.sock"
SECOND_SOCKET: Final = "second.sock"

_RETURN_FRAMES: Final = 4096
"""The secondary's lists of changed pages come by the return channel, 8 bytes a page."""

_PHASES: Final = {
    Phase.PASSING: types_pb2.GATE_PHASE_OPEN,
    Phase.COMPARING: types_pb2.GATE_PHASE_HOLDING,
    Phase.ALONE: types_pb2.GATE_PHASE_OPENED,
}
_TROUBLES: Final = frozenset(
    {Event.LOST, Event.OVERDUE, Event.PRIMARY_GONE, Event.OUT_GONE, Event.LIBXL_GONE}
)

_log = logging.getLogger(__name__)


class ColoSender(Sender):
    """Carries one guest's epochs to the other host, where a copy of it runs."""

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
        self._returned = asyncio.Queue(_RETURN_FRAMES)
        self._proxy: ColoProxy | None = None
        self._second: asyncio.StreamWriter | None = None
        self._input = FrameQueue()
        self._rate = Rate()
        self._trouble = ""

    # -- what can be seen

    def gate(self) -> types_pb2.Gate | None:
        """Return how the guest's output is held, None before that is known."""
        proxy = self._proxy
        if proxy is None:
            return None
        counts = proxy.counts()
        is_comparing = proxy.phase is Phase.COMPARING
        return types_pb2.Gate(
            phase=_PHASES[proxy.phase],
            is_protected=is_comparing,
            # What was said before the first checkpoint, the first copy has.
            sound_from=1 if is_comparing else 0,
            released_epoch=proxy.checkpoint,
            held_packets=counts.held_frames,
            held_bytes=counts.held_bytes,
            dropped_packets=counts.lost_frames,
            hold_s=-1,
            error=self._trouble,
        )

    def comparison(self, now: float) -> types_pb2.Comparison | None:
        """Return how the two copies' output is compared."""
        proxy = self._proxy
        if proxy is None:
            return None
        counts = proxy.counts()
        return types_pb2.Comparison(
            phase=proxy.phase,
            checkpoints=proxy.checkpoint,
            checkpoints_per_s=self._rate.per_s(now),
            made={str(reason): count for reason, count in counts.made.items()},
            unasked=counts.unasked,
            held_frames=counts.held_frames,
            held_bytes=counts.held_bytes,
            connections=counts.connections,
            primary_frames=counts.primary_frames,
            released_frames=counts.released_frames,
            lost_frames=counts.lost_frames,
            secondary_frames=counts.secondary_frames,
            matched_frames=counts.matched_frames,
            stale_frames=counts.stale_frames,
            uncut=counts.uncut,
            busy_s=counts.busy_s,
            input_lost_frames=self._input.lost_frames,
            trouble=self._trouble,
        )

    def make_checkpoint(self) -> str:
        """Ask for a checkpoint now; return why not, or nothing."""
        if self._proxy is None or self._proxy.phase is not Phase.COMPARING:
            return "nothing is compared yet"
        self._proxy.ask(Reason.OPERATOR)
        return ""

    # -- work

    async def _hold(self, stdin: Pipe) -> None:
        """Lead the guest's output to a comparator; it passes until COLO begins."""
        notify, second = self._directory / NOTIFY_SOCKET, self._directory / SECOND_SOCKET
        sockets = await self._filters.compare(self.spec.guest, notify)
        ports = ProxyPorts(
            primary=_dialled(sockets / "colo-primary.sock"),
            out=_dialled(sockets / "colo-out.sock"),
            secondary=PortOptions(address=second),
            notify=PortOptions(address=notify),
        )
        options = ProxyOptions(
            limits=Limits(timeout_s=self._colo.compare_timeout_s),
            checkpoints=CheckpointOptions(
                interval_max_s=self._colo.interval_max_s, overdue_s=self.spec.ack_timeout_s
            ),
            has_marks=True,
        )
        observe = self.measures().observe
        self._proxy = ColoProxy(
            ports,
            options,
            self._on_proxy,
            lambda held_s: observe(Measure.COMPARE, held_s),
            self._may_send,
        )
        self._proxy.open()
        self.spawn(self._proxy.run())
        _, self._second = await asyncio.open_unix_connection(second)
        self.spawn(self._input.fill(sockets / "colo-mirror.sock"))

    def _may_send(self) -> bool:
        """Whether output may leave: not once the other host may be taking the guest over.

        A process that stood still wakes up with the copy's old words in its sockets, which prove
        that the copy had said the same, but not that this host still owns the guest.
        """
        if weight(self.report.state) or self._released.is_set():
            return False
        if self.link is None:
            return True
        try:
            self.link.check_awake()
        except Ending as ending:
            self.ended(ending)
            return False
        return True

    def _besides(self, link: Link) -> Sequence[Coroutine[Any, Any, None]]:
        return (self._send_input(link),)

    async def _send_input(self, link: Link) -> None:
        """Send what comes in for the guest to its copy."""
        while True:
            await link.send(FrameType.INPUT, await self._input.batch())

    async def _on_frame(self, frame: Frame) -> None:
        if frame.type is not FrameType.OUTPUT:
            await super()._on_frame(frame)
        elif self._second is not None:
            self._second.write(frame.payload)
            try:
                await self._second.drain()
            except OSError as error:
                # The comparator ends what makes no sense; nothing is proved any more.
                message = f"OUTPUT that the comparator refuses: {error}"
                raise Ending.failed("session.protocol", message) from error

    def _on_proxy(self, event: Event) -> None:
        """Take note of what the comparator tells."""
        if event in (Event.BEGUN, Event.COMMITTED):
            self._rate.note(time.monotonic())
            self._trouble = ""
        if event is Event.BEGUN and self._proxy is not None:
            # The second checkpoint is the first one that a takeover may go by.
            self._proxy.ask(Reason.PERIODIC)
        if event in _TROUBLES:
            self._trouble = event.value
            _log.warning("colo.trouble event=%s", event)
        if event is Event.OVERDUE:
            limit_s = self.spec.ack_timeout_s
            message = f"{self.spec.peer}: no checkpoint within {limit_s:g} s of asking for one"
            self.ended(Ending.peer_lost("peer.stalled", f"{message}: an xl seems to hang"))
        self._changed()


def _dialled(path: Path) -> PortOptions:
    return PortOptions(address=path, is_dialled=True)
