"""The watch over links: what a loss is, and that a failure of the watch is none."""

from __future__ import annotations

import threading
import time
from functools import partial

from colod.daemon.carrier import CarrierWatch
from tests.pair import until

PEER = "192.0.2.2:7411"


class FakeKernel:
    """Routes and links that the test changes."""

    def __init__(self) -> None:
        self.routes: dict[str, frozenset[int]] = {"192.0.2.2": frozenset({1})}
        self.up = {1, 2}
        self.fails = False
        self.looks = 0
        self._woken = threading.Event()

    def devices(self, address: str) -> frozenset[int]:
        if self.fails:
            raise OSError("no netlink here")
        self.looks += 1
        return self.routes.get(address, frozenset())

    def has_carrier(self, device: int) -> bool:
        return device in self.up

    def wait(self, timeout_s: float) -> None:
        self._woken.wait(timeout_s)
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Nothing is open."""

    def look(self) -> None:
        """Have the watch look twice, so that the second saw all that was changed before."""
        for _ in range(2):
            seen = self.looks
            self.wake()
            until(partial(self._has_looked, seen), "the watch looks")

    def _has_looked(self, seen: int) -> bool:
        return self.looks > seen


class Watched:
    """A watch over a fake kernel, for one test."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.changes = 0
        self.watch = CarrierWatch(self._count, lambda: kernel)

    def _count(self) -> None:
        self.changes += 1

    def __enter__(self) -> Watched:
        self.watch.start()
        self.watch.lost_at(PEER)
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.stop()


def test_a_link_that_goes_down_is_lost_and_one_that_comes_back_is_not() -> None:
    kernel = FakeKernel()
    with Watched(kernel) as it:
        kernel.look()
        assert it.watch.lost_at(PEER) is None
        before = time.monotonic()
        kernel.up.discard(1)
        kernel.look()
        lost_at = it.watch.lost_at(PEER)
        assert lost_at is not None
        assert lost_at >= before
        kernel.look()
        assert it.watch.lost_at(PEER) == lost_at
        kernel.up.add(1)
        kernel.look()
        assert it.watch.lost_at(PEER) is None
        assert it.changes == 2


def test_every_device_of_the_route_must_have_lost_its_link() -> None:
    kernel = FakeKernel()
    kernel.routes["192.0.2.2"] = frozenset({1, 2})
    with Watched(kernel) as it:
        kernel.look()
        kernel.up.discard(1)
        kernel.look()
        assert it.watch.lost_at(PEER) is None
        kernel.up.discard(2)
        kernel.look()
        assert it.watch.lost_at(PEER) is not None


def test_a_link_that_was_never_there_is_not_lost() -> None:
    """A host that boots before its network must not suspect anybody sooner for it."""
    kernel = FakeKernel()
    kernel.up.discard(1)
    with Watched(kernel) as it:
        kernel.look()
        assert it.watch.lost_at(PEER) is None


def test_a_device_that_was_taken_down_with_its_routes_is_lost() -> None:
    kernel = FakeKernel()
    with Watched(kernel) as it:
        kernel.look()
        kernel.routes.clear()
        kernel.up.discard(1)
        kernel.look()
        assert it.watch.lost_at(PEER) is not None


def test_a_route_that_goes_by_another_device_now_is_a_way() -> None:
    kernel = FakeKernel()
    with Watched(kernel) as it:
        kernel.look()
        kernel.routes["192.0.2.2"] = frozenset({2})
        kernel.up.discard(1)
        kernel.look()
        assert it.watch.lost_at(PEER) is None


def test_a_watch_that_fails_knows_of_no_loss_any_more() -> None:
    kernel = FakeKernel()
    with Watched(kernel) as it:
        kernel.look()
        kernel.up.discard(1)
        kernel.look()
        assert it.watch.lost_at(PEER) is not None
        kernel.fails = True
        kernel.wake()
        until(lambda: it.watch.lost_at(PEER) is None, "the loss is forgotten")


def test_what_has_no_host_has_no_link() -> None:
    kernel = FakeKernel()
    with Watched(kernel) as it:
        for address in ("", "/run/colod/link.sock", "/run/x:1", "unix"):
            assert it.watch.lost_at(address) is None
        kernel.look()
        assert list(it.watch._paths) == ["192.0.2.2"]


def test_the_device_of_a_link_local_address_is_not_guessed() -> None:
    kernel = FakeKernel()
    kernel.routes = {"fe80::1": frozenset({1}), "192.0.2.2": frozenset({1})}
    with Watched(kernel) as it:
        it.watch.lost_at("[fe80::1]:7411")
        kernel.look()
        kernel.up.discard(1)
        kernel.look()
        assert it.watch.lost_at("[fe80::1]:7411") is None
        assert it.watch.lost_at(PEER) is not None
