"""An operator's word that the other host is off: when it is taken, and what it counts for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon.history import Change
from colod.daemon.journal import JournalStore
from colod.daemon.parts import Parts
from colod.daemon.proof import Proof
from colod.daemon.protection import ProtectionService
from colod.errors import JournalError, NotAllowedNow, WitnessUnreachable
from colod.failover import record as records
from colod.failover.effects import State
from colod.failover.learning import learn
from colod.failover.view import FenceWord, Journal
from colod.fencing.base import Fenced, Unconfirmed, Verdict
from colod.model import (
    Disks,
    Epoch,
    Generation,
    GuestName,
    HostName,
    PairingId,
    Protection,
    Role,
)
from colod.toolstack.port import Domain, DomainState
from colod.witness.base import Stored
from tests.unit.fake_parts import limits_with, parts_with

ALPHA, BETA, GAMMA = HostName("alpha"), HostName("beta"), HostName("gamma")
GUEST = GuestName("web")
PAIRING = PairingId("f" * 32)
TERMS = Protection(guest=GUEST, primary=ALPHA, secondary=BETA, disks=Disks.SHARED)
PAIRED = records.pair(records.create(ALPHA, BETA, attempt="a"), PAIRING, Epoch(2), attempt="b")
TAKEN = records.take_over(PAIRED, PAIRING, attempt="c")
WINNER = Journal(
    protection=TERMS, host=BETA, role=Role.SECONDARY, record=TAKEN, revision=3, boot="b"
)
WORD = FenceWord(generation=TAKEN.generation, reason="pulled its plug", operator="jo")
PATIENCE_S = 30.0


class Xen:
    """A host whose replica xl has let go, and perhaps a stranger beside it."""

    def __init__(self) -> None:
        self.ran = asyncio.Event()
        self.names = [str(GUEST)]

    async def by_name(self, *, since: float) -> Mapping[str, Domain]:
        """List what is there."""
        return {
            name: Domain(
                domid=domid,
                name=name,
                state=DomainState.PAUSED,
                paused=True,
                memory_bytes=1 << 20,
                cpu_time_s=0.0,
            )
            for domid, name in enumerate(self.names, 5)
        }

    async def run_promoted(self, guest: GuestName) -> None:
        """Note that it was let run, and nothing comes of it: what follows is not tested here."""
        self.ran.set()
        await asyncio.Event().wait()


class Agents:
    """Agents that prove nothing; with `hang`, they do not end."""

    def __init__(self, *, hang: bool = False) -> None:
        self.asked: list[HostName] = []
        self.is_asked = asyncio.Event()
        self.hang = hang

    async def fence(self, host: HostName) -> Verdict:
        """Prove nothing."""
        self.asked.append(host)
        self.is_asked.set()
        if self.hang:
            await asyncio.Event().wait()
        return Unconfirmed("the board does not answer")


class NoWitness:
    """One that is away: what the journal knows has to do."""

    async def read(self, guest: GuestName) -> Stored:
        """Do not answer."""
        raise WitnessUnreachable("away")


class Heartbeat:
    """A peer that was never heard."""

    networks = (SimpleNamespace(name="alpha", heard_at=None),)

    def answer(self, guest: str, *, asked_after: float) -> None:
        """Say nothing."""


class Histories:
    """Remember the states that were shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def last_state(self, guest: str) -> str:
        """Know nothing."""
        return ""

    def add(self, change: Change) -> bool:
        """Remember it."""
        self.shown.append(change.to_state)
        return True


class Bench:
    """A secondary that owns its guest and has to prove that the other host is off."""

    def __init__(self, folder: Path, *, peer: HostName = ALPHA) -> None:
        self.folder, self.peer = folder, peer
        self.store: Any = JournalStore(folder / "protections")
        self.xen, self.agents, self.history = Xen(), Agents(), Histories()

    def parts(self) -> Parts:
        """Return the ports of this host."""
        return parts_with(
            host=BETA,
            peer=self.peer,
            limits=limits_with(suspect_after_s=0.5, standstill_s=60.0),
            heartbeat=Heartbeat(),
            domains=self.xen,
            toolstack=self.xen,
            witness=NoWitness(),
            fencer=self.agents,
            journal=self.store,
            history=self.history,
            sessions=self.folder / "sessions",
        )

    @contextlib.asynccontextmanager
    async def daemon(self, journal: Journal) -> AsyncIterator[ProtectionService]:
        """Have the guest looked after by a daemon that finds `journal` on disk."""
        service = ProtectionService(self.parts(), journal)
        task = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def on_disk(self) -> Journal:
        """Return what the next daemon would read."""
        (journal,) = self.store.read_all()
        return cast("Journal", journal)

    async def until_runs(self) -> None:
        """Wait until the guest was let run."""
        async with asyncio.timeout(PATIENCE_S):
            await self.xen.ran.wait()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def until_rule(service: ProtectionService, rule: str) -> None:
    assert await service.until(lambda: service.decision.rule == rule, timeout_s=PATIENCE_S)


