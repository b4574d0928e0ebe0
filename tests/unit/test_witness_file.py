"""The witness `file`."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from colod.errors import ConfigError, WitnessError, WitnessUnreachable
from colod.failover.record import OwnershipRecord, create, encode, go_alone, pair, take_over
from colod.model import Epoch, GuestName
from colod.witness.base import Lost, Stored, Unknown, Won
from colod.witness.file import FileWitness
from colod.witness.settle import settle
from tests.unit.witness_contract import (
    GUEST,
    PAIRING,
    A,
    B,
    Hosts,
    WitnessContract,
    attempt,
    created,
    paired,
    record_of,
    write,
)


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    both = Hosts(FileWitness(tmp_path, host=A, timeout_s=10), FileWitness(tmp_path, host=B))
    yield both
    await both.a.close()
    await both.b.close()


class TestContract(WitnessContract):
    """The file witness does what every witness must."""


@pytest.fixture
def held_lock(tmp_path: Path) -> Iterator[int]:
    """The lock of the guest's record, held by somebody who does not let go."""
    lock = os.open(tmp_path / f"{GUEST}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield lock
    os.close(lock)


async def test_a_lock_that_is_never_released_makes_a_write_unknown_and_a_read_unreachable(
    tmp_path: Path, held_lock: int
) -> None:
    witness = FileWitness(tmp_path, host=A, timeout_s=0.05)
    with pytest.raises(WitnessUnreachable, match="lock"):
        await witness.read(GUEST)
    from_absent = await witness.compare_and_swap(
        GUEST, Stored(None, 0), create(A, B, attempt=attempt())
    )
    assert isinstance(from_absent, Unknown)
    fcntl.flock(held_lock, fcntl.LOCK_UN)
    patient = FileWitness(tmp_path, host=A, timeout_s=10)
    assert await patient.read(GUEST) == Stored(None, 0)


async def test_the_event_loop_runs_while_the_lock_is_held(tmp_path: Path, held_lock: int) -> None:
    witness = FileWitness(tmp_path, host=A, timeout_s=30)
    reading = asyncio.ensure_future(witness.read(GUEST))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not reading.done()
    fcntl.flock(held_lock, fcntl.LOCK_UN)
    assert await reading == Stored(None, 0)


async def test_a_file_system_that_refuses_writes_makes_the_outcome_unknown(
    hosts: Hosts, tmp_path: Path
) -> None:
    stored = await paired(hosts)
    # A directory in the temporary file's place: creating it fails as a full disk would.
    (tmp_path / f".{GUEST}.record.temporary").mkdir()
    alone = go_alone(record_of(stored), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, alone), Unknown)
    assert await hosts.a.read(GUEST) == stored
    (tmp_path / f".{GUEST}.record.temporary").rmdir()
    assert isinstance(await settle(hosts.a, GUEST, stored, alone), Won)


async def test_a_full_disk_leaves_the_old_record_whole(hosts: Hosts, tmp_path: Path) -> None:
    stored = await paired(hosts)
    (tmp_path / f".{GUEST}.record.temporary").symlink_to("/dev/full")
    alone = go_alone(record_of(stored), attempt=attempt())
    outcome = await hosts.a.compare_and_swap(GUEST, stored, alone)
    assert isinstance(outcome, Unknown)
    assert "No space left" in outcome.reason
    assert await hosts.b.read(GUEST) == stored


async def test_an_unknown_write_that_another_host_overtook_is_lost(
    hosts: Hosts, tmp_path: Path
) -> None:
    stored = await paired(hosts)
    blocker = tmp_path / f".{GUEST}.record.temporary"
    blocker.mkdir()
    alone = go_alone(record_of(stored), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, alone), Unknown)
    blocker.rmdir()
    taken = await write(hosts.b, stored, take_over(record_of(stored), PAIRING, attempt=attempt()))
    assert await settle(hosts.a, GUEST, stored, alone) == Lost(taken)


async def test_a_missing_directory_is_an_unreachable_witness_and_not_an_absent_record(
    tmp_path: Path,
) -> None:
    witness = FileWitness(tmp_path / "not-mounted", host=A)
    with pytest.raises(WitnessUnreachable):
        await witness.read(GUEST)
    outcome = await witness.compare_and_swap(
        GUEST, Stored(None, 0), create(A, B, attempt=attempt())
    )
    assert isinstance(outcome, Unknown)


