"""The daemon's watchdog: what it arms, leaves and takes over, on a stand-in for the device."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.config import Config
from colod.daemon.doctor import self_fence_findings
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.daemon.selffence import SelfFence, Standing
from colod.failover import record as records
from colod.failover.view import Journal
from colod.fencing.watchdog import Found
from colod.model import Disks, Epoch, GuestName, HostName, PairingId, Protection, Role
from colod.v1 import peer_pb2, types_pb2
from colod.witness.base import Stored

ALPHA, BETA, GUEST = HostName("alpha"), HostName("beta"), GuestName("g1")
TERMS = Protection(guest=GUEST, primary=ALPHA, secondary=BETA, disks=Disks.NONE)
ALONE = records.create(ALPHA, BETA, attempt="1")
PAIRED = records.pair(ALONE, PairingId("0" * 32), Epoch(2), attempt="2")


class Pipe:
    """The other end of the stand-in."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._told = ""

    def told(self) -> str:
        """Return all that it was ever told."""
        with contextlib.suppress(BlockingIOError):
            self._told += os.read(self._fd, 65536).decode()
        return self._told

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path / "stand-in")
    yield made
    made.close()


def fence(root: Path, kind: str = "simulated", device: Path | None = None) -> SelfFence:
    config = Config.model_validate(
        {
            "host": {"name": "alpha", "runtime_directory": str(root)},
            "peer": {"name": "beta", "address": "beta:1"},
            "witness": {"kind": "etcd"},
            "self_fence": {"kind": kind, "device": str(device or root / "stand-in")},
        }
    )
    return SelfFence(config)


class Service:
    """A protection that the daemon has looked at; its record says who may take over."""

    def __init__(self, record: records.OwnershipRecord = PAIRED, *, stopped: bool = False) -> None:
        self.guest = GUEST
        self.journal = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY, record=record)
        self.session: object | None = None
        self.has_looked = True
        self.is_witness_manual = False
        self.pokes = 0
        self.facts = SimpleNamespace(
            view=None,
            is_seen_stopped=stopped,
            stored=Stored(record, 1),
            read_at=None,
            unarmed="not yet",
        )

    def poke(self) -> None:
        self.pokes += 1


class World:
    """What the watchdog is decided on, changed by the test."""

    def __init__(self, *services: Service) -> None:
        self.services = list(services)
        self.is_peer_live = True
        self.defects: list[BaseException] = []
        self.said: peer_pb2.ProtectionView | None = None
        heartbeat = type(
            "Heartbeat",
            (),
            {
                "heard_at": property(lambda _: time.monotonic() if self.is_peer_live else None),
                "answer": lambda _, guest, asked_after: self.said,
            },
        )()
        limits = SimpleNamespace(suspect_after_s=5.0)
        self.parts = cast("Parts", SimpleNamespace(peer=BETA, heartbeat=heartbeat, limits=limits))

    def start(self, watched: SelfFence) -> None:
        services = cast("list[ProtectionService]", self.services)
        watched.start(self.parts, lambda: services, on_defect=self.defects.append)


def names(root: Path) -> list[str]:
    return [path.name for path in root.iterdir()]


async def until(check: Callable[[], Any]) -> None:
    """Poll, as nobody announces what a pipe was told."""
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_it_is_armed_fed_and_let_go_with_the_pair(tmp_path: Path, pipe: Pipe) -> None:
    watched, service = fence(tmp_path), Service()
    await watched.resume()
    assert pipe.told() == ""
    World(service).start(watched)
    await until(lambda: pipe.told() == "timeout=120\n..")
    assert watched.standing.is_active
    assert 100 < (watched.standing.margin_s or 0) <= 120
    await until(lambda: (service.facts.unarmed, service.pokes) == ("", 1))
    service.journal = Service(ALONE).journal
    await until(lambda: pipe.told().endswith("V"))
    await until(lambda: not watched.standing.is_active)
    assert watched.standing.margin_s is None
    assert service.facts.unarmed
    await until(lambda: service.pokes == 2)
    assert names(tmp_path) == ["stand-in"]
    await watched.stop(is_asked=True)
    assert pipe.told().count("V") == 1


@pytest.mark.parametrize(("asked", "last"), [(True, "V"), (False, ".")])
async def test_only_a_daemon_that_is_asked_to_end_lets_it_go(
    tmp_path: Path, pipe: Pipe, asked: bool, last: str
) -> None:
    watched = fence(tmp_path)
    World(Service()).start(watched)
    await until(pipe.told)
    await watched.stop(is_asked=asked)
    assert pipe.told()[-1] == last


async def test_one_that_is_starved_is_left_running_even_by_a_daemon_that_is_asked_to_end(
    tmp_path: Path, pipe: Pipe
) -> None:
    watched, world = fence(tmp_path), World(Service())
    world.start(watched)
    await until(pipe.told)
    world.is_peer_live = False
    await until(lambda: watched.standing.trouble)
    fed = pipe.told()
    await until(lambda: (watched.standing.margin_s or 0) < 118)
    assert pipe.told() == fed
    await watched.stop(is_asked=True)
    assert pipe.told() == fed
    assert (tmp_path / "self-fence").exists()


async def test_one_that_was_starved_is_fed_again_once_the_peer_is_heard(
    tmp_path: Path, pipe: Pipe
) -> None:
    watched, world = fence(tmp_path), World(Service())
    world.start(watched)
    await until(pipe.told)
    world.is_peer_live = False
    await until(lambda: watched.standing.trouble)
    world.is_peer_live, fed = True, pipe.told()
    await until(lambda: pipe.told() != fed)
    assert not watched.standing.trouble
    await watched.stop(is_asked=True)


