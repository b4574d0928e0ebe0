"""The interface of a guest whose network is a wire of real frames, with QEMU's filters in it.

    PLAIN      guest ── rewriter ── plug ── wire
    COMPARING  guest ─▶ `primary` socket … `out` socket ─▶ rewriter ─▶ plug ─▶ wire
               guest ◀─ rewriter ◀─ wire, and each frame that came in also to the `mirror` socket
    SECONDARY  guest ─▶ rewriter ─▶ `secondary` socket;  `mirrored` socket ─▶ rewriter ─▶ guest

As with QEMU: what is sent to a socket that nobody reads is lost, and the filters stay, whatever
becomes of the other host, until somebody takes them away.

The sockets lie in the domain's directory: `colo-NAME.sock`.
"""

import json
import selectors
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from colod.simxen.colo import segments
from colod.simxen.colo.kernel import Kernel
from colod.simxen.colo.ports import Port
from colod.simxen.colo.rewriter import Rewriter
from colod.simxen.colo.segments import Segment

Transmit = Callable[[Callable[[bytes], None], bytes], None]
"""Sends a packet through the interface's plug; then it is delivered as the first argument says."""

SOCKETS = ("primary", "out", "mirror", "secondary", "mirrored")


class Filters(StrEnum):
    """Where the guest's frames go."""

    PLAIN = "plain"
    COMPARING = "comparing"
    SECONDARY = "secondary"


class Nic:
    """One interface."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        directory: Path,
        wire: Path,
        mac: bytes,
        kernel: Kernel,
        transmit: Transmit,
        who: dict[str, object],
    ) -> None:
        """Prepare.

        Args:
            selector: The domain's loop.
            directory: The domain's.
            wire: The switch's socket.
            mac: The guest's address.
            kernel: Takes frames and answers.
            transmit: Through the plug.
            who: What the switch is told of whose interface this is.
        """
        self.filters = Filters.PLAIN
        self._mac = mac
        self._kernel = kernel
        self._transmit = transmit
        self._hello = json.dumps(who).encode()
        self._is_served = False
        self._rewriter = Rewriter()
        takers: dict[str, Callable[[bytes], None]] = {
            "primary": lambda _: None,
            "out": self._leave,
            "mirror": lambda _: None,
            "secondary": lambda _: None,
            "mirrored": self._come_mirrored,
        }
        self._ports = {
            name: Port(selector, directory / f"colo-{name}.sock", taker)
            for name, taker in takers.items()
        }
        self._wire = Port(selector, wire, self._come)

    def serve(self, wanted: bool, now: float) -> None:
        """Let the guest's kernel work, or stand still with its vCPU."""
        if wanted != self._is_served:
            self._is_served = wanted
            for port in (self._wire, self._ports["mirrored"]):
                port.read(wanted)
        if not wanted:
            return
        if self.filters is not Filters.SECONDARY and not self._wire.is_connected:
            self._attach()
        self._send(self._kernel.due(now))

    def use(self, wanted_filters: str) -> None:
        """Put other filters in, by their name."""
        filters = Filters(wanted_filters)
        if filters is self.filters:
            return
        wanted = {
            Filters.PLAIN: (),
            Filters.COMPARING: ("primary", "out", "mirror"),
            Filters.SECONDARY: ("secondary", "mirrored"),
        }[filters]
        for name, port in self._ports.items():
            if name in wanted:
                port.listen()
            else:
                port.close()
        if filters is Filters.SECONDARY:
            self._wire.disconnect()
            self._rewriter.begin()
        elif self.filters is Filters.SECONDARY:
            self._rewriter.failed_over()
        self.filters = filters

    def loaded(self) -> None:
        """Take note that the guest has another copy's state now, its numbers too."""
        self._rewriter.checkpointed()
        self._kernel.load()

    def close(self) -> None:
        """End all connections."""
        for port in (self._wire, *self._ports.values()):
            port.close()

    def summary(self) -> dict[str, object]:
        """Return how it stands."""
        return {
            "filters": str(self.filters),
            "connected": [name for name, port in self._ports.items() if port.is_connected],
            "lost_frames": sum(port.lost_frames for port in self._ports.values()),
            "shifted": len(self._rewriter),
            "on_wire": self._wire.is_connected,
        }

    # -- in

    def _come(self, frame: bytes) -> None:
        if self.filters is Filters.SECONDARY:
            return
        frame = self._rewriter.inbound(frame, self._mac)
        if self.filters is Filters.COMPARING:
            self._ports["mirror"].send(frame)
        self._send(self._kernel.take(frame))

    def _come_mirrored(self, frame: bytes) -> None:
        self._send(self._kernel.take(self._rewriter.inbound(frame, self._mac)))

    # -- out

    def _send(self, said: list[Segment]) -> None:
        for segment in said:
            frame = segments.encode(segment, self._mac)
            if self.filters is Filters.COMPARING:
                self._ports["primary"].send(frame)
            elif self.filters is Filters.SECONDARY:
                self._ports["secondary"].send(self._rewriter.outbound(frame, self._mac))
            else:
                self._leave(frame)

    def _leave(self, frame: bytes) -> None:
        # Behind this point frames are the network's, whatever becomes of the filters meanwhile.
        self._transmit(self._deliver, self._rewriter.outbound(frame, self._mac))

    def _deliver(self, frame: bytes) -> None:
        if self.filters is not Filters.SECONDARY and self._attach():
            self._wire.send(frame)

    def _attach(self) -> bool:
        if self._wire.is_connected:
            return True
        if not self._wire.connect(self._hello):
            return False
        self._transmit(self._deliver, segments.announcement(self._mac))
        return True
