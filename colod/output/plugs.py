"""All plugs of one guest in the kernel: set up or not at all, closed together, opened for good.

Blocking; all calls belong to one thread, but for `survey`, which may have a thread of its own:
nobody should keep a guest suspended for a look at its queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from colod.errors import NetworkError
from colod.output.naming import EMULATED_SUFFIX
from colod.output.plug import Found, Kernel, Netlink, PlugAction, Queue
from colod.output.port import NotClosed, Survey

_DRAIN_S = 2.0
_DRAIN_STEP_S = 0.005


class KernelPlugs:
    """The plugs of one guest's interfaces; `port.Plugs` says what each call promises."""

    def __init__(
        self,
        interfaces: Sequence[str],
        limit_bytes: int,
        label: str = "",
        kernel: Callable[[], Kernel] = Netlink,
    ) -> None:
        """Touch nothing yet.

        Args:
            interfaces: Of the guest in dom0, emulated twins included.
            limit_bytes: Most that each plug holds before it drops.
            label: What is written on the devices for people: the guest and the pairing.
            kernel: Opens the way to the kernel, in the thread that uses it.
        """
        self._wanted = tuple(interfaces)
        self._limit_bytes = limit_bytes
        self._label = label
        self._connect = kernel
        self._connected: Kernel | None = None
        self._watching: Kernel | None = None
        self._ready: list[str] = []
        self._seen: dict[str, int] = {}
        self._broken = ""
        self._is_closed = False

    def prepare(self) -> None:
        """Give each interface an ifb with a fresh plug; its output still flows as before.

        What an earlier session left on these interfaces is opened first: whoever begins a pairing
        owns the guest alone.

        Raises:
            NetworkError: If one of them failed; none of them is left.
        """
        self._is_closed = False
        self._broken = ""
        try:
            self._open_all(self._wanted)
            self._prepare(self._wanted)
        except NetworkError:
            self._let_go()
            raise

    def close(self) -> None:
        """Redirect every interface into its plug, which holds from the first packet on."""
        if not self._ready:
            raise NotClosed("no plug is there to close", undone=True)
        try:
            for interface in self._ready:
                self._kernel.redirect(interface)
        except NetworkError as error:
            raise NotClosed(str(error), undone=self._renew()) from error
        self._is_closed = True

    def cover(self, interface: str) -> None:
        """Take in one more interface; fine if it is covered."""
        if interface not in self._ready:
            self._open_all([interface])
            self._prepare([interface])
        if self._is_closed and not self._kernel.is_held(interface):
            self._kernel.redirect(interface)

    def set_barrier(self) -> None:
        """End the current count of every plug."""
        self._change_all(PlugAction.BUFFER)

    def release_one(self) -> None:
        """Let out what every plug counted up to its last barrier."""
        self._change_all(PlugAction.RELEASE_ONE)

    def open(self) -> None:
        """Let everything out and give the interfaces back as they were; fine if that was done."""
        self._open_all(dict.fromkeys((*self._wanted, *self._ready)))
        self._ready.clear()
        self._is_closed = False
        self._let_go()

    def discard(self) -> None:
        """Drop what is held, and keep an interface that is still there mute.

        For a guest whose domain is gone, or must never be heard again: without its ifb, a redirect
        drops what it takes (Linux net/sched/act_mirred.c, "target device is gone").

        Raises:
            NetworkError: If something is left; it may be tried again.
        """
        _each(dict.fromkeys((*self._wanted, *self._ready)), self._kernel.remove_queue)
        self._ready.clear()
        self._let_go()

    def survey(self) -> Survey:
        """Return what is held, and which of the guest's interfaces are not.

        An interface whose redirect somebody took away counts as one that appeared.
        """
        if self._watching is None:
            self._watching = self._connect()
        kernel, ready, is_closed = self._watching, tuple(self._ready), self._is_closed
        there = kernel.interfaces((*self._wanted, *ready))
        queues = [self._look(kernel, each) for each in ready]
        covered = {each for each in ready if not is_closed or kernel.is_held(each)}
        return Survey(
            packets=sum(each.held_packets for each in queues),
            octets=sum(each.held_bytes for each in queues),
            dropped=sum(each.dropped_packets for each in queues),
            appeared=there - covered,
            vanished=frozenset(ready) - there,
            added=frozenset(each for each in there if not self._was_there(each)),
        )

    def _was_there(self, interface: str) -> bool:
        """Whether it is one that was found at first, or the emulated twin of one."""
        return bool({interface, interface.removesuffix(EMULATED_SUFFIX)}.intersection(self._wanted))

    def disconnect(self) -> None:
        """Let go of the kernel; plugs stay as they are. No other call may be going on."""
        for kernel in (self._connected, self._watching):
            if kernel is not None:
                kernel.close()
        self._connected = self._watching = None

    def _let_go(self) -> None:
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    @property
    def _kernel(self) -> Kernel:
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    def _prepare(self, interfaces: Sequence[str]) -> None:
        before = len(self._ready)
        try:
            for interface in interfaces:
                self._add(interface)
        except NetworkError:
            added = self._ready[before:]
            del self._ready[before:]
            self._open_all(added)
            raise

    def _add(self, interface: str) -> None:
        self._kernel.add_queue(interface, self._label, self._limit_bytes)
        self._seen.pop(interface, None)
        try:
            self._kernel.add_ingress(interface)
        except NetworkError:
            self._kernel.remove_queue(interface)
            raise
        self._ready.append(interface)

    def _look(self, kernel: Kernel, interface: str) -> Queue:
        """Read a plug's figures, and notice that somebody emptied it behind our back.

        Taking the ifb down empties the plug but keeps its counts, so that they would let newer
        packets out. Source: Linux net/sched/sch_plug.c, `.reset = qdisc_reset_queue`.
        """
        queue = kernel.queue(interface)
        total = queue.held_packets + queue.passed_packets
        if total < self._seen.get(interface, 0):
            self._broken = f"the plug of {interface} was emptied from outside; its counts are wrong"
        self._seen[interface] = total
        return queue

    def _change_all(self, action: PlugAction) -> None:
        if self._broken:
            raise NetworkError(self._broken)
        for interface in self._ready:
            self._kernel.change(interface, action)

    def _renew(self) -> bool:
        """Open all again, and give each a fresh plug, for one that was opened counts wrongly.

        Returns:
            Whether everything is as it was.
        """
        interfaces = tuple(self._ready)
        try:
            self._open_all(interfaces)
            self._ready.clear()
            self._prepare(interfaces)
        except NetworkError:
            return False
        return True

    def _open_all(self, interfaces: Iterable[str]) -> None:
        _each(interfaces, self._open_one)

    def _open_one(self, interface: str) -> None:
        """Let out before undoing: nothing newer may overtake what is held for long."""
        kernel = self._kernel
        if not kernel.has_queue(interface):
            kernel.remove_ingress(interface)  # a redirect to nowhere keeps the guest mute
            return
        kernel.change(interface, PlugAction.RELEASE_INDEFINITE)
        kernel.remove_ingress(interface)
        _wait(lambda: kernel.is_drained(interface))
        kernel.remove_queue(interface)


def found_in_kernel(kernel: Callable[[], Kernel] = Netlink) -> tuple[Found, ...]:
    """Return what is there of any guest's gate, for doctor and after a crash; blocks.

    Raises:
        NetworkError: If the kernel cannot be asked.
    """
    asked = kernel()
    try:
        return asked.found()
    finally:
        asked.close()


def _each(interfaces: Iterable[str], do: Callable[[str], None]) -> None:
    """Do it for every interface, even if it fails for some."""
    failures = []
    for interface in interfaces:
        try:
            do(interface)
        except NetworkError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise NetworkError("; ".join(str(error) for error in failures))


def _wait(condition: Callable[[], bool]) -> None:
    """Wait until it holds.

    Raises:
        NetworkError: If it does not within 2 seconds.
    """
    deadline = time.monotonic() + _DRAIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise NetworkError(f"a plug was opened and is not empty after {_DRAIN_S} s")
        time.sleep(_DRAIN_STEP_S)
