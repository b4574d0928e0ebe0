"""The relay on the secondary's host: it hands the copy's frames to the proxy, with marks.

    secondary's QEMU ─ rs2 redirector ─▶ guest (listens) ─ relay ─ proxy (connects) ─▶ ColoProxy

Whoever follows libxl's stream on this host knows when the copy is suspended for a checkpoint: from
CHECKPOINT_SVM_SUSPENDED until libxl has all of that checkpoint. In between, all that the copy had
sent is in this host's kernel, for QEMU writes frames before it goes on. Only there can the place
be found that `core` needs, so the relay reads all of it, and puts a mark behind it.

Nothing is shifted here: libxl's own filters have QEMU's rewriter, which after a failover stays in
the way of the connections that it shifts. Where there is none, `Rewriter` would stand here, but the
relay with it would have to stay after a failover.

Source: Xen tools/libs/light/libxl_colo_restore.c, steps of libxl__colo_restore_domain_*_callback().
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from colod.errors import InvariantBroken, NotAllowedNow
from colod.output.colo.framing import Framed, FrameReader, encode_frames, encode_mark
from colod.output.colo.ports import Address, PortOptions
from colod.output.colo.serving import Serving, drain


@dataclass(slots=True, kw_only=True)
class RelayCounts:
    """What a relay has counted since it began.

    Attributes:
        frames: Of the copy, handed on.
        lost_frames: Of the copy, for which there was no room or no proxy: the primary's equal ones
            wait for a checkpoint.
        marks: Checkpoints that were marked.
        busy_s: Processor time spent, in seconds.
    """

    frames: int = 0
    lost_frames: int = 0
    marks: int = 0
    busy_s: float = 0.0


class SecondaryRelay:
    """The relay of one guest's secondary.

    Call `open`, then keep `run` going, and `cut` at each checkpoint.
    """

    def __init__(
        self,
        guest: PortOptions,
        proxy: PortOptions,
        tell: Callable[[str], None],
        *,
        has_headers: bool = False,
    ) -> None:
        """Prepare.

        Args:
            guest: Where the secondary's QEMU comes, or is.
            proxy: Where the primary's proxy is; say `is_dialled`, so that it is found again.
            tell: Is called with `guest` or `proxy` when a connection of that has ended.
            has_headers: Whether QEMU's filters, and so the proxy, have `vnet_hdr_support`.
        """
        self._has_headers = has_headers
        self._tell = tell
        self._counts = RelayCounts()
        self._checkpoint = 0
        self._frames = FrameReader(has_headers=has_headers)
        self._serving = Serving()
        self._guest = self._serving.add("guest", guest, self._begin_guest, self._take_guest)
        self._proxy = self._serving.add("proxy", proxy, self._begin_proxy, self._take_proxy)

    @property
    def connected(self) -> frozenset[str]:
        """Which of `guest` and `proxy` is connected."""
        return self._serving.connected

    @property
    def addresses(self) -> dict[str, Address]:
        """Where each port listens, or connects to."""
        return self._serving.addresses

    def counts(self) -> RelayCounts:
        """Return a copy of what was counted."""
        counts = self._counts
        return RelayCounts(
            frames=counts.frames,
            lost_frames=counts.lost_frames,
            marks=counts.marks,
            busy_s=self._serving.busy_s,
        )

    def open(self) -> None:
        """Listen.

        Raises:
            NetworkError: If an address cannot be listened on.
        """
        self._serving.open()

    async def run(self) -> None:
        """Serve until cancelled, or until a defect of ours."""
        await self._serving.run()

    def close(self) -> None:
        """End all connections."""
        self._serving.close()

    def cut(self, checkpoint: int) -> None:
        """Mark where the copy was suspended.

        Call it after CHECKPOINT_SVM_SUSPENDED, and let libxl have the end of the checkpoint only
        when this has returned: the copy runs on after that.

        Args:
            checkpoint: Its number in this pairing, from 1; above that of the last cut.

        Raises:
            NotAllowedNow: If the copy still sends: it is not suspended. Let this checkpoint fail.
            InvariantBroken: If the number goes back.
        """
        if checkpoint <= self._checkpoint:
            raise InvariantBroken(f"relay: cut {checkpoint} after {self._checkpoint}")
        if not drain(self._take_guest) or not self._frames.is_between_frames:
            raise NotAllowedNow("running", "no place to cut: the secondary's copy still sends")
        self._checkpoint = checkpoint
        self._counts.marks += 1
        self._mark()

    def _begin_guest(self) -> None:
        self._frames = FrameReader(has_headers=self._has_headers)

    def _take_guest(self) -> bool:
        with self._serving.reading(self._guest, lambda: self._tell("guest")) as octets:
            if octets is None:
                return False
            for each in self._frames.feed(octets):
                # Without marks in it, so that a guest's host cannot make one either.
                assert isinstance(each, Framed)
                header = each.header if self._has_headers else None
                if self._proxy.write(encode_frames([each.frame], header)):
                    self._counts.frames += 1
                else:
                    self._counts.lost_frames += 1
        return True

    def _begin_proxy(self) -> None:
        self._mark()

    def _take_proxy(self) -> None:
        with self._serving.reading(self._proxy, lambda: self._tell("proxy")):
            # The proxy says nothing here.
            pass

    def _mark(self) -> None:
        """Say of which checkpoint's time the next frames are."""
        if not self._proxy.write(encode_mark(self._checkpoint)):
            # A mark that is lost makes all that follows void, and the next connection begins with
            # one.
            self._proxy.disconnect()
