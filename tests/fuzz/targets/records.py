"""What a daemon reads back: ownership records of a witness, its journal, and files of lines."""

from __future__ import annotations

import json
import zlib
from collections.abc import Hashable, Iterable
from functools import cache
from pathlib import Path

from colod.daemon.drill_log import DrillLog
from colod.daemon.history import History
from colod.errors import JournalError, WitnessError
from colod.failover import entry
from colod.failover import record as records
from colod.failover.view import Journal
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
from colod.witness.base import Stored
from colod.witness.content import last_generation, pack, unpack
from colod.witness.recordfile import RecordFile
from tests.fuzz.target import MIB, Reader, Target, demand, gist, same
from tests.fuzz.targets.folder import make_folder

_ALPHA, _BETA, _GUEST = HostName("alpha"), HostName("beta"), GuestName("g1")
_PAIRING = PairingId("ab" * 16)


@cache
def _folder() -> Path:
    return make_folder()


def _examples() -> list[records.OwnershipRecord]:
    alone = records.create(_ALPHA, _BETA, attempt="a1")
    paired = records.pair(alone, _PAIRING, Epoch(2), attempt="a2")
    taken = records.take_over(paired, _PAIRING, attempt="a3")
    forced = records.force(taken, _ALPHA, attempt="a4", reason="burnt down – gone")
    return [alone, paired, taken, forced, records.hand_over(paired, attempt="a5")]


def _run_record(octets: bytes) -> Hashable:
    """What is accepted is, to the byte, what colod would write, and can be written on from."""
    reader = Reader(octets)
    revision, raw = reader.byte(), reader.rest()
    try:
        stored = unpack(raw, revision)
    except WitnessError as error:
        return gist(error)
    same("a record packed anew", pack(stored), raw)
    if stored.record is None:
        after = stored.last_generation
        again = records.create(_ALPHA, _BETA, attempt="a", after=after)
        records.check_transition(None, again, by=_ALPHA, after=after)
        return "deleted"
    return "record", stored.record.state, bool(stored.record.forced)


def _run_file(octets: bytes) -> Hashable:
    file = RecordFile(_folder(), _GUEST)
    (_folder() / f"{_GUEST}.record").write_bytes(octets)
    try:
        stored = file.read(5.0)
    except WitnessError as error:
        return gist(error)
    return stored.record is None, last_generation(stored) > 0


def _run_journal(octets: bytes) -> Hashable:
    reader = Reader(octets)
    raw = reader.rest() if reader.flag() else _checked(reader.rest())
    try:
        journal = entry.decode(raw)
    except JournalError as error:
        return gist(error)
    try:
        again = entry.encode(journal)
    except JournalError as error:  # an entry of its kind that has grown too long
        return "read", gist(error)
    same("an entry read anew", entry.decode(again), journal)
    return "read", journal.role, journal.record is None, journal.pending is None


def _checked(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _run_lines(octets: bytes) -> Hashable:
    reader = Reader(octets)
    is_history = reader.flag()
    folder = _folder() / "lines"
    folder.mkdir(exist_ok=True)
    raw = reader.rest()
    name = "history.jsonl" if is_history else "drills.jsonl"
    (folder / name).write_bytes(raw)
    if is_history:
        history = History(folder / name)
        found = len(history.of("", 0))
        history.last_state("g1")
    else:
        log = DrillLog(folder)
        found = len(log.of("", 0))
        log.last_success("g1")
    demand(found <= len(raw.splitlines()) + raw.count(b"\x85") + raw.count(b"\xe2") + 1, "lines")
    return is_history, min(found, 3)


def _record_seeds() -> Iterable[bytes]:
    for each in _examples():
        yield b"\x05" + records.encode(each)
    yield b"\x05" + pack(Stored(None, 5, Generation(9)))


def _file_seeds() -> Iterable[bytes]:
    for seed in _record_seeds():
        yield b"colod-witness 1 g1 5\n" + seed[1:] + b"\n"


def _journal_seeds() -> Iterable[bytes]:
    terms = Protection(guest=_GUEST, primary=_ALPHA, secondary=_BETA, disks=Disks.NONE)
    for record in _examples():
        journal = Journal(
            protection=terms,
            host=_ALPHA,
            role=Role.PRIMARY,
            boot="b",
            record=record,
            revision=3,
            pairing=_PAIRING,
            reason="why",
        )
        raw = entry.encode(journal)
        yield b"\x01" + raw
        yield b"\x00" + raw.rstrip(b"\n").partition(b" ")[2]


def _line_seeds() -> Iterable[bytes]:
    change = {
        "unix_s": 1.5,
        "host": "alpha",
        "guest": "g1",
        "from_state": "",
        "to_state": "ALONE",
        "cause": "c",
        "generation": 1,
        "epoch": 2,
    }
    drill = {"id": "1", "unix_s": 1.5, "host": "alpha", "guest": "g1", "verdict": "passed"}
    yield b"\x01" + b"\n".join([json.dumps(change).encode()] * 2) + b"\n{not json}\n[1]\n"
    yield b"\x00" + b"\n".join([json.dumps(drill).encode()] * 2) + b'\n"x"\n1\n'


def _held(size: int) -> int:
    return MIB + 256 * size


RECORD = Target(run=_run_record, seeds=_record_seeds, held_bytes=_held)
FILE = Target(run=_run_file, seeds=_file_seeds, held_bytes=_held)
JOURNAL = Target(run=_run_journal, seeds=_journal_seeds, held_bytes=_held)
LINES = Target(run=_run_lines, seeds=_line_seeds, held_bytes=_held)
