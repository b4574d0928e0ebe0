"""The COLO proxy of one guest on its primary: it stands where QEMU's colo-compare stood.

    guest ─▶ QEMU filter-redirector ─▶ primary ┐
                                                ├─ ColoProxy ─▶ out ─▶ QEMU filter-redirector ─▶ tap
    secondary's QEMU, or colod's relay ─▶ secondary ┘    ▲▼
                                                       notify ── libxl (`xl remus -c -p`)

While this proxy is not there, QEMU loses what the guest sends: nothing leaves unproved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from colod.errors import NotAllowedNow
from colod.output.colo.core import Effects, Event, Phase, ProxyCore, ProxyOptions
from colod.output.colo.counts import Counts
from colod.output.colo.framing import Framed, FrameReader, Mark, encode_frames
from colod.output.colo.notify import INIT_ANSWER, REQUEST, NotifyReader, Word, encode_word
from colod.output.colo.ports import Address, Port, PortOptions
from colod.output.colo.serving import Serving, drain
from colod.output.compare.decisions import Reason

_NEEDS_CHECKSUM = 1
"""VIRTIO_NET_HDR_F_NEEDS_CSUM. Spec: virtio 1.2, 5.1.6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyPorts:
    """Where the proxy's sockets are.

    Attributes:
        primary: By which the primary's frames come.
        secondary: By which the secondary's come; `peers` names the other host.
        out: By which frames of the primary leave.
        notify: By which libxl comes. Whoever may connect here can let held output go by one word:
            loopback only, on a host without untrusted users.
        has_headers: Whether QEMU's filters have `vnet_hdr_support`. libxl never sets it. Frames
            whose header leaves work to the interface are lost, and counted: switch the offloads of
            the guest's interface off.
    """

    primary: PortOptions
    secondary: PortOptions
    out: PortOptions
    notify: PortOptions
    has_headers: bool = False


