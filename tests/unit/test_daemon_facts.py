"""How fresh the facts are that decisions rest on."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from colod.daemon.facts import Facts
from colod.daemon.parts import Parts
from colod.failover import record as records
from colod.failover.effects import State
from colod.failover.view import Answer, Journal
from colod.model import Disks, GuestName, HostName, Protection, Role
from colod.toolstack.port import Domain
from colod.witness.base import Stored

ALPHA, BETA = HostName("alpha"), HostName("beta")
TERMS = Protection(guest=GuestName("g1"), primary=ALPHA, secondary=BETA, disks=Disks.NONE)
JOURNAL = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY)
STORED = Stored(records.create(ALPHA, BETA, attempt="a"), 1)


class SlowDomains:
    """Xen on a host whose `xl list` takes longer than an answer of the witness is fresh."""

    async def by_name(self, *, since: float) -> Mapping[str, Domain]:
        """List nothing, slowly."""
        await asyncio.sleep(1.1)
        return {}


class SilentHeartbeat:
    """A peer that was never heard."""

    heard_at = None

    def answer(self, guest: str, *, asked_after: float) -> None:
        """Know nothing."""


def slow_parts() -> Parts:
    """Return the ports of a slow host."""
    limits = SimpleNamespace(
        beat_interval_s=1.0,
        suspect_after_s=5.0,
        resync_backoff_s=5.0,
        resync_backoff_max_s=5.0,
        resync_automatic=False,
        keep_quarantined=False,
    )
    parts = SimpleNamespace(
        limits=limits, heartbeat=SilentHeartbeat(), domains=SlowDomains(), boot="b"
    )
    return cast("Parts", parts)


async def test_an_answer_is_used_even_where_looking_takes_longer_than_it_is_fresh() -> None:
    """Otherwise a slow dom0 asks the witness for ever and decides nothing."""
    facts = Facts(slow_parts(), JOURNAL)
    first = await facts.look(JOURNAL, None, State.ARBITRATING)
    assert first.answer is Answer.STALE
    facts.answered(Answer.READ, STORED)
    second = await facts.look(JOURNAL, None, State.ARBITRATING)
    assert second.answer is Answer.READ
    assert second.record == STORED.record


async def test_an_answer_grows_old() -> None:
    facts = Facts(slow_parts(), JOURNAL)
    await facts.look(JOURNAL, None, State.ARBITRATING)
    facts.answered(Answer.READ, STORED)
    await facts.look(JOURNAL, None, State.ARBITRATING)
    later = await facts.look(JOURNAL, None, State.ARBITRATING)
    assert later.answer is Answer.STALE


async def test_a_gate_that_a_session_left_counts_as_closed_until_it_is_opened() -> None:
    """The pairing may be forgotten before its gate is: the guest would stay mute for ever."""
    left = replace(JOURNAL, pairing=None, gate='{"kind": "plug", "interfaces": ["vif1.0"]}')
    view = await Facts(slow_parts(), left).look(left, None, State.ALONE)
    assert view.gate_closed
    opened = await Facts(slow_parts(), JOURNAL).look(JOURNAL, None, State.ALONE)
    assert not opened.gate_closed
