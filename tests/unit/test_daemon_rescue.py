"""A rescue ends when nothing hangs on it, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon.host import Host
from colod.daemon.rescue import free_all, is_free
from colod.failover.effects import Decision, Do, State
from colod.failover.view import Ended, Journal, View
from colod.model import Disks, GuestName, HostName, PairingId, Protection, Role

ALONE = Decision(rule="rest", state=State.ALONE)


class Guest:
    """A protection that the test changes."""

    def __init__(self, name: str, decision: Decision = ALONE, **entry: Any) -> None:
        terms = Protection(
            guest=GuestName(name),
            primary=HostName("alpha"),
            secondary=HostName("beta"),
            disks=Disks.NONE,
        )
        self.journal = replace(
            Journal(protection=terms, host=HostName("alpha"), role=Role.PRIMARY), **entry
        )
        self.guest, self.decision = name, decision
        self.erased = asyncio.Event()
        self.has_looked, self.trouble = True, ""
        self.ended = Ended.NOTHING
        self._changed = asyncio.Event()

    @property
    def facts(self) -> SimpleNamespace:
        view = View(journal=self.journal, boot="b", new_id="", ended=self.ended)
        return SimpleNamespace(view=view)

    @property
    def state(self) -> State:
        return self.decision.state or State.STOPPED

    def becomes(self, decision: Decision = ALONE, **entry: Any) -> None:
        self.decision, self.journal = decision, replace(self.journal, **entry)
        self._changed.set()

    async def until(self, fits: Callable[[], bool], *, timeout_s: float | None) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not fits():
                    self._changed.clear()
                    await self._changed.wait()
        return fits()


def paired(name: str = "web", state: State = State.PROTECTED) -> Guest:
    return Guest(name, Decision(rule="rest", state=state), pairing=PairingId("f" * 32))


def begin(
    *guests: Guest, limit_s: float | None = None, told: Callable[[Sequence[str]], None] = print
) -> asyncio.Task[Sequence[str]]:
    host = SimpleNamespace(services={each.guest: each for each in guests})
    return asyncio.create_task(free_all(cast("Host", host), limit_s=limit_s, on_change=told))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("state", [State.PROTECTED, State.REPLICATING, State.SYNCING])
async def test_it_stays_for_a_pair_that_works(state: State) -> None:
    """Nobody else would miss the peer when it dies, and the guest's gate would stay closed."""
    guest = paired(state=state)
    work = begin(guest)
    await settle()
    assert not work.done()
    guest.becomes(pairing=None)
    assert await work == []


@pytest.mark.parametrize(
    "decision",
    [
        Decision(rule="hold", state=State.MANUAL_HOLD, cause="the witness does not answer"),
        Decision(rule="open", state=State.ALONE, effect=Do.OPEN_GATE),
    ],
)
async def test_it_stays_for_what_is_not_settled(decision: Decision) -> None:
    guest = Guest("web", decision)
    work = begin(guest)
    await settle()
    assert not work.done()
    guest.becomes()
    assert await work == []


async def test_a_guest_that_is_held_hangs_on_it() -> None:
    assert not is_free(cast("Any", Guest("web", held=True)))
    assert is_free(cast("Any", Guest("web")))


@pytest.mark.parametrize("ended", list(Ended))
async def test_so_does_one_that_is_to_be_cleared_away_or_started_again(ended: Ended) -> None:
    guest = Guest("web", Decision(rule="rest", state=State.GUEST_SHUTDOWN))
    guest.ended = ended
    assert is_free(cast("Any", guest)) is (ended is Ended.NOTHING)


async def test_so_does_one_that_is_being_started_again_in_this_boot_only() -> None:
    down = Decision(rule="rest", state=State.GUEST_SHUTDOWN)
    assert not is_free(cast("Any", Guest("web", down, boot="b", restarting_since=0.5)))
    assert is_free(cast("Any", Guest("web", down, boot="before", restarting_since=0.5)))


async def test_at_its_limit_it_names_what_is_left() -> None:
    hold = Decision(rule="hold", state=State.MANUAL_HOLD)
    left = await begin(paired("web"), Guest("db", hold), Guest("free"), limit_s=0.01)
    assert left == ["web: PROTECTED: in a pair with beta", "db: MANUAL_HOLD: not settled"]


async def test_it_says_for_whom_it_stays() -> None:
    said: list[Sequence[str]] = []
    web, db = paired("web"), paired("db")
    work = begin(web, db, told=said.append)
    await settle()
    web.becomes(pairing=None)
    await settle()
    db.erased.set()
    db.becomes()
    await work
    assert said == [["web", "db"], ["db"], []]
