"""Notice that the link to the other host goes down before its silence tells, by netlink.

What the kernel announces is only the occasion to look: routes and links are asked anew each time,
so that nothing depends on an announcement that was missed. A thread of its own asks; it needs no
privileges. Whatever fails here means that silence is noticed by time alone.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Protocol

import structlog
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_LINK

from colod.config import split_address
from colod.observe.logs import Event

_log = structlog.get_logger()

LOOK_S: Final = 2.0
"""How often routes are looked at, whose changes are not listened to."""

_RETRY_S: Final = 10.0
_JOIN_S: Final = 5.0
_READ_BYTES: Final = 1 << 16
_IFF_UP: Final = 0x1
_IFF_LOWER_UP: Final = 0x10000
# All that the route's entry says, and not only the way that one packet would take now.
# Source: Linux include/uapi/linux/rtnetlink.h, RTM_F_FIB_MATCH.
_FIB_MATCH: Final = 0x2000
_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOENT, errno.ESRCH})


class Kernel(Protocol):
    """What is asked of the kernel; all calls belong to one thread, and may raise OSError."""

    def devices(self, address: str) -> frozenset[int]:
        """Return the devices that the route to `address` uses; none without a route."""

    def has_carrier(self, device: int) -> bool:
        """Whether the device is up and has its link; one that is gone has none."""

    def wait(self, timeout_s: float) -> None:
        """Return when a link has changed, after `timeout_s` seconds, or when woken."""

    def wake(self) -> None:
        """End the wait; the one call that other threads may make."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(slots=True)
class _Path:
    """The way to one host: the devices of its route, and since when none of them has a link."""

    addresses: Sequence[str] = ()
    devices: frozenset[int] = frozenset()
    had_carrier: bool = False
    lost_at: float | None = None

    def see(self, routed: frozenset[int], has_carrier: Callable[[int], bool], now: float) -> None:
        """Take note of the route and its links.

        Without a route the last one stands: who takes a device down takes its routes, too. Only a
        link that was seen before can be lost.
        """
        self.devices = routed or self.devices
        if any(has_carrier(device) for device in self.devices):
            self.had_carrier, self.lost_at = True, None
        elif self.had_carrier and self.lost_at is None:
            self.lost_at = now


class CarrierWatch:
    """Knows since when the hosts that it was asked about cannot be reached for want of a link."""

    def __init__(
        self, on_change: Callable[[], None], connect: Callable[[], Kernel] | None = None
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            on_change: Told, in the watch's thread, that a link was lost or has come back.
            connect: Opens the way to the kernel, in that thread.
        """
        self._on_change = on_change
        self._connect = connect or Netlink
        self._kernel: Kernel | None = None
        self._paths: dict[str, _Path] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="carrier", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._wake()
        self._thread.join(timeout=_JOIN_S)

    def lost_at(self, address: str) -> float | None:
        """Return since when no link on the way to `address` is up, in monotonic time.

        The first question only begins the watch.

        Args:
            address: `host:port` or what else a transport has for one.

        Returns:
            None if there is a link, or that is not known.
        """
        host = _host_of(address)
        if not host:
            return None
        with self._lock:
            path = self._paths.get(host)
            if path is not None:
                return path.lost_at
            self._paths[host] = _Path()
        self._wake()
        return None

    def _wake(self) -> None:
        if (kernel := self._kernel) is not None:
            kernel.wake()

    def _run(self) -> None:
        told = ""
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception as error:
                if (words := f"{type(error).__name__}: {error}") != told:
                    told = words
                    _log.warning(Event.CARRIER_UNWATCHED, error=words)
                self._forget()
                self._stop.wait(_RETRY_S)

    def _watch(self) -> None:
        self._kernel = kernel = self._connect()
        try:
            while not self._stop.is_set():
                self._look(kernel)
                kernel.wait(LOOK_S)
        finally:
            self._kernel = None
            kernel.close()

    def _look(self, kernel: Kernel) -> None:
        with self._lock:
            paths = dict(self._paths)
        for host, path in paths.items():
            path.addresses = path.addresses or _addresses(host)
            routed = [kernel.devices(address) for address in path.addresses]
            was = path.lost_at
            path.see(frozenset().union(*routed), kernel.has_carrier, time.monotonic())
            if path.lost_at != was:
                change = Event.CARRIER_LOST if was is None else Event.CARRIER_RETURNED
                _log.info(change, peer_address=host)
                self._on_change()

    def _forget(self) -> None:
        """Know nothing any more: what was lost may be back by now."""
        with self._lock:
            self._paths = {host: _Path() for host in self._paths}
        self._on_change()


class Netlink:
    """The real kernel."""

    def __init__(self) -> None:
        """Open the sockets.

        Raises:
            OSError: If there is no netlink.
        """
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._news = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            )
            self._news.setblocking(False)
            self._news.bind((0, RTMGRP_LINK))
            self._woken, self._waker = socket.socketpair()
            stack.enter_context(self._woken).setblocking(False)
            stack.enter_context(self._waker).setblocking(False)
            self._route = stack.enter_context(IPRoute())
            self._closing = stack.pop_all()

    def devices(self, address: str) -> frozenset[int]:
        """Ask for the route's whole entry."""
        try:
            routes = self._route.route("get", dst=address, flags=_FIB_MATCH)
        except NetlinkError as error:
            if error.code in _NO_ROUTE:
                return frozenset()
            raise
        return frozenset(device for route in routes for device in _devices(route))

    def has_carrier(self, device: int) -> bool:
        """Look at the device's flags."""
        try:
            (link,) = self._route.link("get", index=device)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return False
            raise
        wanted = _IFF_UP | _IFF_LOWER_UP
        return bool(link["flags"] & wanted == wanted)

    def wait(self, timeout_s: float) -> None:
        """Wait for any announcement, and throw away all that there are."""
        select.select((self._news, self._woken), (), (), timeout_s)
        for each in (self._news, self._woken):
            try:
                while each.recv(_READ_BYTES):
                    pass
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # some were lost: a look finds out all
                    raise

    def wake(self) -> None:
        """End the wait; one that cannot be told has been told already, or has ended."""
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def close(self) -> None:
        """Close the sockets."""
        self._closing.close()


def _devices(route: Any) -> Sequence[int]:
    hops = route.get("RTA_MULTIPATH")
    if hops:
        return [hop["oif"] for hop in hops]
    device = route.get("RTA_OIF")
    return [] if device is None else [device]


def _host_of(address: str) -> str:
    """Return the host of an address; "" if it has none, as the path of a unix socket."""
    try:
        host = split_address(address)[0]
    except ValueError:
        return ""
    return "" if "/" in host else host


def _addresses(host: str) -> Sequence[str]:
    """Return the numeric addresses of a host; none where the device is not the route's to choose.

    A name may have several, and any of them may be in use: each counts as a way.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # the latter for what cannot be a name
        return ()
    numbers = [ip_address(each) for each in sorted(found)]
    if any(each.is_link_local for each in numbers):
        return ()
    return [str(getattr(each, "ipv4_mapped", None) or each) for each in numbers]
