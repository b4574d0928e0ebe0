"""The device: what a driver may answer, and what of it keeps a watchdog from being used."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from colod.errors import SelfFenceError
from colod.fencing import watchdog
from colod.fencing.watchdog import (
    WATCHDOG_INFO,
    WDIOC_GETSUPPORT,
    WDIOC_GETTIMEOUT,
    WDIOC_SETTIMEOUT,
    WDIOF_MAGICCLOSE,
    WDIOF_SETTIMEOUT,
    StandIn,
    Watchdog,
)

BOTH = WDIOF_MAGICCLOSE | WDIOF_SETTIMEOUT
INT = struct.Struct("@i")


class Driver:
    """Answers ioctls as a driver does; it keeps what it was told."""

    def __init__(
        self,
        options: int = BOTH,
        *,
        timeout_s: int = 60,
        rounds: Callable[[int], int] = lambda wanted_s: wanted_s,
        refuses: int = 0,
    ) -> None:
        self.options, self.timeout_s = options, timeout_s
        self.rounds, self.refuses = rounds, refuses

    def __call__(self, fd: int, request: int, buffer: bytes) -> bytes:
        if request == WDIOC_GETSUPPORT:
            return WATCHDOG_INFO.pack(self.options, 0, b"driver of a test")
        if request == WDIOC_SETTIMEOUT:
            if self.refuses:
                raise OSError(self.refuses, os.strerror(self.refuses))
            (wanted_s,) = INT.unpack(buffer)
            self.timeout_s = self.rounds(wanted_s)
        elif request != WDIOC_GETTIMEOUT:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return INT.pack(self.timeout_s)


class Node:
    """A character device that swallows what is written, and its sysfs; both in a directory."""

    def __init__(self, root: Path) -> None:
        self.device = Path("/dev/null")
        number = self.device.stat().st_rdev
        self.sys = root / "sys"
        self.attributes = self.sys / "dev" / "char" / f"{os.major(number)}:{os.minor(number)}"
        self.attributes.mkdir(parents=True)

    def tells(self, **attributes: str) -> None:
        for name, value in attributes.items():
            (self.attributes / name).write_text(f"{value}\n")

    def watchdog(self, driver: Driver | None = None) -> Watchdog:
        return Watchdog(self.device, ioctl=driver or Driver(), sys=self.sys)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def arm(dog: Watchdog, timeout_s: int = 120, *, least_s: int = 91, most_s: int = 132) -> None:
    dog.arm(timeout_s, least_s=least_s, most_s=most_s)


def test_the_numbers_are_those_of_the_kernels_header() -> None:
    """Checked by their parts: direction, size, 'W' and number."""
    for request, direction, size, number in (
        (WDIOC_GETSUPPORT, 2, WATCHDOG_INFO.size, 0),
        (WDIOC_SETTIMEOUT, 3, INT.size, 6),
        (WDIOC_GETTIMEOUT, 2, INT.size, 7),
    ):
        assert request == direction << 30 | size << 16 | ord("W") << 8 | number


def test_it_takes_the_time_out_and_is_let_go(node: Node) -> None:
    dog = node.watchdog()
    arm(dog)
    assert dog.is_open
    assert (dog.timeout_s, dog.identity) == (120, "driver of a test")
    dog.feed()
    node.tells(state="inactive")
    dog.disarm()
    assert not dog.is_open


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        pytest.param(Driver(WDIOF_SETTIMEOUT), "no magic close", id="no magic close"),
        pytest.param(
            Driver(refuses=errno.EINVAL), "60 s and refused 120 s (Invalid argument)", id="refused"
        ),
        pytest.param(Driver(WDIOF_MAGICCLOSE), "time-out of 60 s, want 120 s", id="fixed"),
        pytest.param(Driver(rounds=lambda _: 63), "time-out of 63 s", id="rounded down"),
        pytest.param(Driver(rounds=lambda _: 180), "at most 132 s", id="rounded up"),
    ],
)
def test_a_driver_that_will_not_do_is_named_and_let_go(
    node: Node, driver: Driver, words: str
) -> None:
    dog = node.watchdog(driver)
    with pytest.raises(SelfFenceError) as refused:
        arm(dog)
    assert words in str(refused.value)
    assert str(node.device) in str(refused.value)
    assert not dog.is_open
    assert dog.was_started


def test_a_driver_that_rounds_within_bounds_will_do(node: Node) -> None:
    dog = node.watchdog(Driver(rounds=lambda wanted_s: -(-wanted_s // 8) * 8 + 8))
    arm(dog)
    assert dog.timeout_s == 128


def test_a_driver_that_refuses_but_has_a_fitting_time_out_will_do(node: Node) -> None:
    dog = node.watchdog(Driver(timeout_s=100, refuses=errno.EOPNOTSUPP))
    arm(dog)
    assert dog.timeout_s == 100


def test_one_without_a_way_out_is_not_even_opened(node: Node) -> None:
    node.tells(nowayout="1", state="inactive")
    dog = node.watchdog()
    with pytest.raises(SelfFenceError, match="nowayout"):
        arm(dog)
    assert not dog.was_started


def test_one_without_a_way_out_that_runs_already_is_fed(node: Node) -> None:
    """Nowayout may be set while it runs: not to open it again would reset the host."""
    node.tells(nowayout="1", state="active")
    dog = node.watchdog()
    arm(dog)
    assert dog.is_open


def test_one_that_did_not_stop_is_told_of(node: Node) -> None:
    dog = node.watchdog()
    arm(dog)
    node.tells(state="active")
    with pytest.raises(SelfFenceError, match="did not stop"):
        dog.disarm()
    assert not dog.is_open


def test_a_missing_device_is_named_with_what_to_do(tmp_path: Path) -> None:
    dog = Watchdog(tmp_path / "watchdog")
    with pytest.raises(SelfFenceError, match="load its driver"):
        arm(dog)
    with pytest.raises(SelfFenceError, match="load its driver"):
        dog.look()


def test_what_is_no_device_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "watchdog"
    path.write_text("")
    with pytest.raises(SelfFenceError, match="no device"):
        arm(Watchdog(path))
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(SelfFenceError, match="no device"):
        arm(Watchdog(pipe))


def test_a_device_that_another_program_holds_names_who_it_may_be(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> int:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "open", busy)
    dog = node.watchdog()
    with pytest.raises(SelfFenceError, match=r"RuntimeWatchdogSec=.*sbd.* holds it"):
        arm(dog)
    assert not dog.was_started


def test_what_is_known_without_opening_it(node: Node) -> None:
    dog = node.watchdog()
    assert dog.look() == watchdog.Found()
    node.tells(identity="xen_wdt", state="inactive", nowayout="0")
    assert dog.look() == watchdog.Found("xen_wdt", is_running=False, has_way_out=True)
    assert not dog.is_open


def read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 4096)
    except BlockingIOError:
        return b""


def test_what_is_written_to_it_and_what_is_not(tmp_path: Path) -> None:
    """A 'V' anywhere but at the end would leave it unguarded, one that lacks would reset a host."""
    path = tmp_path / "watchdog-stand-in"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        dog = StandIn(path)
        dog.arm(9, least_s=1, most_s=10)
        assert read(pipe) == b"timeout=9\n."
        dog.feed()
        assert read(pipe) == b"."
        dog.leave()
        assert read(pipe) == b""
        dog.arm(9, least_s=1, most_s=10)
        assert read(pipe) == b"timeout=9\n."
        dog.arm(9, least_s=1, most_s=10)
        assert read(pipe) == b"."
        dog.disarm()
        assert read(pipe) == b"V"
        assert "stand-in" in dog.look().identity
        assert stat.S_ISFIFO(path.stat().st_mode)
    finally:
        os.close(pipe)
    with pytest.raises(SelfFenceError, match="nobody stands in"):
        StandIn(path).arm(9, least_s=1, most_s=10)