class ColoProxy:
    """The proxy of one guest.

    Call `open`, then keep `run` going; the other methods may be called meanwhile. Dropping it
    holds, or loses, what the guest sends, and never releases anything.
    """

    def __init__(
        self,
        ports: ProxyPorts,
        options: ProxyOptions,
        tell: Callable[[Event], None],
        observe: Callable[[float], None] = lambda _: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare.

        Args:
            ports: Where its sockets are.
            options: How it decides.
            tell: Is called with each event, and must return soon.
            observe: Is told for how long each frame that was compared was held, in seconds.
            may_send: Is asked before anything leaves; what does not leave then is lost.
        """
        self._core = ProxyCore(options, observe)
        self._may_send = may_send
        self._tell = tell
        self._has_headers = ports.has_headers
        self._has_marks = options.has_marks
        self._assumes_cuts = options.are_cuts_assumed
        self._header = b"" if ports.has_headers else None
        self._offloaded = 0
        self._timer: asyncio.TimerHandle | None = None
        self._serving = Serving()
        add = self._serving.add
        self._primary = add("primary", ports.primary, self._begin_primary, self._take_primary)
        self._secondary = add(
            "secondary", ports.secondary, self._begin_secondary, self._take_secondary
        )
        self._out = add("out", ports.out, lambda: None, self._take_out)
        self._notify = add("notify", ports.notify, self._begin_notify, self._take_words)
        self._frames = {each.name: self._reader(each) for each in (self._primary, self._secondary)}
        self._words = NotifyReader()

    # -- what can be seen

    @property
    def phase(self) -> Phase:
        """What happens to the primary's output."""
        return self._core.phase

    @property
    def checkpoint(self) -> int:
        """The number of the pairing's last checkpoint, 0 before the first."""
        return self._core.checkpoint

    @property
    def is_cut_proved(self) -> bool:
        """Whether what the secondary says is proved to be newer than the last checkpoint."""
        return self._core.is_cut_proved

    @property
    def connected(self) -> frozenset[str]:
        """Which ports have a connection: primary, secondary, out, notify."""
        return self._serving.connected

    @property
    def addresses(self) -> dict[str, Address]:
        """Where each port listens, or connects to."""
        return self._serving.addresses

    def counts(self) -> Counts:
        """Return a copy of what was counted."""
        counts = self._core.counts()
        counts.offloaded_frames = self._offloaded
        counts.refused = self._serving.refused
        counts.malformed = self._serving.malformed.copy()
        counts.busy_s = self._serving.busy_s
        return counts

    # -- life

    def open(self) -> None:
        """Listen.

        Raises:
            NetworkError: If one address cannot be listened on; then none is.
        """
        self._serving.open()

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            InvariantBroken: And any other defect of ours; hold output, and exit.
        """
        try:
            await self._serving.run()
        finally:
            self.close()

    def close(self) -> None:
        """End all connections; what is held is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._serving.close()

    # -- orders

    def fence(self) -> int:
        """Cut both inputs here, for the checkpoint that is being made.

        Call it when both copies are suspended for it, and the kernel of this host has all that
        they had sent (of the secondary's: its sockets have nothing unacknowledged); before either
        can run on.

        Returns:
            The number of that checkpoint.

        Raises:
            NotAllowedNow: If libxl has not begun a pairing, or what was claimed cannot be true:
                frames come without an end, or the secondary's end within one. Nothing is cut then.
        """
        if not (drain(self._take_primary) and drain(self._take_secondary)):
            raise NotAllowedNow(self.phase, "no place to cut: frames come without an end")
        if not self._frames["secondary"].is_between_frames:
            raise NotAllowedNow(self.phase, "no place to cut: half a frame of the secondary")
        self._core.fence()
        return self._core.checkpoint + 1

    def ask(self, reason: Reason = Reason.OPERATOR) -> None:
        """Ask for a checkpoint; without a comparison this does nothing."""
        self._do(self._core.ask(reason, self._now()))

    def owner_alone(self) -> None:
        """Let out what is held, and whatever comes: this host owns the guest alone.

        The witness has confirmed that. The pairing of libxl is over.
        """
        self._do(self._core.owner_alone(self._now()))
        self._notify.disconnect()

    # -- the primary

    def _begin_primary(self) -> None:
        self._frames["primary"] = self._reader(self._primary)

    def _take_primary(self) -> bool:
        with self._reading(self._primary, Event.PRIMARY_GONE) as octets:
            if octets is None:
                return False
            # After the read and before the frames are handed over: see core.
            self._take_words()
            items = self._frames["primary"].feed(octets)
            frames = [each for each in self._whole(items) if isinstance(each, bytes)]
            if self._has_headers and items and isinstance(items[-1], Framed):
                # What leaves needs nothing of its interface, so its header says nothing.
                self._header = bytes(len(items[-1].header))
            self._do(self._core.primary(frames, self._now()))
            if len(frames) < len(items):
                self._do(self._core.lost(len(items) - len(frames)))
        return True

    # -- the secondary

    def _begin_secondary(self) -> None:
        self._frames["secondary"] = self._reader(self._secondary)
        self._core.secondary_connected()

    def _take_secondary(self) -> bool:
        with self._reading(self._secondary, Event.SECONDARY_GONE) as octets:
            if octets is None:
                return False
            items = self._frames["secondary"].feed(octets)
            self._do(self._core.secondary(self._whole(items), self._now()))
        return True

    # -- libxl

    def _begin_notify(self) -> None:
        self._words = NotifyReader()

    def _take_words(self) -> bool:
        with self._reading(self._notify, Event.LIBXL_GONE) as octets:
            if octets is None:
                return False
            for word in self._words.feed(octets):
                if word is Word.INIT:
                    self._core.begin()
                    self._notify.write(encode_word(INIT_ANSWER))
                else:
                    if self._assumes_cuts:
                        drain(self._take_secondary)
                    self._do(self._core.checkpoint_committed(self._now()))
        return True

    # -- out

    def _take_out(self) -> bool:
        with self._reading(self._out, Event.OUT_GONE) as octets:
            # QEMU says nothing here, and whatever else is here means nothing.
            return octets is not None

    def _pass_on(self, frames: tuple[bytes, ...]) -> None:
        """Send what there is room for; the rest is lost, as in a full queue of the network.

        Never waits: QEMU may be waiting for us to take more of the guest's frames before it takes
        these.
        """
        if not self._may_send():
            self._do(self._core.lost(len(frames)))
            return
        wire = encode_frames(frames, self._header)
        if self._out.write(wire):
            return
        for number, frame in enumerate(frames):
            if not self._out.write(encode_frames([frame], self._header)):
                self._do(self._core.lost(len(frames) - number))
                return

    # -- all of them

    def _reader(self, port: Port) -> FrameReader:
        has_marks = self._has_marks and port.name == "secondary"
        return FrameReader(has_headers=self._has_headers, has_marks=has_marks)

    def _whole(self, items: list[Framed | Mark]) -> Iterator[bytes | Mark]:
        """Return frames and marks, without frames that are not whole yet."""
        for each in items:
            if isinstance(each, Mark):
                yield each
            elif each.header and (each.header[0] & _NEEDS_CHECKSUM or any(each.header[1:2])):
                self._offloaded += 1
            else:
                yield each.frame

    def _reading(self, port: Port, gone: Event) -> AbstractContextManager[bytes | None]:
        return self._serving.reading(port, lambda: self._tell(gone))

    def _do(self, effects: Effects) -> None:
        if effects.send:
            self._pass_on(tuple(effects.send))
        if effects.request:
            self._notify.write(encode_word(REQUEST))
        for each in effects.events:
            self._tell(each)
        self._set_timer()

    def _set_timer(self) -> None:
        """Keep the one timer where the next deadline is."""
        deadline = self._core.next_deadline()
        if self._timer is not None:
            if self._timer.when() == deadline:
                return
            self._timer.cancel()
        self._timer = (
            None
            if deadline is None
            else asyncio.get_running_loop().call_at(
                deadline, self._serving.safely(self._on_deadline)
            )
        )

    def _on_deadline(self) -> None:
        self._timer = None
        self._do(self._core.on_deadline(self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