async def test_a_witness_that_a_person_is_gives_no_evidence(tmp_path: Path, pipe: Pipe) -> None:
    service = Service()
    service.facts.read_at = time.monotonic() + 60
    watched, world = fence(tmp_path), World(service)
    world.is_peer_live = False
    world.start(watched)
    await until(pipe.told)
    service.is_witness_manual = True
    await until(lambda: watched.standing.trouble)
    await watched.stop(is_asked=False)


async def test_a_peer_that_learned_of_our_own_write_first_has_taken_nothing(
    tmp_path: Path, pipe: Pipe
) -> None:
    """Else a lost witness would reset a host whose peer lives."""
    watched, world = fence(tmp_path), World(Service())
    newer = PAIRED.generation + 1
    world.said = peer_pb2.ProtectionView(generation=newer, role=types_pb2.ROLE_SECONDARY)
    world.start(watched)
    await until(pipe.told)
    world.said = peer_pb2.ProtectionView(generation=newer, role=types_pb2.ROLE_PRIMARY)
    await until(lambda: "owns g1" in watched.standing.trouble)
    await watched.stop(is_asked=False)


async def test_the_next_daemon_feeds_at_once_what_was_left_and_disarms_it_if_nothing_is_at_risk(
    tmp_path: Path, pipe: Pipe
) -> None:
    first = fence(tmp_path)
    World(Service()).start(first)
    await until(pipe.told)
    await first.stop(is_asked=False)
    left = pipe.told()
    second = fence(tmp_path)
    await second.resume()
    assert pipe.told() == f"{left}timeout=120\n."
    World(Service(ALONE)).start(second)
    await until(lambda: pipe.told().endswith("V"))
    await second.stop(is_asked=True)
    assert not (tmp_path / "self-fence").exists()


async def test_what_was_left_is_disarmed_where_the_configuration_names_it_no_more(
    tmp_path: Path, pipe: Pipe
) -> None:
    first = fence(tmp_path)
    World(Service()).start(first)
    await until(pipe.told)
    await first.stop(is_asked=False)
    second = fence(tmp_path, kind="none")
    await second.resume()
    assert pipe.told().endswith(".V")
    assert not (tmp_path / "self-fence").exists()
    assert not second.is_configured
    await second.stop(is_asked=True)


async def test_a_device_that_cannot_be_armed_is_told_of_tried_again_and_leaves_no_mark(
    tmp_path: Path,
) -> None:
    watched, service = fence(tmp_path), Service()
    World(service).start(watched)
    await until(lambda: "load its driver" in watched.standing.trouble)
    await until(lambda: "load its driver" in service.facts.unarmed)
    assert names(tmp_path) == []
    pipe = Pipe(tmp_path / "stand-in")
    await until(pipe.told)
    await until(lambda: not service.facts.unarmed)
    assert not watched.standing.trouble
    await watched.stop(is_asked=True)
    pipe.close()


async def test_a_loop_that_ends_unasked_ends_the_daemon_and_the_next_one_goes_on(
    tmp_path: Path, pipe: Pipe
) -> None:
    watched, world = fence(tmp_path), World(Service())
    world.start(watched)
    await until(pipe.told)
    world.services[0].facts = SimpleNamespace()
    await until(lambda: world.defects)
    await watched.stop(is_asked=False)
    assert "V" not in pipe.told()
    assert (tmp_path / "self-fence").exists()


async def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    for content in ("", "[]", json.dumps({"kind": "watchdog"}), "\0"):
        (tmp_path / "self-fence").write_text(content)
        await fence(tmp_path).resume()


def standing(**fields: Any) -> Standing:
    known = {
        "kind": "watchdog",
        "device": Path("/dev/watchdog"),
        "is_required": False,
        "identity": "",
        "is_active": False,
        "timeout_s": 0,
        "wanted_s": 120,
        "margin_s": None,
        "trouble": "",
    }
    return Standing(**{**known, **fields})


ARMED = {"is_active": True, "timeout_s": 120, "identity": "xen_wdt"}


@pytest.mark.parametrize(
    ("how", "found", "severity", "words"),
    [
        ({}, Found("xen_wdt", is_running=False, has_way_out=True), "ok", "armed once"),
        ({}, Found("iTCO_wdt", has_way_out=False), "warning", "nowayout"),
        ({}, Found("iTCO_wdt", is_running=True), "warning", "another program"),
        (ARMED, Found("xen_wdt", is_running=True), "ok", "(xen_wdt) armed, 120 s"),
        ({**ARMED, "timeout_s": 180}, Found("xen_wdt"), "warning", "180 s instead of 120 s"),
        ({"trouble": "no driver"}, Found(), "warning", "no driver"),
        ({"trouble": "no driver", "is_required": True}, Found(), "error", "no driver"),
        ({**ARMED, "trouble": "not heard"}, Found(), "error", "not heard"),
        ({}, None, "warning", "none there"),
        ({"is_required": True}, None, "error", "none there"),
    ],
)
def test_the_doctor_says_what_keeps_it_from_being_armed(
    how: dict[str, Any], found: Found | None, severity: str, words: str
) -> None:
    (finding,) = self_fence_findings(standing(**how), found, "none there")
    assert finding.severity == severity
    assert words in finding.text
    assert bool(finding.advice) == (severity != "ok")