async def test_a_word_lets_the_guest_run_and_is_on_disk_with_who_gave_it_and_why(
    bench: Bench,
) -> None:
    async with bench.daemon(WINNER) as service:
        await until_rule(service, "await_fence")
        assert await service.confirm_peer_off("pulled its plug", "jo") == ["fencing"]
        assert bench.on_disk().fence_word == WORD
        await bench.until_runs()


async def test_a_word_that_cannot_be_written_does_not_count(bench: Bench) -> None:
    class Full:
        async def write(self, journal: Journal) -> None:
            raise JournalError("no space left")

    bench.store = Full()
    async with bench.daemon(WINNER) as service:
        await until_rule(service, "await_fence")
        with pytest.raises(JournalError):
            await service.confirm_peer_off("pulled its plug", "jo")
        await until_rule(service, "await_fence")
        assert not bench.xen.ran.is_set()


async def test_the_next_daemon_still_has_the_word(bench: Bench) -> None:
    await bench.store.write(replace(WINNER, fence_word=WORD))
    async with bench.daemon(bench.on_disk()):
        await bench.until_runs()
    assert not bench.agents.asked


async def test_a_word_of_an_earlier_takeover_counts_for_no_later_one(bench: Bench) -> None:
    later = replace(TAKEN, generation=Generation(TAKEN.generation + 4))
    async with bench.daemon(replace(WINNER, record=later, fence_word=WORD)) as service:
        await until_rule(service, "await_fence")
        assert not bench.xen.ran.is_set()
    assert bench.agents.asked == [ALPHA]


async def test_a_word_is_refused_while_something_else_is_waited_for_and_it_says_what(
    bench: Bench,
) -> None:
    """Fencing was tried in vain; then a stranger took the guest's name."""
    async with bench.daemon(WINNER) as service:
        await until_rule(service, "await_fence")
        bench.xen.names.append(f"{GUEST}--incoming")
        await until_rule(service, "free_name")
        with pytest.raises(NotAllowedNow) as refused:
            await service.confirm_peer_off("pulled its plug", "jo")
        assert service.journal.fence_word is None
    assert "another domain has the guest's name" in str(refused.value)
    assert "xl rename" in refused.value.advice


async def test_a_word_is_refused_once_another_grant_is_known(bench: Bench) -> None:
    """What the operator saw waiting was another takeover."""
    async with bench.daemon(WINNER) as service:
        await until_rule(service, "await_fence")
        back = records.force(TAKEN, ALPHA, attempt="z", reason="I am at alpha")
        service.journal = learn(service.journal, back, 4)
        with pytest.raises(NotAllowedNow):
            await service.confirm_peer_off("pulled its plug", "jo")


@pytest.mark.parametrize("journal", [replace(WINNER, record=PAIRED), replace(WINNER, record=None)])
async def test_a_word_that_nothing_waits_for_is_refused(bench: Bench, journal: Journal) -> None:
    async with bench.daemon(journal) as service:
        assert await service.until_looked(timeout_s=PATIENCE_S)
        with pytest.raises(NotAllowedNow, match="nothing waits for alpha to be off"):
            await service.confirm_peer_off("pulled its plug", "jo")


async def test_a_word_does_not_wait_for_agents_that_hang(bench: Bench) -> None:
    bench.agents.hang = True
    async with bench.daemon(WINNER) as service:
        await until_asked(bench.agents)
        assert service.state is State.FENCING
        async with asyncio.timeout(PATIENCE_S):
            assert await service.confirm_peer_off("pulled its plug", "jo") == ["fencing"]
        await bench.until_runs()


async def until_asked(agents: Agents) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await agents.is_asked.wait()


async def test_of_a_peer_that_is_not_configured_any_more_a_word_counts_and_no_agent_is_asked(
    tmp_path: Path,
) -> None:
    """The devices are the present peer's: another host would be switched off."""
    bench = Bench(tmp_path, peer=GAMMA)
    async with bench.daemon(WINNER) as service:
        await until_rule(service, "await_fence")
        assert await service.confirm_peer_off("it is in the skip", "jo") == ["fencing"]
        await bench.until_runs()
    assert not bench.agents.asked


async def test_agents_that_proved_nothing_are_asked_again_and_the_hold_ends(
    bench: Bench,
) -> None:
    class Late(Agents):
        async def fence(self, host: HostName) -> Verdict:
            verdict = await super().fence(host)
            return Fenced("status: off") if len(self.asked) > 2 else verdict

    bench.agents = Late()
    async with bench.daemon(WINNER) as service:
        service.facts.proof = Proof(retry_s=0.1)
        assert await service.until(lambda: service.state is State.MANUAL_HOLD, timeout_s=PATIENCE_S)
        assert "the board does not answer; asked again every" in service.decision.cause
        await bench.until_runs()
    assert bench.history.shown == ["FENCING", "MANUAL_HOLD", "PROMOTING"], (
        "no new state for each try"
    )


async def test_agents_that_prove_it_need_no_word(bench: Bench) -> None:
    class Proof(Agents):
        async def fence(self, host: HostName) -> Verdict:
            return Fenced("status: off")

    bench.agents = Proof()
    async with bench.daemon(WINNER) as service:
        await bench.until_runs()
        assert service.journal.fence_word is None
