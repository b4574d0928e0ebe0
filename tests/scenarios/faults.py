"""What may go wrong in a round, drawn by its seed: each fault begins, and most end again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from colod.simxen.host import Host
from tests.integration.etcd_server import EtcdMember
from tests.pair import SimulatedHost, kill

if TYPE_CHECKING:
    from tests.scenarios.arena import Arena

_LONGEST_BEGIN_S: Final = 5.0
_DURATIONS_S: Final = (0.2, 1.0, 3.0, 8.0)


def _nothing() -> None:
    """End a fault that has no end."""


@dataclass(slots=True)
class Fault:
    """One fault that has begun.

    Attributes:
        what: In words.
        end: What ends it.
        still: The host of which something stands still by it, if so.
        deaths: `power` or `replica` and the host that lost it: two of them may cost the guest.
    """

    what: str
    end: Callable[[], None] = _nothing
    still: SimulatedHost | None = None
    deaths: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """When a fault begins and how long it lasts, in seconds."""

    at_s: float
    for_s: float
    begin: Callable[[], Fault | None]


class Faults:
    """Draws faults."""

    def __init__(self, arena: Arena, random: Random) -> None:
        """Draw from `random`, for `arena`."""
        self._arena = arena
        self._random = random

    def plan(self) -> list[Plan]:
        """Return the faults of a round."""
        kinds = (
            *(self._kill,) * 3,
            *(self._stop,) * 2,
            self._hang,
            *(self._mute,) * 3,
            self._pull,
            self._lose_witness,
            self._freeze_witness,
            self._slow_disk,
            self._full_disk,
            self._restart,
            self._cut_power,
        )
        return [self._drawn(kinds) for _ in range(self._random.choice((1, 1, 2, 2, 3, 4)))]

    def _drawn(self, kinds: tuple[Callable[[SimulatedHost, Random], Fault | None], ...]) -> Plan:
        kind = self._random.choice(kinds)
        host = self._random.choice(list(self._arena.hosts))
        # Of its own, so that what one fault finds does not change what the next one draws.
        random = Random(self._random.random())
        return Plan(
            at_s=self._random.uniform(0, _LONGEST_BEGIN_S),
            for_s=self._random.choice(_DURATIONS_S) * self._random.uniform(0.5, 1.5),
            begin=lambda: kind(host, random),
        )

    # --- processes --------------------------------------------------------------------------

    def _victims(self, host: SimulatedHost, random: Random) -> dict[str, list[int]]:
        found = {name: pids for name, pids in parts_of(host).items() if pids}
        count = random.randint(1, len(found)) if found else 0
        return {name: found[name] for name in random.sample(sorted(found), count)}

    def _kill(self, host: SimulatedHost, random: Random) -> Fault | None:
        victims = self._victims(host, random)
        for name, pids in victims.items():
            if name == "daemon":
                self._arena.kill_daemon(host)
            else:
                _signal(pids, signal.SIGKILL)
        # In COLO the end of a session is the end of its copy: it runs, so no pause keeps it.
        by = {"xl", "helper", *(("session",) if self._arena.mode == "colo" else ())}
        is_replica = bool(by & set(victims))
        deaths = frozenset({("replica", host.name)}) if is_replica else frozenset()
        return Fault(
            f"kill {', '.join(victims) or 'nobody'} of {host.name}",
            lambda: self._arena.revive(host),
            deaths=deaths,
        )

    def _stop(self, host: SimulatedHost, random: Random) -> Fault | None:
        victims = self._victims(host, random)
        pids = [pid for each in victims.values() for pid in each]
        return self._stopped(f"stop {', '.join(victims) or 'nobody'} of {host.name}", host, pids)

    def _hang(self, host: SimulatedHost, random: Random) -> Fault | None:
        return self._stopped(f"hang {host.name}", host, self._arena.processes(host))

    def _stopped(self, what: str, host: SimulatedHost, pids: Iterable[int]) -> Fault:
        _signal(pids, signal.SIGSTOP)
        return Fault(what, lambda: _signal(pids, signal.SIGCONT), still=host)

    def _restart(self, host: SimulatedHost, random: Random) -> Fault | None:
        self._arena.kill_daemon(host, signal.SIGTERM)
        return Fault(f"restart the daemon of {host.name}", lambda: self._arena.revive(host))

    def _cut_power(self, host: SimulatedHost, random: Random) -> Fault | None:
        if not self._arena.is_protected():
            return None
        self._arena.disks[host.name].mend()
        host.die()
        return Fault(
            f"cut the power of {host.name}",
            lambda: self._arena.revive(host),
            deaths=frozenset({("power", host.name)}),
        )

    # --- network ----------------------------------------------------------------------------

    def _mute(self, host: SimulatedHost, random: Random) -> Fault | None:
        other = self._arena.other(host)
        ways = random.choice(
            (
                ((host.name, other.name),),
                ((host.name, other.name), (other.name, host.name)),
                ((host.name, other.name), (other.name, host.name)),
                ((host.name, other.name), (host.name, "witness")),
                tuple(_both_ways(host.name, other.name, "witness")),
                ((host.name, "witness"),),
                (("witness", host.name),),
            )
        )
        for way in ways:
            self._arena.net.mute(*way)

        def heal() -> None:
            for way in ways:
                self._arena.net.unmute(*way)

        return Fault("mute " + ", ".join(f"{one}->{other}" for one, other in ways), heal)

    def _pull(self, host: SimulatedHost, random: Random) -> Fault | None:
        net, end = self._arena.net, random.choice((self._arena.other(host).name, "witness"))
        net.set_link(host.name, end, is_up=False)
        return Fault(
            f"pull the cable between {host.name} and {end}",
            lambda: net.set_link(host.name, end, is_up=True),
        )

    # --- witness and disks ------------------------------------------------------------------

    def _lose_witness(self, host: SimulatedHost, random: Random) -> Fault | None:
        return self._harm_witness("kill etcd", EtcdMember.stop)

    def _freeze_witness(self, host: SimulatedHost, random: Random) -> Fault | None:
        return self._harm_witness("freeze etcd", EtcdMember.freeze)

    def _harm_witness(self, what: str, harm: Callable[[EtcdMember], None]) -> Fault | None:
        etcd = self._arena.etcd
        if etcd is None or etcd.process is None:
            return None
        harm(etcd)
        return Fault(what, self._arena.bring_witness_back)

    def _slow_disk(self, host: SimulatedHost, random: Random) -> Fault | None:
        disk = self._arena.disks[host.name]
        disk.freeze()
        return Fault(f"freeze the disk of {host.name}", disk.thaw)

    def _full_disk(self, host: SimulatedHost, random: Random) -> Fault | None:
        disk = self._arena.disks[host.name]
        disk.fill()
        return Fault(f"fill the disk of {host.name}", disk.empty)


def parts_of(host: SimulatedHost) -> dict[str, list[int]]:
    """Return the processes of a host's replication by what they are."""
    daemon = host.daemon
    return {
        "daemon": [daemon.pid] if daemon is not None and daemon.poll() is None else [],
        "session": host.session_pids(),
        "xl": host.xl_pids(),
        "helper": [
            each.pid
            for each in Host(host.root / "xen").processes()
            if each.role.startswith("save-helper")
        ],
    }


def _both_ways(host: str, *others: str) -> Iterator[tuple[str, str]]:
    for other in others:
        yield host, other
        yield other, host


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        kill(pid, number)
