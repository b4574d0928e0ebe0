"""The journal entry survives the disk, and a damaged one is seen."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.errors import JournalError
from colod.failover import entry
from colod.failover.record import NO_GENERATION, OwnershipRecord
from colod.failover.view import FenceWord, Journal, Pending, Wanted
from colod.model import (
    Disks,
    Generation,
    GuestName,
    HostName,
    Mode,
    PairingId,
    Protection,
    Role,
)
from colod.witness.base import Stored
from colod.witness.content import unpack
from tests.unit.failover_transcripts.situation import (
    ALPHA,
    BETA,
    FIRST,
    LATER,
    PAIRED,
    TAKEN,
    TERMS,
    THEIRS,
)

RECORDS = st.sampled_from([None, FIRST, PAIRED, LATER, TAKEN])
COUNTS = st.integers(min_value=0, max_value=2**63 - 1)
PAIRINGS = st.none() | st.text("0123456789abcdef", min_size=32, max_size=32).map(PairingId)
TEXTS = st.text(max_size=40)

PROTECTIONS = st.builds(
    Protection,
    guest=st.just(GuestName("web")),
    primary=st.just(ALPHA),
    secondary=st.just(BETA),
    disks=st.sampled_from(Disks),
    mode=st.sampled_from(Mode),
    interval_ms=st.integers(min_value=20, max_value=60_000),
)
JOURNALS = st.builds(
    Journal,
    protection=PROTECTIONS,
    host=st.sampled_from([ALPHA, BETA]),
    role=st.sampled_from(Role),
    record=RECORDS,
    revision=COUNTS,
    pending=st.none() | st.builds(Pending, new=RECORDS, record=RECORDS, revision=COUNTS),
    pairing=PAIRINGS,
    pairing_generation=COUNTS.map(Generation),
    held=st.booleans(),
    started=st.booleans(),
    may_hand_back=st.booleans(),
    wanted=st.sampled_from(Wanted),
    boot=TEXTS,
    reason=TEXTS,
    force_reason=TEXTS,
    switchover=TEXTS,
    held_domid=st.integers(0, 2**15),
    replica_domid=st.integers(0, 2**15),
    fence_word=st.none()
    | st.builds(
        FenceWord,
        generation=COUNTS.map(Generation),
        reason=TEXTS.map("it is off {}".format),
        operator=TEXTS.map("jo {}".format),
    ),
)

ENTRY = entry.encode(
    Journal(
        protection=Protection(
            guest=GuestName("web"), primary=ALPHA, secondary=BETA, disks=Disks.NONE
        ),
        host=ALPHA,
        role=Role.PRIMARY,
        record=PAIRED,
        pending=Pending(new=LATER, record=PAIRED, revision=4),
        pairing=PairingId("a" * 32),
    )
)


@given(JOURNALS)
def test_what_was_written_is_read_again(journal: Journal) -> None:
    assert entry.decode(entry.encode(journal)) == journal


@given(st.integers(min_value=0, max_value=len(ENTRY) - 2))
def test_a_torn_entry_is_seen(length: int) -> None:
    with pytest.raises(JournalError):
        entry.decode(ENTRY[:length])


@given(st.integers(min_value=0, max_value=len(ENTRY) - 2), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_seen(at: int, by: int) -> None:
    damaged = bytearray(ENTRY)
    damaged[at] ^= by
    with pytest.raises(JournalError):
        entry.decode(bytes(damaged))


@given(st.binary(max_size=200))
def test_garbage_is_no_entry(garbage: bytes) -> None:
    with pytest.raises(JournalError):
        entry.decode(garbage)


def _signed(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _changed(**fields: object) -> bytes:
    body = json.loads(ENTRY.partition(b" ")[2])
    return _signed(json.dumps(body | fields, sort_keys=True).encode())


@pytest.mark.parametrize(
    "raw",
    [
        _signed(b"null"),
        _signed(b"[]"),
        _signed(b"{}"),
        _signed(b"\xff"),
        _changed(format=2),
        _changed(host="no such host"),
        _changed(role="bystander"),
        _changed(record="{}"),
        _changed(pairing="short"),
        _changed(wanted="everything"),
        _changed(protection={}),
        _changed(pending={"new": None}),
        _changed(unheard_of=1),
        _changed(revision=[1]),
        _changed(started="no"),
        _changed(held=1),
        _changed(pairing_generation=float("inf")),
        _changed(restarting_since="soon"),
        _changed(fence_word={"generation": 3, "reason": "it is in the skip"}),
        _changed(fence_word={"generation": 3, "reason": "it is in the skip", "operator": " "}),
        _changed(fence_word={"generation": 3, "reason": "", "operator": "jo"}),
        _changed(fence_word="it is in the skip"),
        _signed(b"[" * 20_000),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_though_its_checksum_fits(raw: bytes) -> None:
    with pytest.raises(JournalError):
        entry.decode(raw)


def test_an_entry_is_one_line() -> None:
    assert ENTRY.count(b"\n") == 1
    assert ENTRY.endswith(b"\n")


def test_an_entry_without_a_switchover_is_as_before_there_were_any() -> None:
    """So that an older colod can be put back."""
    fields = json.loads(ENTRY.partition(b" ")[2])
    assert "switchover" not in fields
    assert "held_domid" not in fields
    assert "replica_domid" not in fields
    assert "fence_word" not in fields
    assert entry.decode(ENTRY).switchover == ""


def test_a_new_journal_knows_no_generation() -> None:
    journal = entry.decode(ENTRY)
    assert journal.generation == PAIRED.generation
    assert journal.peer == HostName("beta")
    assert Journal(protection=journal.protection, host=BETA, role=Role.SECONDARY).generation == (
        NO_GENERATION
    )


@pytest.mark.parametrize("record", [FIRST, PAIRED, THEIRS])
def test_the_record_in_an_entry_is_what_a_witness_keeps(record: OwnershipRecord) -> None:
    """docs/witness.md has operators put it back as it is, after a witness was erased."""
    known = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY, record=record)
    text = json.loads(entry.encode(known).partition(b" ")[2])["record"]
    assert unpack(text.encode(), 5) == Stored(record, 5)


def test_an_entry_that_could_not_be_read_again_is_not_written() -> None:
    journal = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY)
    with pytest.raises(JournalError, match="limit"):
        entry.encode(replace(journal, reason="x" * entry.MAX_ENTRY_BYTES))
