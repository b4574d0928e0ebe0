"""The COLO proxy of one guest on its primary: it stands where QEMU's colo-compare stood.

    guest ─▶ QEMU filter-redirector ─▶ primary ┐
                                                ├─ ColoProxy ─▶ out ─▶ QEMU filter-redirector ─▶ tap
    secondary's QEMU, or colod's relay ─▶ secondary ┘    ▲▼
                                                       notify ── libxl (`xl remus -c -p`)

While this proxy is not there, QEMU loses what the guest sends: nothing leaves unproved.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from colod.errors import NotAllowedNow, PeerRefused, StreamError
from colod.output.colo.core import Effects, Event, Phase, ProxyCore, ProxyOptions
from colod.output.colo.counts import Counts
from colod.output.colo.framing import Framed, FrameReader, Mark, encode_frames
from colod.output.colo.notify import INIT_ANSWER, REQUEST, NotifyReader, Word, encode_word
from colod.output.colo.ports import Address, Port, PortOptions
from colod.output.compare.decisions import Reason

_log = logging.getLogger(__name__)

_MOST_READS = 1024
"""More than any socket's buffer can hold: who fills it meanwhile is not suspended."""

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
        self, ports: ProxyPorts, options: ProxyOptions, tell: Callable[[Event], None]
    ) -> None:
        """Prepare.

        Args:
            ports: Where its sockets are.
            options: How it decides.
            tell: Is called with each event, and must return soon.
        """
        self._core = ProxyCore(options)
        self._tell = tell
        self._has_headers = ports.has_headers
        self._has_marks = options.has_marks
        self._assumes_cuts = options.are_cuts_assumed
        self._header = b"" if ports.has_headers else None
        self._own = Counts()
        self._timer: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None] | None = None
        self._primary = self._port(
            "primary", ports.primary, self._begin_primary, self._take_primary
        )
        self._secondary = self._port(
            "secondary", ports.secondary, self._begin_secondary, self._take_secondary
        )
        self._out = self._port("out", ports.out, lambda: None, self._take_out)
        self._notify = self._port("notify", ports.notify, self._begin_notify, self._take_words)
        self._ports = (self._primary, self._secondary, self._out, self._notify)
        self._frames = {each.name: self._reader(each) for each in self._ports[:2]}
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
        return frozenset(each.name for each in self._ports if each.is_connected)

    @property
    def addresses(self) -> dict[str, Address]:
        """Where each port listens, or connects to."""
        return {each.name: each.address for each in self._ports}

    def counts(self) -> Counts:
        """Return a copy of what was counted."""
        counts = self._core.counts()
        counts.offloaded_frames = self._own.offloaded_frames
        counts.malformed = self._own.malformed.copy()
        counts.busy_s = self._own.busy_s
        for each in self._ports:
            counts.refused[each.name] = each.refused
        return counts

    # -- life

    def open(self) -> None:
        """Listen.

        Raises:
            NetworkError: If one address cannot be listened on; then none is.
        """
        self._failed = asyncio.get_running_loop().create_future()
        try:
            for each in self._ports:
                each.open()
        except BaseException:
            self.close()
            raise

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            InvariantBroken: And any other defect of ours; hold output, and exit.
        """
        assert self._failed is not None, "open() was not called"
        tasks = [
            asyncio.create_task(each.run(), name=f"colo-{each.name}")
            for each in self._ports
            if each.is_dialled
        ]
        for each in tasks:
            each.add_done_callback(self._ended)
        try:
            await self._failed
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """End all connections; what is held is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for each in self._ports:
            each.close()

    # -- orders

    def fence(self) -> int:
        """Cut both inputs here, for the checkpoint that is being made.

        Call it when both copies are suspended for it, and the kernel of this host has all that
        they had sent (of the secondary's: its sockets have nothing unacknowledged); before either
        can run on.

        Returns:
            The number of that checkpoint.

        Raises:
            NotAllowedNow: If libxl has not begun a pairing, or frames come without an end.
        """
        if not (self._drain(self._take_primary) and self._drain(self._take_secondary)):
            raise NotAllowedNow(self.phase, "no place to cut: frames come without an end")
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
        with self._guarded(self._primary, Event.PRIMARY_GONE) as octets:
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
        with self._guarded(self._secondary, Event.SECONDARY_GONE) as octets:
            if octets is None:
                return False
            items = self._frames["secondary"].feed(octets)
            self._do(self._core.secondary(self._whole(items), self._now()))
        return True

    # -- libxl

    def _begin_notify(self) -> None:
        self._words = NotifyReader()

    def _take_words(self) -> bool:
        with self._guarded(self._notify, Event.LIBXL_GONE) as octets:
            if octets is None:
                return False
            for word in self._words.feed(octets):
                if word is Word.INIT:
                    self._core.begin()
                    self._notify.write(encode_word(INIT_ANSWER))
                else:
                    if self._assumes_cuts:
                        self._drain(self._take_secondary)
                    self._do(self._core.checkpoint_committed(self._now()))
        return True

    # -- out

    def _take_out(self) -> bool:
        with self._guarded(self._out, Event.OUT_GONE) as octets:
            # QEMU says nothing here, and whatever else is here means nothing.
            return octets is not None

    def _pass_on(self, frames: tuple[bytes, ...]) -> None:
        """Send what there is room for; the rest is lost, as in a full queue of the network.

        Never waits: QEMU may be waiting for us to take more of the guest's frames before it takes
        these.
        """
        wire = encode_frames(frames, self._header)
        if self._out.write(wire):
            return
        for number, frame in enumerate(frames):
            if not self._out.write(encode_frames([frame], self._header)):
                self._do(self._core.lost(len(frames) - number))
                return

    # -- all of them

    def _port(
        self,
        name: str,
        options: PortOptions,
        begin: Callable[[], None],
        take: Callable[[], bool],
    ) -> Port:
        return Port(name, options, self._safely(begin), self._safely(take))

    def _reader(self, port: Port) -> FrameReader:
        has_marks = self._has_marks and port.name == "secondary"
        return FrameReader(has_headers=self._has_headers, has_marks=has_marks)

    def _whole(self, items: list[Framed | Mark]) -> Iterator[bytes | Mark]:
        """Return frames and marks, without frames that are not whole yet."""
        for each in items:
            if isinstance(each, Mark):
                yield each
            elif each.header and (each.header[0] & _NEEDS_CHECKSUM or any(each.header[1:2])):
                self._own.offloaded_frames += 1
            else:
                yield each.frame

    @contextmanager
    def _guarded(self, port: Port, gone: Event) -> Iterator[bytes | None]:
        """Read from a port; end its connection if that ends or makes no sense."""
        try:
            octets = port.read()
            if octets == b"":
                self._end(port, gone)
                octets = None
            yield octets
        except (StreamError, PeerRefused, NotAllowedNow) as error:
            self._own.malformed[port.name] += 1
            _log.warning("colo.malformed port=%s %s", port.name, error)
            self._end(port, gone)

    def _end(self, port: Port, gone: Event) -> None:
        port.disconnect()
        _log.info("colo.disconnected port=%s", port.name)
        self._tell(gone)

    def _drain(self, take: Callable[[], bool]) -> bool:
        """Take in all that the kernel has of a port; False if that has no end."""
        return any(not take() for _ in range(_MOST_READS))

    def _safely(self, what: Callable[[], object]) -> Callable[[], None]:
        """Return a callback that is timed, and whose defects end `run`."""

        def call() -> None:
            begin = time.perf_counter()
            try:
                what()
            except Exception as error:
                self._fail(error)
            finally:
                self._own.busy_s += time.perf_counter() - begin

        return call

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        assert self._failed is not None
        if not self._failed.done():
            self._failed.set_exception(error)

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
            else asyncio.get_running_loop().call_at(deadline, self._safely(self._on_deadline))
        )

    def _on_deadline(self) -> None:
        self._timer = None
        self._do(self._core.on_deadline(self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
