"""What may go wrong, by the seed: each fault begins, and most of them end after a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from random import Random
from typing import TYPE_CHECKING, Any

from colod.errors import ColodError
from colod.failover.effects import State
from colod.model import Disks, HostName
from tests.sim.ports import CONTROL, DATA
from tests.sim.replication import Session
from tests.sim.world import GUEST

if TYPE_CHECKING:
    from tests.sim.world import SimHost, World

Ending = tuple[float, Callable[[], None]]
"""How long a fault lasts, in seconds, and what ends it."""

_WISHES = ("failover", "switchover", "drain", "suspend", "resume", "unprotect")


def _asks_for_start(host: SimHost) -> bool:
    """Whether status says that the guest has ended, and to start it."""
    service = host.daemon.services.get(GUEST) if host.daemon else None
    if service is None or service.state is not State.GUEST_SHUTDOWN:
        return False
    return "xl create" in service.decision.advice


async def _for_a_while(seconds: float, end: Callable[[], None]) -> None:
    await asyncio.sleep(seconds)
    end()


class Faults:
    """Injects faults into a world until `until_s`, then mends everything."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self.power_was_cut = False
        self.xl_was_killed = False
        self.guest_ended = False
        self.names: list[str] = []

    async def rage(self, until_s: float) -> None:
        """Inject one fault after another."""
        kinds = (
            self._kill_daemon,
            self._kill_daemon,
            self._kill_process,
            self._kill_process,
            self._end_guest,
            self._partition,
            self._partition,
            self._lose_witness,
            self._cut_power,
            self._freeze,
            self._slow,
            self._fill_disk,
            self._fail_xl,
            self._break_switch,
            self._jump,
            self._ask,
            self._ask,
        )
        ends: list[asyncio.Task[None]] = []
        pace_s = self._random.choice((0.5, 3.0, 10.0, 25.0))
        while self._world.now < until_s:
            await asyncio.sleep(self._random.expovariate(1 / pace_s))
            kind = self._random.choice(kinds)
            host = self._random.choice(list(self._world.hosts.values()))
            done = kind(host)
            if done is not None:
                seconds, end = done
                task = asyncio.get_running_loop().create_task(_for_a_while(seconds, end))
                ends.append(task)
        await asyncio.gather(*ends)
        self.mend()

    def mend(self) -> None:
        """End everything that is wrong."""
        world = self._world
        world.note("mended")
        world.cut_control.clear()
        world.cut_data.clear()
        world.links_lost.clear()
        world.cut_from_witness.clear()
        world.store.is_up = True
        world.loss = world.extra_latency_s = world.switch_fails = 0.0
        for host in world.hosts.values():
            host.disk_is_full, host.disk_delay_s = False, 0.0
            host.xl_failures = host.xl_delay_s = 0.0
            host.thaw()
            host.power_on()

    async def tidy(self) -> None:
        """Be the operator who wants the guest protected, wherever it runs."""
        self._start_what_is_down()
        for host in self._world.hosts.values():
            await self._confirm_peer_off(host)
        for host in self._world.hosts.values():
            if host.name not in self._world.running() or host.daemon is None:
                continue
            self._look_and_destroy(host.peer)
            with contextlib.suppress(ColodError):
                await host.daemon.protect(
                    GUEST, host.peer.name, self._world.disks, 200, dry_run=False
                )

    async def _confirm_peer_off(self, host: SimHost) -> None:
        """Do as advised where nothing proves that the other host is off."""
        service = host.daemon.services.get(GUEST) if host.daemon else None
        if service is None or "fence-confirm" not in service.decision.advice:
            return
        self._world.note(f"the operator switches {host.peer.name} off, and says so")
        self._world.was_fenced = True
        host.peer.cut_power()
        with contextlib.suppress(ColodError):
            await service.confirm_peer_off("switched off by hand", "ann")
        asyncio.get_running_loop().call_later(5.0, host.peer.power_on)

    def _start_what_is_down(self) -> None:
        """Start a guest that ended: as advised, or where nobody protects it any more."""
        hosts = self._world.hosts.values()
        if self._world.running() or any(host.daemon is None for host in hosts):
            return
        for host in hosts:
            if _asks_for_start(host) and host.xen.find(GUEST) is None:
                self._start(host)
                return
        free = [each for each in hosts if each.daemon and not each.daemon.services]
        last = max(free, key=lambda each: each.xen.on_disk_s, default=None)
        if last is None or last.xen.on_disk_s == 0.0:
            return
        if (ended := last.xen.find(GUEST)) is not None and ended.ended:
            last.xen.destroy(ended)
        if last.xen.find(GUEST) is None:
            self._start(last)

    def _start(self, host: SimHost) -> None:
        self._world.note(f"the operator starts {GUEST} on {host.name}")
        host.xen.built(host.xen.start(GUEST), is_good=True)

    def _look_and_destroy(self, host: SimHost) -> None:
        """Do as advised with a copy whose protection was ended elsewhere: the other one runs."""
        service = host.daemon.services.get(GUEST) if host.daemon else None
        copy = host.xen.find(GUEST)
        if service is None or copy is None or service.state is not State.QUARANTINED:
            return
        if (copy.pauses or copy.ended) and "xl destroy" in service.decision.advice:
            self._world.note(f"the operator destroys {copy.name} on {host.name}")
            host.xen.destroy(copy)

    def _note(self, text: str) -> None:
        self._world.note(f"fault: {text}")
        self.names.append(text.split(maxsplit=1)[0])

    def _time_s(self) -> float:
        return self._random.choice((0.2, 2.0, 8.0, 25.0)) * self._random.uniform(0.5, 1.5)

    def _kill_daemon(self, host: SimHost) -> Ending | None:
        self._note(f"kill-daemon {host.name}")
        host.kill_daemon()
        return self._time_s(), host.start_daemon

    def _kill_process(self, host: SimHost) -> Ending | None:
        victims: list[Session] = host.sessions()
        if not victims:
            return None
        victim = self._random.choice(victims)
        xl = victim.xl
        if xl is not None and victim.xl_lives and self._random.random() < 0.5:
            self._note(f"kill-xl {host.name} {victim.role}")
            self.xl_was_killed = True
            self._world.processes.kill(xl.pid)
        else:
            self._note(f"kill-session {host.name} {victim.role}")
            victim.end()
        return None

    def _end_guest(self, host: SimHost) -> Ending | None:
        guest = host.xen.find(GUEST)
        if guest is None or not guest.may_run:
            return None
        how = self._random.choice(("reboot", "poweroff"))
        self._note(f"{how}-guest {host.name}")
        host.xen.end(guest, how)
        self.guest_ended = True
        return None

    def _partition(self, host: SimHost) -> Ending | None:
        world, peer = self._world, host.peer
        ways = {(host.name, peer.name)}
        if self._random.random() < 0.6:
            ways.add((peer.name, host.name))
        nets = self._random.choice(
            ((world.cut_control,), (world.cut_data,), (world.cut_control, world.cut_data))
        )
        isolate = len(nets) == 2 and self._random.random() < 0.3
        self._note(f"partition {len(ways)} ways of {len(nets)} nets from {host.name} {isolate}")
        for net in nets:
            net.update(ways)
        if isolate:
            world.cut_from_witness.add(host.name)
        lost = self._lose_links(nets)

        def heal() -> None:
            for each in lost:
                world.links_lost.pop(each, None)
            for net in nets:
                net.difference_update(ways)
            world.cut_from_witness.discard(host.name)

        return self._time_s(), heal

    def _lose_links(self, nets: Collection[set[tuple[HostName, HostName]]]) -> list[Any]:
        """Have some hosts see that the link of a network is gone; return what they see.

        Where only one way is cut, or nothing goes by that network, it is not even true.
        """
        world = self._world
        names = {id(world.cut_control): CONTROL, id(world.cut_data): DATA}
        lost = [
            (host.name, names[id(net)])
            for net in nets
            for host in world.hosts.values()
            if self._random.random() < 0.4
        ]
        world.note(f"without a link: {lost}")
        for each in lost:
            world.links_lost.setdefault(each, world.now)
        return lost

    def _lose_witness(self, host: SimHost) -> Ending | None:
        world = self._world
        if self._random.random() < 0.5:
            self._note(f"witness-cut {host.name}")
            world.cut_from_witness.add(host.name)
            return self._time_s(), lambda: world.cut_from_witness.discard(host.name)
        self._note("witness-down")
        world.store.is_up = False
        return self._time_s(), lambda: setattr(world.store, "is_up", True)

    def _cut_power(self, host: SimHost) -> Ending | None:
        if not self._world.is_protected():
            return None  # what is on one host only dies with it, and proves nothing
        self._note(f"power {host.name}")
        self.power_was_cut = True
        host.cut_power()
        return self._time_s() + 5.0, host.power_on

    def _freeze(self, host: SimHost) -> Ending | None:
        self._note(f"freeze {host.name}")
        host.freeze()
        return self._time_s(), host.thaw

    def _slow(self, host: SimHost) -> Ending | None:
        world = self._world
        what = self._random.choice(("net", "xl", "disk"))
        self._note(f"slow-{what} {host.name}")
        if what == "net":
            world.extra_latency_s = self._random.uniform(0.01, 0.8)
            world.loss = self._random.choice((0.0, 0.1, 0.5))

            def end() -> None:
                world.extra_latency_s = world.loss = 0.0

            return self._time_s(), end
        name = "xl_delay_s" if what == "xl" else "disk_delay_s"
        setattr(host, name, self._random.uniform(0.1, 4.0))
        return self._time_s(), lambda: setattr(host, name, 0.0)

    def _fill_disk(self, host: SimHost) -> Ending | None:
        self._note(f"disk-full {host.name}")
        host.disk_is_full = True
        return self._time_s(), lambda: setattr(host, "disk_is_full", False)

    def _fail_xl(self, host: SimHost) -> Ending | None:
        self._note(f"xl-fails {host.name}")
        host.xl_failures = self._random.uniform(0.05, 0.6)
        return self._time_s(), lambda: setattr(host, "xl_failures", 0.0)

    def _break_switch(self, host: SimHost) -> Ending | None:
        world = self._world
        if world.disks is not Disks.SHARED:
            return None
        self._note("switch-fails")
        world.switch_fails = self._random.choice((0.3, 1.0))
        return self._time_s(), lambda: setattr(world, "switch_fails", 0.0)

    def _jump(self, host: SimHost) -> Ending | None:
        self._note("clock-jump")
        self._world.jump(self._random.uniform(-1e6, 1e6))
        return None

    def _ask(self, host: SimHost) -> Ending | None:
        """An operator's wish, where the daemon takes it."""
        daemon = host.daemon
        if daemon is None or not host.goes.is_set():
            return None
        what = self._random.choice(_WISHES)
        self._note(f"ask-{what} {host.name}")
        host.life_task(self._wish(host, what))
        return None

    async def _wish(self, host: SimHost, what: str) -> None:
        daemon = host.daemon
        assert daemon is not None
        try:
            service = next(iter(daemon.services.values()))
            if what == "failover":
                await service.fail_over("")
            elif what == "switchover":
                await service.switch_over()
            elif what == "drain":
                await daemon.drain()
            else:
                await getattr(daemon, what)(service.guest)
        except (ColodError, StopIteration) as error:
            self._world.note(f"refused: {error}")
        if what == "drain":
            await asyncio.sleep(self._random.uniform(1, 10))
            asyncio.get_running_loop().call_soon(self._restart, host)

    def _restart(self, host: SimHost) -> None:
        host.kill_daemon()
        host.start_daemon()
