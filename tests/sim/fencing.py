"""A switch in memory: it takes a host's power, and says so, or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from colod.fencing.base import Failed, Fenced, Unconfirmed, Verdict
from colod.model import HostName

if TYPE_CHECKING:
    from tests.sim.world import Incarnation

OFF_S = (4.0, 20.0)
"""After that time the host is switched on again."""


class SimFencer:
    """The fencer as one daemon of a host calls it."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life
        self._world = life.world

    async def fence(self, host: HostName) -> Verdict:
        """Take the power of `host`; what the agent says of that may be nothing."""
        world, random = self._world, self._world.random
        await self._life.step(random.uniform(0.2, 3.0))
        is_bad = random.random() < world.switch_fails
        if is_bad and random.random() < 0.5:
            return random.choice((Failed("the switch refused"), Unconfirmed("it did not answer")))
        self._switch_off(host)
        await self._life.step(random.uniform(0.1, 1.0))
        if is_bad:
            return Unconfirmed("the switch did not say what became of it")
        return Fenced("the switch says that it is off")

    def _switch_off(self, host: HostName) -> None:
        world, target = self._world, self._world.hosts[host]
        world.note(f"{self._life.host.name} switches {host} off")
        world.was_fenced = True
        target.cut_power()
        asyncio.get_running_loop().call_later(world.random.uniform(*OFF_S), target.power_on)

    async def close(self) -> None:
        """Let go of nothing."""
