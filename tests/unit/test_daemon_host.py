"""One protection per guest, on the terms that were asked for, and none after its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon import actions
from colod.daemon.host import Host
from colod.daemon.parts import Parts
from colod.daemon.status import reply_of, status_of
from colod.errors import JournalError, NotAllowedNow, PeerRefused, PreflightRefused
from colod.failover import record as records
from colod.failover.effects import Decision, State
from colod.failover.record import OwnershipRecord
from colod.failover.view import Journal, Wanted
from colod.model import Disks, Epoch, GuestName, HostName, PairingId, Protection, Role
from colod.observe.checks import FRESH_S
from colod.toolstack.port import Domain
from colod.v1 import peer_pb2
from colod.witness.base import Stored
from tests.unit.fake_parts import parts_with

ALPHA, BETA, GUEST = HostName("alpha"), HostName("beta"), GuestName("g1")
TERMS = Protection(guest=GUEST, primary=ALPHA, secondary=BETA, disks=Disks.NONE, interval_ms=50)
PRIMARY = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY, boot="b")


class Disk:
    """A journal on a disk that takes its time."""

    def __init__(self, *entries: Journal) -> None:
        self.entries = entries
        self.written: list[Journal] = []
        self.stalled: asyncio.Event | None = None

    def read_all(self) -> Sequence[Journal]:
        return self.entries

    def read_readable(self) -> tuple[Sequence[Journal], Sequence[str]]:
        return self.entries, ()

    async def write(self, journal: Journal) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if self.stalled is not None:
            await self.stalled.wait()
        self.written.append(journal)


class NoXen:
    """Xen never answers, so nothing is ever decided."""

    async def by_name(self, *, since: float = 0) -> Mapping[str, Domain]:
        await asyncio.get_running_loop().create_future()
        return {}


class FixedWitness:
    """It always holds the same."""

    def __init__(self, record: OwnershipRecord | None) -> None:
        self.stored = Stored(record=record, revision=1 if record else 0)

    async def read(self, guest: GuestName) -> Stored:
        return self.stored


BETAS = records.create(BETA, ALPHA, attempt="1")
"""By it beta owns the guest."""


def host_with(
    disk: Disk,
    sessions: Path,
    record: OwnershipRecord | None = None,
    *,
    joins_pairings: bool = True,
) -> Host:
    parts = parts_with(
        host=ALPHA,
        peer=BETA,
        heartbeat=SimpleNamespace(networks=(), answer=lambda guest, asked_after: None),
        domains=NoXen(),
        journal=disk,
        history=SimpleNamespace(last_state=lambda guest: ""),
        sessions=sessions,
        witness=FixedWitness(record),
    )
    return Host(parts, joins_pairings=joins_pairings)


async def test_two_requests_for_one_guest_begin_one_protection(tmp_path: Path) -> None:
    disk = Disk()
    host = host_with(disk, tmp_path, BETAS)
    request = peer_pb2.PrepareReceiveRequest(
        guest=GUEST, pairing="0" * 32, generation=1, disks="none", mode="remus", interval_ms=50
    )
    asking = [asyncio.create_task(host.receive(request)) for _ in range(2)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(disk.written) == 1
    assert list(host.services) == [GUEST]
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await host.stop()


@pytest.mark.parametrize(
    ("disks", "interval_ms"), [(Disks.SHARED, 0), (Disks.SHARED, 50), (Disks.NONE, 100)]
)
async def test_other_terms_for_a_protected_guest_are_refused_not_passed_over(
    tmp_path: Path, disks: Disks, interval_ms: int
) -> None:
    host = host_with(Disk(PRIMARY), tmp_path)
    host.adopt_all()
    with pytest.raises(NotAllowedNow, match="--disks none --interval-ms 50") as refused:
        await host.protect(GUEST, BETA, disks, interval_ms, dry_run=False)
    assert "unprotect" in refused.value.advice
    await host.stop()


async def test_a_drained_host_refuses_to_protect_and_says_what_ends_that(tmp_path: Path) -> None:
    host = host_with(Disk(PRIMARY), tmp_path)
    host.adopt_all()
    host.services[GUEST].drain()
    with pytest.raises(NotAllowedNow, match="drained") as refused:
        await host.protect(GUEST, BETA, Disks.NONE, 0, dry_run=False)
    assert "restart" in refused.value.advice
    await host.stop()


@pytest.mark.parametrize(("age_s", "is_held"), [(1.0, True), (FRESH_S + 1, False)])
async def test_output_is_said_to_be_held_only_while_that_is_known(
    tmp_path: Path, age_s: float, is_held: bool
) -> None:
    """While xl hangs nothing is looked at, and the last decision stays."""
    host = host_with(Disk(PRIMARY), tmp_path)
    host.adopt_all()
    service = host.services[GUEST]
    service.decision = Decision(rule="protected", state=State.PROTECTED)
    service.has_looked, service.decided_on = True, time.monotonic() - age_s
    assert status_of(service).output_held is is_held
    assert service.peer_view().state == ("PROTECTED" if is_held else "")
    assert status_of(service).state == "PROTECTED"
    await host.stop()


@pytest.mark.parametrize("role", Role)
async def test_a_replica_that_no_drill_has_tried_is_told_whether_images_are_kept_or_not(
    tmp_path: Path, role: Role
) -> None:
    host = host_with(Disk(replace(PRIMARY, role=role)), tmp_path)
    host.adopt_all()
    told = reply_of(
        cast(
            "Host",
            SimpleNamespace(
                parts=SimpleNamespace(
                    host=ALPHA,
                    automation=SimpleNamespace(pause=None),
                    heartbeat=SimpleNamespace(peer_paused=False),
                ),
                self_fence=None,
            ),
        ),
        host.services.values(),
        simulated=True,
        last_drill=lambda _: None,
        last_image=lambda _: None,
    )
    (status,) = told.protections
    assert status.HasField("drill_last_success_unix_s") is (role is Role.SECONDARY)
    assert status.drill_last_success_unix_s == 0
    await host.stop()


async def test_nothing_is_written_for_a_protection_that_has_ended(tmp_path: Path) -> None:
    """Else its journal entry comes back, or a receiver is begun that nobody decides about."""
    disk = Disk(PRIMARY)
    host = host_with(disk, tmp_path)
    host.adopt_all()
    service = host.services[GUEST]
    service.finish()
    with pytest.raises(NotAllowedNow, match="just ended"):
        await service.want(Wanted.SUSPENDED)
    assert not disk.written
    await host.stop()


async def cut_off(work: Coroutine[Any, Any, object], disk: Disk) -> None:
    """Have the caller of `work` go away while the disk stalls, and the disk recover later."""
    disk.stalled = asyncio.Event()
    request = asyncio.create_task(work)
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.sleep(0.01)
    assert not request.done(), "it ended before its write"
    disk.stalled.set()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_a_wish_whose_caller_went_away_is_remembered_as_it_was_written(
    tmp_path: Path,
) -> None:
    """Else it would come into force at the next start, weeks later."""
    disk = Disk(PRIMARY)
    host = host_with(disk, tmp_path)
    host.adopt_all()
    service = host.services[GUEST]
    await cut_off(service.note(replace(PRIMARY, wanted=Wanted.SUSPENDED)), disk)
    assert disk.written == [service.journal]
    assert service.journal.wanted is Wanted.SUSPENDED
    await host.stop()


async def test_a_protection_whose_caller_went_away_is_there_if_it_was_written(
    tmp_path: Path,
) -> None:
    disk = Disk()
    host = host_with(disk, tmp_path, BETAS)
    request = peer_pb2.PrepareReceiveRequest(
        guest=GUEST, pairing="0" * 32, generation=1, disks="none", mode="remus", interval_ms=50
    )
    await cut_off(host.receive(request), disk)
    assert [host.services[GUEST].journal] == disk.written
    await host.stop()


async def test_under_another_name_this_host_takes_nothing_over(tmp_path: Path) -> None:
    """It would write records in a name that they do not know."""
    host = host_with(Disk(replace(PRIMARY, host=BETA)), tmp_path)
    with pytest.raises(JournalError, match="but g1 is protected here as beta"):
        host.adopt_all()
    assert not host.services
    assert [text for text in host.adopt_readable() if "beta" in text]
    assert not host.services
    await host.stop()


@pytest.mark.parametrize("record", [None, BETAS])
async def test_a_pairing_by_a_record_that_this_host_does_not_see_is_refused(
    tmp_path: Path, record: OwnershipRecord | None
) -> None:
    """With another witness than its peer's it could never take over, and nobody would know."""
    disk = Disk()
    host = host_with(disk, tmp_path, record)
    request = peer_pb2.PrepareReceiveRequest(
        guest=GUEST, pairing="0" * 32, generation=2, disks="none", mode="remus", interval_ms=50
    )
    with pytest.raises(PeerRefused, match="does not show the record of g1") as refused:
        await host.receive(request)
    assert "same [witness]" in refused.value.advice
    assert not disk.written
    assert not host.services


