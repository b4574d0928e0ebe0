"""The ownership record that the witness keeps for each protection, and its legal changes.

Exactly one host can win a change, because every change is a compare-and-swap on the revision that
its writer has read. The functions below make the only changes there are; `check_transition` is the
second lock, asked by every witness before it writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from colod.errors import IllegalTransition, WitnessError
from colod.model import Epoch, Generation, HostName, PairingId, parse_host_name, parse_pairing_id

FORMAT_VERSION = 1
MAX_RECORD_BYTES = 16384
MAX_REASON_CHARS = 1000
MAX_ATTEMPT_CHARS = 64
NO_GENERATION = Generation(0)
_MAX_COUNT = 2**63 - 1
BELIEVED_GENERATIONS: Final = range(2**62)
"""Of a record from outside: from any of them there is a way on that can be written."""


class RecordState(StrEnum):
    """Whether the owner goes on alone or has a promotable peer."""

    ALONE = "alone"
    PAIRED = "paired"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipRecord:
    """Who owns a guest.

    Attributes:
        owner: The only host whose copy may speak.
        peer: The other host of the protection.
        state: PAIRED when `peer` may take over with `pairing`, else ALONE.
        generation: Fencing token; grows by 1 with each change of owner or of pairing.
        pairing: The replication run that `peer` may take over with; None when ALONE.
        promotable_from: First epoch of that pairing from which promotion is allowed, else 0.
        attempt: Id of the write that made this record, to recognise it after a time-out.
        activated: Whether the owner's copy was seen running under this generation.
        forced: The operator's recorded reason, when a person overrode the rules, else "".
        given: Whether the former owner wrote this itself, its own copy stopped or gone: nobody has
            to be fenced then.
    """

    owner: HostName
    peer: HostName
    state: RecordState
    generation: Generation
    attempt: str
    pairing: PairingId | None = None
    promotable_from: Epoch = Epoch(0)
    activated: bool = True
    forced: str = ""
    given: bool = False


def create(
    owner: HostName, peer: HostName, *, attempt: str, after: Generation = NO_GENERATION
) -> OwnershipRecord:
    """Return the first record of a protection: `owner` alone, its guest already running.

    Args:
        owner: The host whose guest is to be protected.
        peer: The host that is to hold the replica.
        attempt: Id of this write.
        after: Generation of the guest's last, deleted record (`Stored.last_generation`), else 0.
            A fencing token that began anew would let a host of the guest's former protection
            take its old token for the newer one.
    """
    return OwnershipRecord(
        owner=owner,
        peer=peer,
        state=RecordState.ALONE,
        generation=Generation(after + 1),
        attempt=attempt,
    )


def pair(
    record: OwnershipRecord, pairing: PairingId, promotable_from: Epoch, *, attempt: str
) -> OwnershipRecord:
    """Return `record` with the peer promotable: written by the owner after that epoch's ack."""
    return replace(
        record,
        state=RecordState.PAIRED,
        generation=_next(record),
        pairing=pairing,
        promotable_from=promotable_from,
        attempt=attempt,
        forced="",
        given=False,
    )


