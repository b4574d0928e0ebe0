"""The journal entry as bytes: versioned JSON under a checksum, so that torn writes are seen."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, get_type_hints

from colod.errors import JournalError, WitnessError
from colod.failover import record as records
from colod.failover.record import OwnershipRecord
from colod.failover.view import FenceWord, Journal, Pending, Wanted
from colod.model import (
    Disks,
    Generation,
    Mode,
    Protection,
    Role,
    parse_guest_name,
    parse_host_name,
    parse_pairing_id,
)

FORMAT_VERSION = 1
MAX_ENTRY_BYTES = 64 * 1024


def encode(journal: Journal) -> bytes:
    """Return `journal` as one line of JSON, preceded by the CRC-32 of the rest in hexadecimal.

    Raises:
        JournalError: If it is too large to be read back.
    """
    body = json.dumps(_to_fields(journal), sort_keys=True).encode()
    raw = b"%08x %s\n" % (zlib.crc32(body), body)
    if len(raw) > MAX_ENTRY_BYTES:
        raise JournalError(f"entry of {len(raw)} bytes, limit {MAX_ENTRY_BYTES}")
    return raw


def decode(raw: bytes) -> Journal:
    """Return the journal that `encode` made `raw` of.

    Raises:
        JournalError: If it is torn, damaged, of another format, or makes no sense.
    """
    checksum, _, body = raw.rstrip(b"\n").partition(b" ")
    if len(raw) > MAX_ENTRY_BYTES or checksum != b"%08x" % zlib.crc32(body):
        raise JournalError(f"entry of {len(raw)} bytes is torn or damaged")
    try:
        fields = json.loads(body)
        if fields.pop("format") != FORMAT_VERSION:
            raise JournalError(f"entry is of another format than {FORMAT_VERSION}")
        return _from_fields(fields)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        WitnessError,
        RecursionError,
    ) as error:
        raise JournalError(f"entry cannot be understood: {error}") from error


def _to_fields(journal: Journal) -> dict[str, Any]:
    terms, pending = journal.protection, journal.pending
    # Only where they are set: an older colod, which knows none of them, reads what is left.
    newer = {
        "switchover": journal.switchover,
        "held_domid": journal.held_domid,
        "replica_domid": journal.replica_domid,
        "fence_word": journal.fence_word and asdict(journal.fence_word),
        "restarting_since": journal.restarting_since,
        "restart_uuid": journal.restart_uuid,
    }
    return {name: value for name, value in newer.items() if value} | {
        "format": FORMAT_VERSION,
        "protection": {
            "guest": terms.guest,
            "primary": terms.primary,
            "secondary": terms.secondary,
            "disks": terms.disks,
            "mode": terms.mode,
            "interval_ms": terms.interval_ms,
        },
        "host": journal.host,
        "role": journal.role,
        "record": _record_text(journal.record),
        "revision": journal.revision,
        "pending": pending
        and {
            "new": _record_text(pending.new),
            "record": _record_text(pending.record),
            "revision": pending.revision,
        },
        "pairing": journal.pairing,
        "pairing_generation": journal.pairing_generation,
        "held": journal.held,
        "started": journal.started,
        "may_hand_back": journal.may_hand_back,
        "wanted": journal.wanted,
        "boot": journal.boot,
        "reason": journal.reason,
        "gate": journal.gate,
        "force_reason": journal.force_reason,
    }


def _record_text(record: OwnershipRecord | None) -> str | None:
    return None if record is None else records.encode(record).decode()


def _record(text: str | None) -> OwnershipRecord | None:
    return None if text is None else records.decode(text.encode())


def _from_fields(fields: dict[str, Any]) -> Journal:
    terms = fields.pop("protection")
    pending = fields.pop("pending")
    pairing = fields.pop("pairing")
    word = fields.pop("fence_word", None)
    plain = {name: _plain(name, fields.pop(name)) for name in _PLAIN if name in fields}
    return Journal(
        protection=Protection(
            guest=parse_guest_name(terms["guest"]),
            primary=parse_host_name(terms["primary"]),
            secondary=parse_host_name(terms["secondary"]),
            disks=Disks(terms["disks"]),
            mode=Mode(terms["mode"]),
            interval_ms=int(terms["interval_ms"]),
        ),
        host=parse_host_name(fields.pop("host")),
        role=Role(fields.pop("role")),
        record=_record(fields.pop("record")),
        pending=pending and _pending(pending),
        pairing=None if pairing is None else parse_pairing_id(pairing),
        pairing_generation=Generation(int(fields.pop("pairing_generation"))),
        wanted=Wanted(fields.pop("wanted")),
        fence_word=None if word is None else _fence_word(**word),
        **plain,
        **fields,  # what this version does not know is refused
    )


_PLAIN: Final[Mapping[str, type]] = {
    name: kind for name, kind in get_type_hints(Journal).items() if kind in (bool, int, float, str)
}
"""The fields that are in JSON as they are."""


def _plain(name: str, value: object) -> Any:
    """Return a value that JSON has as it is, if it is of the right kind."""
    if type(value) is not _PLAIN[name]:
        raise TypeError(f"{name} is {value!r}")
    return value


def _fence_word(*, generation: int, reason: str, operator: str) -> FenceWord:
    """Return the word; what lacks its reason or its name was never taken for one."""
    if not (reason.strip() and operator.strip()):
        raise JournalError("a word that the other host is off has no reason or no name")
    return FenceWord(generation=Generation(int(generation)), reason=reason, operator=operator)


def _pending(fields: dict[str, Any]) -> Pending:
    return Pending(
        new=_record(fields["new"]),
        record=_record(fields["record"]),
        revision=int(fields["revision"]),
    )