@pytest.mark.parametrize(
    ("record", "told"),
    [
        pytest.param(BETAS, "beta owns it", id="the other host owns its namesake"),
        pytest.param(
            records.pair(
                records.create(ALPHA, BETA, attempt="1"), PairingId("0" * 32), Epoch(2), attempt="2"
            ),
            "alpha owns it, and beta may take over",
            id="the other host may hold a newer replica",
        ),
        pytest.param(
            records.create(HostName("gamma"), BETA, attempt="1"),
            "between gamma and beta",
            id="another pair",
        ),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_guest_of_which_the_witness_has_an_older_record_is_not_protected(
    tmp_path: Path, record: OwnershipRecord, told: str, dry_run: bool
) -> None:
    """By that record the guest that runs here would be a copy that lost, and be destroyed."""
    disk = Disk()
    host = host_with(disk, tmp_path, record)
    with pytest.raises(PreflightRefused, match=told) as refused:
        await host.protect(GUEST, BETA, Disks.NONE, 0, dry_run=dry_run)
    assert "docs/witness.md" in str(refused.value)
    assert not disk.written
    assert not host.services


async def test_a_rescue_joins_no_pairing(tmp_path: Path) -> None:
    """It may end at any moment, and nobody would look after the replica then."""
    disk = Disk()
    host = host_with(disk, tmp_path, BETAS, joins_pairings=False)
    request = peer_pb2.PrepareReceiveRequest(guest=GUEST, pairing="0" * 32, generation=1)
    with pytest.raises(PeerRefused, match="only a rescue"):
        await host.receive(request)
    assert not host.services


async def test_a_host_that_becomes_primary_tells_the_network_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon that let the guest run may have died before anybody was told."""
    told: list[GuestName] = []

    async def announce(parts: Parts, guest: GuestName) -> None:
        told.append(guest)

    monkeypatch.setattr(actions, "announce_guest", announce)
    secondary = replace(PRIMARY, role=Role.SECONDARY, pairing=PairingId("0" * 32))
    host = host_with(Disk(secondary), tmp_path)
    host.adopt_all()
    service = host.services[GUEST]
    await service.note(replace(secondary, reason="it is told only where roles change"))
    await asyncio.sleep(0)
    assert told == []
    await service.note(replace(secondary, role=Role.PRIMARY, pairing=None))
    await asyncio.sleep(0)
    assert told == [GUEST]
    await host.stop()