def go_alone(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return the owner's own way out of PAIRED: it goes on, the peer's replica is void."""
    return _alone(record, record.owner, record.peer, attempt=attempt, activated=record.activated)


def take_over(record: OwnershipRecord, pairing: PairingId, *, attempt: str) -> OwnershipRecord:
    """Return the peer's way out of PAIRED: it owns the guest, which does not run there yet.

    Args:
        record: The record as the witness holds it.
        pairing: The pairing that the peer really replicates.
        attempt: Id of this write.

    Raises:
        IllegalTransition: If the record grants the takeover to another pairing: this replica is
            not the one that the owner's released output depends on.
    """
    if record.pairing != pairing:
        raise IllegalTransition(f"replica of pairing {pairing} may not take over {record}")
    return _alone(record, record.peer, record.owner, attempt=attempt, activated=False)


def hand_over(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return the owner's gift to the peer after the final epoch of a switchover."""
    return _given(record, attempt=attempt)


def hand_back(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return the gift of an owner that never activated its copy back to the other host."""
    return _given(record, attempt=attempt)


def activate(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return `record` with the owner's copy seen running; the loser may now destroy its own."""
    return replace(record, activated=True, attempt=attempt)


def force(
    record: OwnershipRecord,
    owner: HostName,
    *,
    attempt: str,
    reason: str,
    above: Generation = NO_GENERATION,
) -> OwnershipRecord:
    """Return an operator's decision that `owner` owns the guest, with the reason it was given.

    Args:
        record: The record as the witness holds it, or, where it lost it, as the journal knows it.
        owner: One of the record's two hosts.
        attempt: Id of this write.
        reason: What the operator said, 1 to `MAX_REASON_CHARS` characters.
        above: The highest generation that this host's journal knows: the new one exceeds it even
            if the witness was restored to an older state.

    Raises:
        ValueError: If the reason is empty or too long, or `owner` is neither host.
    """
    if not 0 < len(reason.strip()) <= len(reason) <= MAX_REASON_CHARS:
        raise ValueError(f"reason of {len(reason)} characters: want 1 to {MAX_REASON_CHARS}")
    if owner not in (record.owner, record.peer):
        raise ValueError(f"{owner} is neither {record.owner} nor {record.peer}")
    peer = record.peer if owner == record.owner else record.owner
    forced = _alone(record, owner, peer, attempt=attempt, activated=False)
    return replace(forced, forced=reason, generation=Generation(max(record.generation, above) + 1))


def _next(record: OwnershipRecord) -> Generation:
    return Generation(record.generation + 1)


def _given(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    alone = _alone(record, record.peer, record.owner, attempt=attempt, activated=False)
    return replace(alone, given=True)


def _alone(
    record: OwnershipRecord, owner: HostName, peer: HostName, *, attempt: str, activated: bool
) -> OwnershipRecord:
    return OwnershipRecord(
        owner=owner,
        peer=peer,
        state=RecordState.ALONE,
        generation=_next(record),
        attempt=attempt,
        activated=activated,
    )


def check_transition(
    old: OwnershipRecord | None,
    new: OwnershipRecord | None,
    *,
    by: HostName,
    after: Generation = NO_GENERATION,
) -> None:
    """Check that `by` may replace `old` by `new`; None stands for an absent record.

    Args:
        old: The record that is to be replaced.
        new: The record to write in its place.
        by: The host that writes.
        after: Generation of the guest's deleted record, where `old` is None.

    Raises:
        IllegalTransition: If no rule allows the change. The caller is defective.
    """
    problem = None if new is None else _problem(new)
    if problem or not _is_allowed(old, new, by, after):
        raise IllegalTransition(f"{by} may not change {old} into {new} {problem or ''}".rstrip())


def _is_allowed(
    old: OwnershipRecord | None, new: OwnershipRecord | None, by: HostName, after: Generation
) -> bool:
    if new is None:
        return old is not None and old.owner == by and old.state is RecordState.ALONE
    if old is None:
        return new == create(by, new.peer, attempt=new.attempt, after=after) or (
            _is_forced(new, by) and new.generation > after
        )
    if by not in (old.owner, old.peer) or {new.owner, new.peer} != {old.owner, old.peer}:
        return False
    if _is_forced(new, by) and new.generation > old.generation:
        return True
    return new in (_by_owner(old, new) if by == old.owner else _by_peer(old, new))


def _is_forced(new: OwnershipRecord, by: HostName) -> bool:
    """Tell whether `new` can stand for an operator's word, given on the host it names."""
    shape = OwnershipRecord(
        owner=by,
        peer=new.peer,
        state=RecordState.ALONE,
        generation=new.generation,
        attempt=new.attempt,
        activated=False,
        forced=new.forced,
    )
    return bool(new.forced) and new == shape


def _by_peer(old: OwnershipRecord, new: OwnershipRecord) -> tuple[OwnershipRecord, ...]:
    """Return what the peer may put in place of `old`, made with `new`'s free fields."""
    return () if old.pairing is None else (take_over(old, old.pairing, attempt=new.attempt),)


def _by_owner(old: OwnershipRecord, new: OwnershipRecord) -> tuple[OwnershipRecord, ...]:
    """Return what the owner may put in place of `old`, made with `new`'s free fields."""
    a = new.attempt
    if old.state is RecordState.PAIRED:
        return (go_alone(old, attempt=a), hand_over(old, attempt=a))
    if not old.activated:
        return (activate(old, attempt=a), hand_back(old, attempt=a))
    if new.pairing is None:
        return ()
    return (pair(old, new.pairing, new.promotable_from, attempt=a),)


def encode(record: OwnershipRecord) -> bytes:
    """Return `record` as versioned JSON, the form in which every witness stores it."""
    fields = {"format": FORMAT_VERSION} | {
        name: getattr(record, name) for name in OwnershipRecord.__dataclass_fields__
    }
    if not record.given:  # as it was before there was such a field
        del fields["given"]
    return json.dumps(fields, sort_keys=True).encode()


def decode(raw: bytes) -> OwnershipRecord:
    """Return the record that `encode` made `raw` of.

    Raises:
        WitnessError: If it is too long, not such JSON, of another format, or out of range.
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise WitnessError(f"ownership record of {len(raw)} bytes, limit {MAX_RECORD_BYTES}")
    try:
        fields = json.loads(raw)
        if not isinstance(fields, dict):
            raise TypeError("not an object")
        if fields.pop("format", None) != FORMAT_VERSION:
            raise ValueError(f"format is not {FORMAT_VERSION}")
        record = _from_fields(fields)
        if record.generation not in BELIEVED_GENERATIONS:
            raise ValueError(f"generation {record.generation}: no host has counted so far")
        if encode(record) != raw:  # repeated fields, other encodings: not what colod wrote
            raise ValueError("not in the form in which colod writes it")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WitnessError(f"ownership record cannot be read: {error}") from error
    return record


def _from_fields(fields: dict[str, object]) -> OwnershipRecord:
    kinds: dict[str, Callable[[object], object]] = {
        "owner": lambda value: parse_host_name(_text(value)),
        "peer": lambda value: parse_host_name(_text(value)),
        "state": lambda value: RecordState(_text(value)),
        "generation": _count,
        "attempt": _text,
        "pairing": lambda value: None if value is None else parse_pairing_id(_text(value)),
        "promotable_from": _count,
        "activated": _truth,
        "forced": _text,
        "given": _truth,
    }
    fields = {"given": False} | fields
    if fields.keys() != kinds.keys():
        raise ValueError(f"fields {sorted(fields.keys() ^ kinds.keys())} missing or unknown")
    record = OwnershipRecord(**{name: kinds[name](value) for name, value in fields.items()})  # type: ignore[arg-type]
    if problem := _problem(record):
        raise ValueError(problem)
    return record


def _problem(record: OwnershipRecord) -> str:
    """Return why no witness may hold `record`, or "": what is written must be readable again."""
    is_paired = record.state is RecordState.PAIRED
    checks = {
        "owner is its own peer": record.owner == record.peer,
        "generation out of range": not 1 <= record.generation <= _MAX_COUNT,
        "attempt id empty or too long": not 1 <= len(record.attempt) <= MAX_ATTEMPT_CHARS,
        "a pairing belongs to PAIRED and to nothing else": is_paired
        != (record.pairing is not None),
        "first promotable epoch out of range": not is_paired
        <= record.promotable_from
        <= _MAX_COUNT,
        "a promotable epoch belongs to PAIRED": not is_paired and record.promotable_from > 0,
        "PAIRED with an owner that is not activated": is_paired and not record.activated,
        "PAIRED by force": is_paired and bool(record.forced),
        "PAIRED as a gift": is_paired and record.given,
        "recorded reason too long": len(record.forced) > MAX_REASON_CHARS,
    }
    return next((problem for problem, is_so in checks.items() if is_so), "")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    value.encode()  # JSON can name what UTF-8 cannot: a ValueError
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value
