"""A witness in memory: linearizable, conditional, and as hard to reach as the faults want it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from colod.errors import WitnessUnreachable
from colod.failover.record import NO_GENERATION, OwnershipRecord, RecordState, check_transition
from colod.model import GuestName, HostName
from colod.witness.base import Lost, Outcome, Stored, Unknown, Won

if TYPE_CHECKING:
    from tests.sim.world import Incarnation

TIMEOUT_S = 2.0


class Store:
    """What the witness holds, for one guest."""

    def __init__(self, *, arbitrates: bool) -> None:
        self.stored = Stored(None, 0)
        self.is_up = True
        self.arbitrates = arbitrates
        """Whether there is one record; else each host has its own of who is alone: two speakers
        must be seen."""
        self._alone: dict[HostName, Stored] = {}

    def held_for(self, host: HostName) -> Stored:
        """Return what `host` reads."""
        return self._alone.get(host, self.stored)

    def swap(self, host: HostName, expected: Stored, new: OwnershipRecord | None) -> Outcome:
        """Compare and swap."""
        now = self.held_for(host)
        if now.revision != expected.revision:
            is_ours = now.record == new and now.revision == expected.revision + 1
            return Won(now) if is_ours else Lost(now)
        last = now.record.generation if now.record else now.last_generation
        after = Stored(new, now.revision + 1, NO_GENERATION if new else last)
        is_paired = new is not None and new.state is RecordState.PAIRED
        if self.arbitrates or is_paired or expected.record is None:
            self.stored = after
            self._alone.clear()
        else:
            self._alone[host] = after
        return Won(after)


class SimWitness:
    """One host's client of it."""

    def __init__(self, store: Store, host: HostName, life: Incarnation, random: Random) -> None:
        self._store = store
        self._host = host
        self._life = life
        self._random = random

    async def read(self, guest: GuestName) -> Stored:
        """Return what it holds, if it can be reached."""
        await self._reach("no answer to a read")
        stored = self._store.held_for(self._host)
        await self._reach("no answer to a read")
        return stored

    async def compare_and_swap(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        """Replace; the answer may be lost on its way, or come late."""
        check_transition(expected.record, new, by=self._host, after=expected.last_generation)
        try:
            await self._reach("")
        except WitnessUnreachable:
            if self._random.random() < 0.5:
                delay_s = self._random.uniform(0.0, 20.0)
                loop = asyncio.get_running_loop()
                loop.call_later(delay_s, self._store.swap, self._host, expected, new)
            return Unknown("the request was not answered: it may come late, or never")
        outcome = self._store.swap(self._host, expected, new)
        try:
            await self._reach("")
        except WitnessUnreachable:
            return Unknown("the answer was lost")
        return outcome

    async def close(self) -> None:
        """Nothing is open."""

    async def _reach(self, what: str) -> None:
        await self._life.step(self._random.uniform(0.0005, 0.01))
        if not self._store.is_up or self._host in self._life.world.cut_from_witness:
            await self._life.step(TIMEOUT_S)
            raise WitnessUnreachable(what)