@pytest.mark.parametrize("kept", [0, 1, 20, 40, -2])
async def test_a_torn_record_is_an_error_and_is_never_written_over(
    hosts: Hosts, tmp_path: Path, kept: int
) -> None:
    stored = await created(hosts)
    file = tmp_path / f"{GUEST}.record"
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    with pytest.raises(WitnessError):
        await hosts.a.read(GUEST)
    following = pair(record_of(stored), PAIRING, Epoch(2), attempt=attempt())
    with pytest.raises(WitnessError):
        await hosts.a.compare_and_swap(GUEST, stored, following)
    assert file.read_bytes() == whole[:kept]


async def test_another_guests_file_under_this_name_is_an_error(
    hosts: Hosts, tmp_path: Path
) -> None:
    await created(hosts)
    (tmp_path / f"{GUEST}.record").rename(tmp_path / "other.record")
    with pytest.raises(WitnessError, match="not a record file of other"):
        await hosts.a.read(GuestName("other"))


async def test_a_restored_older_file_is_seen_as_older_and_is_never_a_lost_race(
    hosts: Hosts, tmp_path: Path
) -> None:
    before = await created(hosts)
    file = tmp_path / f"{GUEST}.record"
    backup = file.read_bytes()
    stored = await write(
        hosts.a, before, pair(record_of(before), PAIRING, Epoch(2), attempt=attempt())
    )
    file.write_bytes(backup)
    assert (await hosts.a.read(GUEST)).revision < stored.revision
    alone = go_alone(record_of(stored), attempt=attempt())
    outcome = await hosts.a.compare_and_swap(GUEST, stored, alone)
    assert isinstance(outcome, Unknown)
    assert "went back" in outcome.reason


async def test_a_pending_write_is_settled_by_what_an_operator_put_back(
    hosts: Hosts, tmp_path: Path
) -> None:
    """A restored witness counts from less: what it holds decides, not its revision."""
    stored = await paired(hosts)
    mine = go_alone(record_of(stored), attempt=attempt())
    theirs = take_over(record_of(stored), PAIRING, attempt=attempt())
    for record, outcome in ((mine, Won), (theirs, Lost), (record_of(stored), Unknown)):
        put_back(tmp_path, 1, record)
        answer = await hosts.a.compare_and_swap(GUEST, stored, mine)
        assert isinstance(answer, outcome), record
        if not isinstance(answer, Unknown):
            assert answer.stored.record == record


async def test_a_pending_deletion_is_not_taken_for_done_by_an_erased_witness(
    hosts: Hosts, tmp_path: Path
) -> None:
    before = await created(hosts)
    (tmp_path / f"{GUEST}.record").unlink()
    assert isinstance(await hosts.a.compare_and_swap(GUEST, before, None), Unknown)


def put_back(folder: Path, revision: int, record: OwnershipRecord) -> None:
    """Write a record as a restored witness would hold it."""
    head = f"colod-witness 1 {GUEST} {revision}\n".encode()
    (folder / f"{GUEST}.record").write_bytes(head + encode(record) + b"\n")


async def test_another_content_at_the_same_revision_is_not_replaced(
    hosts: Hosts, tmp_path: Path
) -> None:
    stored = await paired(hosts)
    other = replace(record_of(stored), promotable_from=Epoch(7), attempt="other")
    put_back(tmp_path, stored.revision, other)
    alone = go_alone(record_of(stored), attempt=attempt())
    assert isinstance(await hosts.a.compare_and_swap(GUEST, stored, alone), Unknown)


async def test_hung_calls_are_bounded_and_later_ones_are_not_started(
    tmp_path: Path, held_lock: int
) -> None:
    witness = FileWitness(tmp_path, host=A, timeout_s=20)
    hung = [asyncio.ensure_future(witness.read(GUEST)) for _ in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(WitnessUnreachable, match="have not returned"):
        await witness.read(GuestName("other"))
    fcntl.flock(held_lock, fcntl.LOCK_UN)
    assert await asyncio.gather(*hung) == [Stored(None, 0)] * 8


def test_all_problems_of_the_configuration_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        FileWitness.from_config({"timeout_s": 0, "direktory": "/x"}, host=A)
    text = str(caught.value)
    assert "witness.directory" in text
    assert "witness.timeout_s" in text
    assert "witness.direktory" in text


async def test_the_configured_directory_holds_the_records(tmp_path: Path) -> None:
    witness = FileWitness.from_config({"directory": str(tmp_path)}, host=A)
    await write(witness, Stored(None, 0), create(A, B, attempt=attempt()))
    assert (tmp_path / f"{GUEST}.record").exists()
