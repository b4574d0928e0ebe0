"""One kind of blocking work never waits for another."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colod.daemon.journal import JournalStore
from colod.failover.view import Journal
from colod.fencing.agents import AgentsFencer
from colod.fencing.base import Fenced
from colod.model import Disks, GuestName, HostName, Protection, Role
from colod.threads import Threads
from colod.toolstack.port import ProcessRef
from colod.toolstack.process import wait_gone

LIMIT_S = 60.0
MANY = 40
"""More than asyncio's own pool ever has."""


@pytest.fixture
async def busy() -> AsyncIterator[None]:
    """Keep every thread of asyncio's own pool waiting, as a peer that does not answer would."""
    over = threading.Event()
    waiting = [asyncio.create_task(asyncio.to_thread(over.wait, LIMIT_S)) for _ in range(MANY)]
    await asyncio.sleep(0)
    yield
    over.set()
    await asyncio.gather(*waiting)


@pytest.mark.usefixtures("busy")
async def test_the_journal_is_written_while_others_wait(tmp_path: Path) -> None:
    alpha, beta = HostName("alpha"), HostName("beta")
    terms = Protection(guest=GuestName("web"), primary=alpha, secondary=beta, disks=Disks.NONE)
    store = JournalStore(tmp_path)
    async with asyncio.timeout(LIMIT_S / 4):
        await store.write(Journal(protection=terms, host=alpha, role=Role.PRIMARY))
        await store.erase(GuestName("web"))
    assert not store.read_all()


@pytest.mark.usefixtures("busy")
async def test_the_end_of_a_process_is_seen_while_others_wait() -> None:
    ended = ProcessRef(pid=os.getpid(), start_ticks=0)  # it had our number once
    async with asyncio.timeout(LIMIT_S / 4):
        assert await wait_gone(ended, LIMIT_S)


@pytest.mark.usefixtures("busy")
async def test_a_host_is_fenced_while_others_wait(tmp_path: Path) -> None:
    agent = tmp_path / "fence_test"
    agent.write_text("#!/bin/sh\ncat >/dev/null\n")
    agent.chmod(0o755)
    device = {"agent": str(agent), "verify": False}
    fencer = AgentsFencer.from_config({"devices": [device]}, host=HostName("alpha"))
    async with asyncio.timeout(LIMIT_S / 4):
        assert isinstance(await fencer.fence(HostName("beta")), Fenced)


async def test_work_beyond_the_bound_waits_for_a_thread_of_its_own_kind() -> None:
    few, others = Threads("few", 1), Threads("others", 1)
    over = threading.Event()
    first = asyncio.create_task(few.run(over.wait, LIMIT_S))
    second = asyncio.create_task(few.run(threading.get_native_id))
    assert await others.run(max, 1, 2) == 2
    assert not second.done()
    over.set()
    assert await first
    assert await second
