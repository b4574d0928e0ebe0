"""Run one seed: protect a guest, let faults rage, mend everything, and see what became of it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from random import Random

import structlog

from tests.sim.faults import Faults
from tests.sim.seams import in_place
from tests.sim.virtual import VirtualLoop
from tests.sim.world import ALPHA, BETA, GUEST, Without, World

RAGE_S = 90.0
HEALING_S = 600.0
GOOD_ENDS = frozenset({"protected", "kept for a person after two deaths", "lost by two deaths"})


@dataclass(slots=True)
class Outcome:
    """What came of a seed.

    Attributes:
        seed: The seed.
        violations: Promises that were broken, in words.
        end: Where it ended, in a word.
        states: What both daemons show in the end.
        faults: What was injected.
        log: What happened when.
    """

    seed: int
    violations: list[str] = field(default_factory=list)
    end: str = ""
    states: str = ""
    faults: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept and a good end reached."""
        return not self.violations and self.end in GOOD_ENDS


def run_seed(seed: int, *, without: Without = Without.NOTHING) -> Outcome:
    """Run `seed`; the same seed gives the same run.

    Args:
        seed: Of every choice that is made.
        without: What the run does without; the observer must see that.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    random = Random(seed)
    loop = VirtualLoop()
    outcome = Outcome(seed)
    try:
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(lambda _, __: None)
        world = World(random, without)
        with in_place(world, loop):
            loop.run_until_complete(_story(world, Random(seed + 1), outcome))
            _end_all(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        structlog.reset_defaults()
    return outcome


def _end_all(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


async def _story(world: World, random: Random, outcome: Outcome) -> None:
    alpha = world.hosts[ALPHA]
    alpha.xen.create(GUEST)
    for host in world.hosts.values():
        host.start_daemon()
    await asyncio.sleep(2)
    assert alpha.daemon is not None
    await alpha.daemon.protect(GUEST, BETA, world.disks, 200, dry_run=False)
    faults = Faults(world, random)
    await asyncio.sleep(random.uniform(0, 20))
    raging = asyncio.get_running_loop().create_task(faults.rage(world.now + RAGE_S))
    outcome.faults = faults.names
    outcome.log = world.log
    outcome.violations = world.violations
    while not raging.done() and not world.violations:
        await asyncio.sleep(0.5)
        _check(world)
    until = world.now + HEALING_S
    while world.now < until and not world.violations and _end_of(world, faults) != "protected":
        await asyncio.sleep(5)
        await faults.tidy()
        _check(world)
    if raging.done():
        raging.result()
    outcome.end = _end_of(world, faults)
    outcome.states = _states(world)


def _check(world: World) -> None:
    world.changed()
    for host in world.hosts.values():
        host.check_daemon()


def _end_of(world: World, faults: Faults) -> str:
    running = world.running()
    if len(running) == 1 and world.is_protected():
        return "protected"
    if running:
        return "unsettled"
    # A host's power, or the guest's own end there, and an xl of the other one: two at once may take
    # the last copy that runs.
    is_gone = faults.power_was_cut or world.was_fenced or faults.guest_ended
    are_two = is_gone and faults.xl_was_killed
    if any(host.xen.domains for host in world.hosts.values()):
        is_told = " | bring " in _states(world) or "xl rename" in _states(world)
        return "kept for a person after two deaths" if are_two and is_told else "held"
    return "lost by two deaths" if are_two else "lost"


def _states(world: World) -> str:
    found = []
    for host in world.hosts.values():
        service = host.daemon.services.get(GUEST) if host.daemon else None
        if service is None:
            found.append(f"{host.name}: none")
        else:
            decision = service.decision
            found.append(
                f"{host.name}: {service.state} ({decision.rule}: {service.trouble} | "
                f"{decision.advice})".replace(";", ",")
            )
    return "; ".join(found)
