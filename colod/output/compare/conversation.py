"""All connections, one after the other, between the same two ends."""

from __future__ import annotations

from colod.output.compare.decisions import Side
from colod.output.compare.limits import Limits
from colod.output.compare.segment import RST, SYN, Segment
from colod.output.compare.tcpflow import TcpFlow


class Conversation:
    """The connections of one pair of addresses and ports.

    A SYN begins a new one, for each side when its own SYN comes: what the other side still says of
    the old connection must not prove anything of the new one.
    """

    __slots__ = ("_flows", "_limits", "_primary_at", "_secondary_at")

    def __init__(self, limits: Limits) -> None:
        """Begin with one connection of which nothing is known."""
        self._limits = limits
        self._flows = [TcpFlow(limits)]
        self._primary_at = self._secondary_at = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits in any of them."""
        return all(flow.is_idle for flow in self._flows)

    @property
    def stored_bytes(self) -> int:
        """How many compared bytes are kept."""
        return sum(flow.stored_bytes for flow in self._flows)

    def flow(self, side: Side, segment: Segment) -> TcpFlow:
        """Return the connection to which a segment belongs."""
        at = self._primary_at if side is Side.PRIMARY else self._secondary_at
        flow = self._flows[at]
        is_syn = segment.flags & SYN and not segment.flags & RST
        return self._next(side, at + 1) if is_syn and flow.is_new(side, segment) else flow

    def checkpointed(self) -> None:
        """Take note of a checkpoint: both sides are where the primary is."""
        self._flows = [self._flows[self._primary_at]]
        self._primary_at = self._secondary_at = 0
        self._flows[0].checkpointed()

    def _next(self, side: Side, at: int) -> TcpFlow:
        """Move one side on to the connection number `at`."""
        if at == len(self._flows):
            self._flows.append(TcpFlow(self._limits))
        flow = self._flows[at]
        if side is Side.PRIMARY:
            self._primary_at = at
        else:
            self._secondary_at = at
        self._forget_ended()
        return flow

    def _forget_ended(self) -> None:
        """Forget connections that both sides have left, once nothing of them waits."""
        while min(self._primary_at, self._secondary_at) > 0 and self._flows[0].is_idle:
            del self._flows[0]
            self._primary_at -= 1
            self._secondary_at -= 1
