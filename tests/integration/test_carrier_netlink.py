"""The watch over links on the real kernel, in a network namespace of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from colod.daemon.carrier import CarrierWatch, Netlink
from tests.pair import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

_CLONE_NEWNET: Final = 0x40000000
DIRECT, BY_TWO, SIX = "10.97.1.2:7411", "10.97.9.1:7411", "[2001:db8:1::2]:7411"

Ip = Callable[..., None]


@pytest.fixture
def namespace() -> Iterator[str]:
    """Return a namespace with two cables: `net1` to `end1`, and `net2` to `end2`."""
    name = f"colod-{os.getpid()}-links"
    _run("netns", "add", name)
    try:
        for number, device in enumerate(("net1", "net2"), 1):
            _run("-n", name, "link", "add", device, "type", "veth", "peer", "name", f"end{number}")
            _run("-n", name, "address", "add", f"10.97.{number}.1/24", "dev", device)
            address = f"2001:db8:{number}::1/64"
            _run("-n", name, "address", "add", address, "dev", device, "nodad")
            for end in (device, f"end{number}"):
                _run("-n", name, "link", "set", end, "up")
        hops = [word for n in (1, 2) for word in ("nexthop", "via", f"10.97.{n}.2")]
        _run("-n", name, "route", "add", "10.97.9.0/24", *hops)
        yield name
    finally:
        _run("netns", "delete", name)


@pytest.fixture
def ip(namespace: str) -> Ip:
    return lambda *words: _run("-n", namespace, *words)


@pytest.fixture
def watch(namespace: str) -> Iterator[CarrierWatch]:
    """Return a watch whose thread lives in that namespace."""
    started = CarrierWatch(lambda: None, lambda: _inside(namespace))
    started.start()
    for address in (DIRECT, BY_TWO, SIX):
        started.lost_at(address)
    until(lambda: all(path.had_carrier for path in started._paths.values()), "links are seen")
    yield started
    started.stop()


def _inside(namespace: str) -> Netlink:
    with Path("/run/netns", namespace).open() as entry:
        assert ctypes.CDLL(None, use_errno=True).setns(entry.fileno(), _CLONE_NEWNET) == 0
    return Netlink()


def _run(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def test_the_loss_of_a_carrier_is_seen_and_its_return(watch: CarrierWatch, ip: Ip) -> None:
    ip("link", "set", "end1", "down")
    until(lambda: watch.lost_at(DIRECT) and watch.lost_at(SIX), "both ways are lost")
    assert watch.lost_at(BY_TWO) is None
    ip("link", "set", "end1", "up")
    until(lambda: watch.lost_at(DIRECT) is None and watch.lost_at(SIX) is None, "both are back")


def test_a_way_by_two_devices_is_lost_with_the_second(watch: CarrierWatch, ip: Ip) -> None:
    ip("link", "set", "end1", "down")
    until(lambda: watch.lost_at(DIRECT), "the first is lost")
    assert watch.lost_at(BY_TWO) is None
    ip("link", "set", "end2", "down")
    until(lambda: watch.lost_at(BY_TWO), "and the second")


def test_a_device_that_is_taken_down_or_away_is_lost(watch: CarrierWatch, ip: Ip) -> None:
    ip("link", "set", "net1", "down")
    until(lambda: watch.lost_at(DIRECT), "it is down")
    ip("link", "delete", "net2")
    until(lambda: watch.lost_at(BY_TWO), "the other is gone")


def test_a_route_that_goes_elsewhere_is_followed(watch: CarrierWatch, ip: Ip) -> None:
    ip("route", "add", "default", "via", "10.97.2.2")
    ip("link", "set", "net1", "down")
    ip("link", "set", "end2", "down")
    until(lambda: watch.lost_at(DIRECT), "its new way is lost as well")
    ip("link", "set", "end2", "up")
    until(lambda: watch.lost_at(DIRECT) is None, "the new way carries")
