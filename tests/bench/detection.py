"""How soon a silent host is replaced, and by what steps; beside keepalived's VRRP."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.bench.table import Figure, Row, Section
from tests.pair import SimulatedHost, until
from tests.scenarios.arena import Arena
from tests.scenarios.network import ADDRESSES, Net

INTERVAL_S: Final = 0.2
"""Between two beats, as between two advertisements."""
COUNT: Final = 3
"""So many missed ones mean a loss."""
LOADED_S: Final = 20.0
BUSY: Final = 4
"""Busy loops for each processor, in the rounds that count false alarms."""
_STEPS: Final = ("detection", "arbitration", "activation", "announcement")

_INSTANCE = """
global_defs {{
  script_user root
  vrrp_version 3
  vrrp_garp_master_delay 0
}}
vrrp_instance guest {{
  state BACKUP
  interface {device}
  virtual_router_id 51
  priority 100
  advert_int {interval}
  unicast_src_ip {own}
  unicast_peer {{ {peer} }}
  virtual_ipaddress {{ 10.99.0.100/32 dev lo }}
  notify "{notify}"
}}
"""


def measure(rounds: int) -> Section:
    """Cut a host off in each round, once under keepalived and once under colod."""
    steps: dict[str, list[float]] = {name: [] for name in _STEPS}
    theirs: list[float] = []
    with _both(INTERVAL_S * COUNT) as (arena, rival):
        for _ in range(rounds):
            theirs.append(rival.replaced())
            for name, took_s in _failover(arena).items():
                steps[name].append(took_s)
    # The same once more with as long a limit as keepalived's, so that no haste is paid for.
    with _both(statistics.median(theirs)) as (arena, rival):
        alarms = [_alarms(arena, rival) for _ in range(rounds)]
    found = {name: Figure(values, "s") for name, values in steps.items() if values}
    counted = f"{sum(ours for ours, _ in alarms)} of colod, {sum(its for _, its in alarms)} of it"
    return Section(
        "Detection and failover",
        f"A host's links fall silent; beats every {INTERVAL_S:g} s, {COUNT} missed are a loss. "
        "keepalived: VRRPv3 by unicast over the same links, priority 100, from the silence to its "
        "notify script. colod: from the silence to its taking the other host for lost; then what "
        "follows (simulated Xen, whose xl is slow, and real etcd). False alarms: both at once, at "
        f"keepalived's median as colod's limit, {BUSY} busy loops for each processor, "
        f"{LOADED_S:g} s each round; a loss of the protection counts as one. In all: {counted}.",
        [
            Row(
                "detection",
                found["detection"],
                Figure(theirs, "s"),
                "keepalived",
                most=0.9,
            ),
            *(Row(name, found[name]) for name in _STEPS[1:] if name in found),
            Row(
                "false alarms under load, less keepalived's",
                Figure([float(ours - its) for ours, its in alarms]),
                most=0.0,
            ),
        ],
    )


@contextmanager
def _both(limit_s: float) -> Iterator[tuple[Arena, Keepalived]]:
    """Run a protected pair and keepalived over the same links.

    Args:
        limit_s: Silence after which colod takes a host for lost.
    """
    arena = Arena(suspect_s=limit_s, silence_s=limit_s)
    try:
        with keepalived(arena.net) as rival:
            yield arena, rival
    finally:
        arena.close()


def _alarms(arena: Arena, rival: Keepalived) -> tuple[int, int]:
    """Keep the processors busy; return how often colod and keepalived took fright."""
    until(arena.is_protected, "the guest is protected")
    until(rival.is_settled, "there is one master")
    known = {host.name: len(_events(host)) for host in arena.hosts}
    changes = rival.changes()
    with ExitStack() as busy:
        for _ in range(BUSY * (os.cpu_count() or 1)):
            busy.enter_context(_spinning())
        time.sleep(LOADED_S)
    ours = [
        sum(event.get("state_from") == "PROTECTED" for event in _events(host)[known[host.name] :])
        for host in arena.hosts
    ]
    return max(ours), rival.changes() - changes


@contextmanager
def _spinning() -> Iterator[None]:
    with subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) as process:
        try:
            yield
        finally:
            process.kill()


def _failover(arena: Arena) -> dict[str, float]:
    """Let the primary fall silent; return what each step took, and heal the pair."""
    until(arena.is_protected, "the guest is protected")
    (primary,) = until(arena.running, "the guest runs")  # not suspended just now
    taker = arena.other(primary)
    known = len(_events(taker))
    cut_at = time.time()
    _set_silent(arena.net, primary.name, is_silent=True)
    until(lambda: _reached(taker, known, "ALONE"), "the guest is taken over")
    found = _events(taker)[known:]
    _set_silent(arena.net, primary.name, is_silent=False)
    lost = _time_of(found, lambda e: e.get("state_to") == "ARBITRATING")
    won = _time_of(found, lambda e: e["event"] == "ownership.won")
    runs = _time_of(found, lambda e: e.get("state_to") == "ALONE")
    told = [_at(e) for e in found if e["event"] == "guest.announced" and "error" not in e]
    steps = {"detection": lost - cut_at, "arbitration": won - lost, "activation": runs - won}
    return steps | ({"announcement": told[0] - runs} if told else {})


def _set_silent(net: Net, name: str, *, is_silent: bool) -> None:
    for other in ADDRESSES.keys() - {name}:
        for way in ((name, other), (other, name)):
            net.mute(*way) if is_silent else net.unmute(*way)


def _reached(host: SimulatedHost, known: int, state: str) -> bool:
    return any(event.get("state_to") == state for event in _events(host)[known:])


def _events(host: SimulatedHost) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.log().splitlines() if line.startswith("{")]


def _time_of(events: list[dict[str, Any]], fits: Callable[[dict[str, Any]], bool]) -> float:
    return next(_at(event) for event in events if fits(event))


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


class Keepalived:
    """Two of them, at alpha and beta, and what they say by their notify scripts."""

    def __init__(self, net: Net, folder: Path) -> None:
        self._net = net
        self._folder = folder

    def replaced(self) -> float:
        """Let the master fall silent; return after what time the other one took over."""
        until(self.is_settled, "there is one master")
        time.sleep(COUNT * INTERVAL_S)  # until nobody changes his mind any more
        (master,) = self._masters()
        other = "beta" if master == "alpha" else "alpha"
        cut_at = time.time()
        _set_silent(self._net, master, is_silent=True)
        until(lambda: other in self._masters(), "the other one is master")
        took_s = self._masters()[other] - cut_at
        _set_silent(self._net, master, is_silent=False)
        time.sleep(COUNT * INTERVAL_S)
        return took_s

    def is_settled(self) -> bool:
        """Tell whether one says that it is the master, and the other one that it is not."""
        return len(self._masters()) == 1

    def changes(self) -> int:
        """Return how often either became master."""
        return sum(
            line.startswith("MASTER ")
            for path in self._folder.glob("*.states")
            for line in path.read_text().splitlines()
        )

    def _masters(self) -> dict[str, float]:
        """Return who says that it is the master, and since when."""
        found = {}
        for path in self._folder.glob("*.states"):
            lines = path.read_text().splitlines()
            state, _, since = lines[-1].partition(" ") if lines else ("", "", "")
            if state == "MASTER":
                found[path.stem] = float(since)
        return found


@contextmanager
def keepalived(net: Net) -> Iterator[Keepalived]:
    """Run keepalived at alpha and beta."""
    program = shutil.which("keepalived", path="/usr/sbin:/sbin:/usr/bin")
    assert program, "not found: keepalived (Debian: keepalived)"
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="colod-vrrp-")))
        for own, peer in (("alpha", "beta"), ("beta", "alpha")):
            closing.enter_context(_running(program, net, folder, own, peer))
        yield Keepalived(net, folder)


@contextmanager
def _running(program: str, net: Net, folder: Path, own: str, peer: str) -> Iterator[None]:
    notify = folder / f"{own}.notify"
    notify.write_text(f'#!/bin/sh\necho "$3 $(date +%s.%N)" >> {folder}/{own}.states\n')
    notify.chmod(0o755)
    config = folder / f"{own}.conf"
    config.write_text(
        _INSTANCE.format(
            device=f"to-{peer}",
            interval=INTERVAL_S,
            own=ADDRESSES[own],
            peer=ADDRESSES[peer],
            notify=notify,
        )
    )
    argv = [program, "--dont-fork", "--vrrp", "--use-file", str(config), "--log-console"]
    argv += ["--pid", f"{folder}/{own}.pid", "--vrrp_pid", f"{folder}/{own}.vrrp.pid"]
    with (folder / f"{own}.log").open("wb") as log:
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{net.name(own)}", *argv], stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
