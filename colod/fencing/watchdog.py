"""A watchdog of Linux: whoever opens it must feed it, or the machine is reset.

What the kernel does, and what follows for who uses this:

- Opening it starts it, and only one program may hold it. So nothing here opens it to look.
- A write feeds it. A 'V' in the last write before it is closed stops it ("magic close"); closed
  without one it runs on, and whoever opens it again goes on where the other left off. Opening a
  running one does not feed it, so it is fed at once.
- With `nowayout` nothing stops it; without the driver's flag MAGICCLOSE every close does. Neither
  kind is used: the one would reset a host whose daemon is only stopped, the other would not
  outlive the daemon.
- A driver may round the time-out, or have one that cannot be changed; what it has is asked.

Under Xen the driver `xen_wdt` gives the domain watchdog (SCHEDOP_watchdog) as such a device. It
runs in the hypervisor, so it resets a machine whose dom0 hangs: for dom0, Xen reboots the machine.

Source: Linux Documentation/watchdog/watchdog-api.rst, drivers/watchdog/{watchdog_dev,xen_wdt}.c,
include/uapi/linux/watchdog.h, Documentation/ABI/testing/sysfs-class-watchdog; Xen
xen/common/sched/core.c, "domain_watchdog_timeout".
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colod.errors import SelfFenceError

# _IOC(direction, 'W', number, size) of include/uapi/asm-generic/ioctl.h, as on x86 and Arm.
WDIOC_GETSUPPORT: Final = 0x80285700
WDIOC_SETTIMEOUT: Final = 0xC0045706
WDIOC_GETTIMEOUT: Final = 0x80045707
WDIOF_SETTIMEOUT: Final = 0x0080
WDIOF_MAGICCLOSE: Final = 0x0100
WATCHDOG_INFO: Final = struct.Struct("@II32s")
"""struct watchdog_info: options, firmware_version, identity."""

STAND_IN: Final = "stand-in, resets nothing"

_SECONDS: Final = struct.Struct("@i")
_FEED: Final = b"."
_MAGIC: Final = b"V"
_FIRST_ALIAS: Final = (10, 130)
"""/dev/watchdog, a second name of the first one: MISC_MAJOR, WATCHDOG_MINOR."""

_HOLDERS: Final = "systemd (RuntimeWatchdogSec=), sbd, watchdog or another program"
_CAUSES: Final = {
    errno.ENOENT: "there is none; load its driver (xen_wdt, or the board's)",
    errno.ENXIO: "its driver is gone, or nobody stands in for it",
    errno.ENODEV: "its driver is gone",
    errno.EBUSY: f"{_HOLDERS} holds it",
}

Ioctl = Callable[[int, int, bytes], bytes]
"""`fcntl.ioctl` with a buffer that is copied; raises OSError."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a watchdog that was not opened; "" and None where the kernel does not tell.

    Attributes:
        identity: The driver's name for it.
        is_running: Whether it was started and not stopped.
        has_way_out: Whether it can be stopped.
    """

    identity: str = ""
    is_running: bool | None = None
    has_way_out: bool | None = None


def _ioctl(fd: int, request: int, buffer: bytes) -> bytes:
    return fcntl.ioctl(fd, request, buffer)


class Watchdog:
    """One device. Its calls may block for as long as the driver takes: not for an event loop.

    Attributes:
        device: Its path.
        identity: The driver's name for it, "" before it was armed.
        timeout_s: Time after which it resets the machine if it is not fed, as the driver has it.
        was_started: Whether the last attempt to arm it opened it, and so started it.
    """

    def __init__(self, device: Path, *, ioctl: Ioctl = _ioctl, sys: Path = Path("/sys")) -> None:
        """Touch nothing yet."""
        self.device = device
        self.identity = ""
        self.timeout_s = 0
        self.was_started = False
        self._ioctl: Ioctl = ioctl
        self._sys = sys
        self._fd: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether this process holds it, and so has to feed it."""
        return self._fd is not None

    def look(self) -> Found:
        """Return what can be known without opening it.

        Raises:
            SelfFenceError: If it is not there, or is something else.
        """
        attributes = self._attributes()
        no_way_out = _word(attributes / "nowayout")
        state = _word(attributes / "state")
        return Found(
            identity=_word(attributes / "identity"),
            is_running=state == "active" if state else None,
            has_way_out=no_way_out == "0" if no_way_out else None,
        )

    def arm(self, timeout_s: int, *, least_s: int, most_s: int) -> None:
        """Start it, or go on with one that runs; feed it from now on, well within its time-out.

        Args:
            timeout_s: The time-out that is wanted.
            least_s: The shortest that will do: less would reset the host for a restart.
            most_s: The longest that will do.

        Raises:
            SelfFenceError: If it cannot be used. It is stopped again as far as it can be; `look`
                tells whether it is.
        """
        if self.is_open:
            self.feed()  # what was taken for given up was done after all
            return
        self.was_started = False
        found = self.look()
        if found.has_way_out is False and not found.is_running:
            raise self._error("it was made not to be stopped (nowayout): use another, or reload it")
        try:
            # Never to wait for a reader, should the path be a pipe.
            self._fd = os.open(self.device, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            raise self._os_error(error) from error
        self.was_started = True
        try:
            self._set_up(timeout_s, least_s, most_s)
            self.feed()
        except SelfFenceError:
            self._close(_MAGIC)
            raise

    def _set_up(self, timeout_s: int, least_s: int, most_s: int) -> None:
        options, _, identity = WATCHDOG_INFO.unpack(
            self._ask(WDIOC_GETSUPPORT, bytes(WATCHDOG_INFO.size), "what it can do")
        )
        self.identity = identity.rstrip(b"\0").decode(errors="replace")
        if not options & WDIOF_MAGICCLOSE:
            raise self._error(f"{self.identity} has no magic close: it cannot be disarmed for sure")
        refusal = ""
        if options & WDIOF_SETTIMEOUT:
            assert self._fd is not None
            try:
                self._ioctl(self._fd, WDIOC_SETTIMEOUT, _SECONDS.pack(timeout_s))
            except OSError as error:
                refusal = f" and refused {timeout_s} s ({error.strerror})"
        answer = self._ask(WDIOC_GETTIMEOUT, _SECONDS.pack(0), f"its time-out{refusal}")
        (self.timeout_s,) = _SECONDS.unpack(answer)
        if not least_s <= self.timeout_s <= most_s:
            raise self._error(
                f"{self.identity} has a time-out of {self.timeout_s} s{refusal}, want {timeout_s} s"
                f" (at least {least_s} s, at most {most_s} s)"
            )

    def feed(self) -> None:
        """Give it its whole time again.

        Raises:
            SelfFenceError: If it took nothing; it runs on.
        """
        assert self._fd is not None
        try:
            os.write(self._fd, _FEED)
        except OSError as error:
            raise self._os_error(error) from error

    def disarm(self) -> None:
        """Stop it and let it go.

        Raises:
            SelfFenceError: If it runs on: it has to be armed and fed again, or the host is reset.
        """
        self._close(_MAGIC)
        try:
            is_running = self.look().is_running
        except SelfFenceError:
            return  # its driver is gone, and it with that
        if is_running:
            raise self._error("it did not stop")

    def leave(self) -> None:
        """Let it go and let it run on: unless it is opened and fed in time, the host is reset."""
        self._close(b"")

    def _close(self, last: bytes) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            if last:
                os.write(fd, last)
        except OSError:
            pass  # what became of it is looked at
        finally:
            os.close(fd)

    def _ask(self, request: int, buffer: bytes, what: str) -> bytes:
        assert self._fd is not None
        try:
            return self._ioctl(self._fd, request, buffer)
        except OSError as error:
            raise self._error(f"it does not say {what} ({error.strerror})") from error

    def _attributes(self) -> Path:
        """Return the directory of what the kernel tells of it, which need not be there."""
        try:
            found = self.device.stat()
        except OSError as error:
            raise self._os_error(error) from error
        if not stat.S_ISCHR(found.st_mode):
            raise self._error("it is no device")
        number = (os.major(found.st_rdev), os.minor(found.st_rdev))
        if number == _FIRST_ALIAS:
            return self._sys / "class" / "watchdog" / "watchdog0"
        return self._sys / "dev" / "char" / f"{number[0]}:{number[1]}"

    def _os_error(self, error: OSError) -> SelfFenceError:
        return self._error(_CAUSES.get(error.errno or 0, str(error.strerror)))

    def _error(self, what: str) -> SelfFenceError:
        return SelfFenceError(f"watchdog {self.device}: {what}")


class StandIn(Watchdog):
    """A pipe that stands in for a watchdog where there is none: in demos, drills and tests.

    Whoever reads it sees `.` for each feed, `V` before it is stopped, and `timeout=N` and a newline
    for the time-out. It resets nothing.
    """

    def __init__(self, device: Path) -> None:
        """Touch nothing yet."""
        super().__init__(device, ioctl=self._answer)
        self._asked_s = 0

    def look(self) -> Found:
        """Return that it is a stand-in.

        Raises:
            SelfFenceError: If there is no such pipe.
        """
        try:
            is_pipe = stat.S_ISFIFO(self.device.stat().st_mode)
        except OSError as error:
            raise self._os_error(error) from error
        if not is_pipe:
            raise self._error("it is no pipe, so it stands in for nothing")
        return Found(identity=STAND_IN)

    def _answer(self, fd: int, request: int, buffer: bytes) -> bytes:
        """Answer as a driver would that takes every time-out."""
        if request == WDIOC_GETSUPPORT:
            options = WDIOF_MAGICCLOSE | WDIOF_SETTIMEOUT
            return WATCHDOG_INFO.pack(options, 0, STAND_IN.encode())
        if request == WDIOC_SETTIMEOUT:
            (self._asked_s,) = _SECONDS.unpack(buffer)
            os.write(fd, f"timeout={self._asked_s}\n".encode())
        return _SECONDS.pack(self._asked_s)


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
