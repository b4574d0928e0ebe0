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

from colod.errors import IllegalTransition, WitnessError
from colod.model import Epoch, Generation, HostName, PairingId

FORMAT_VERSION = 1
MAX_RECORD_BYTES = 4096


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


def create(owner: HostName, peer: HostName, *, attempt: str) -> OwnershipRecord:
    """Return the first record of a protection: `owner` alone, its guest already running."""
    return OwnershipRecord(
        owner=owner, peer=peer, state=RecordState.ALONE, generation=Generation(1), attempt=attempt
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
    )


def go_alone(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return the owner's own way out of PAIRED: it goes on, the peer's replica is void."""
    return _alone(record, record.owner, record.peer, attempt=attempt, activated=record.activated)


def take_over(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return the peer's way out of PAIRED: it owns the guest, which does not run there yet."""
    return _alone(record, record.peer, record.owner, attempt=attempt, activated=False)


def hand_over(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return the owner's gift to the peer after the final epoch of a switchover."""
    return _alone(record, record.peer, record.owner, attempt=attempt, activated=False)


def hand_back(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return the gift of an owner that never activated its copy back to the other host."""
    return _alone(record, record.peer, record.owner, attempt=attempt, activated=False)


def activate(record: OwnershipRecord, *, attempt: str) -> OwnershipRecord:
    """Return `record` with the owner's copy seen running; the loser may now destroy its own."""
    return replace(record, activated=True, attempt=attempt)


def force(
    record: OwnershipRecord, owner: HostName, *, attempt: str, reason: str
) -> OwnershipRecord:
    """Return an operator's decision that `owner` owns the guest, with the reason it was given."""
    peer = record.peer if owner == record.owner else record.owner
    forced = _alone(record, owner, peer, attempt=attempt, activated=False)
    return replace(forced, forced=reason)


def _next(record: OwnershipRecord) -> Generation:
    return Generation(record.generation + 1)


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
    old: OwnershipRecord | None, new: OwnershipRecord | None, *, by: HostName
) -> None:
    """Check that `by` may replace `old` by `new`; None stands for an absent record.

    Raises:
        IllegalTransition: If no rule allows the change. The caller is defective.
    """
    if old is None and new is not None:
        allowed = new == create(by, new.peer, attempt=new.attempt)
    elif old is not None and new is None:
        allowed = old.owner == by and old.state is RecordState.ALONE
    elif old is not None and new is not None:
        allowed = new in _successors(old, new, by)
    else:
        allowed = False
    if not allowed:
        raise IllegalTransition(f"{by} may not change {old} into {new}")


def _successors(
    old: OwnershipRecord, new: OwnershipRecord, by: HostName
) -> tuple[OwnershipRecord, ...]:
    """Return every record that `by` may put in place of `old`, made with `new`'s free fields."""
    a = new.attempt
    if by not in (old.owner, old.peer):
        return ()
    if new.forced:
        return (force(old, by, attempt=a, reason=new.forced),)
    if by == old.peer:
        return (take_over(old, attempt=a),) if old.state is RecordState.PAIRED else ()
    if old.state is RecordState.PAIRED:
        return (go_alone(old, attempt=a), hand_over(old, attempt=a))
    if not old.activated:
        return (activate(old, attempt=a), hand_back(old, attempt=a))
    if new.pairing is None or new.promotable_from < 1:
        return ()
    return (pair(old, new.pairing, new.promotable_from, attempt=a),)


def encode(record: OwnershipRecord) -> bytes:
    """Return `record` as versioned JSON, the form in which every witness stores it."""
    fields = {"format": FORMAT_VERSION} | {
        name: getattr(record, name) for name in OwnershipRecord.__dataclass_fields__
    }
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
        return _from_fields(fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WitnessError(f"ownership record cannot be read: {error}") from error


def _from_fields(fields: dict[str, object]) -> OwnershipRecord:
    kinds: dict[str, Callable[[object], object]] = {
        "owner": _text,
        "peer": _text,
        "state": lambda value: RecordState(_text(value)),
        "generation": _count,
        "attempt": _text,
        "pairing": lambda value: None if value is None else _text(value),
        "promotable_from": _count,
        "activated": _truth,
        "forced": _text,
    }
    if fields.keys() != kinds.keys():
        raise ValueError(f"fields {sorted(fields.keys() ^ kinds.keys())} missing or unknown")
    record = OwnershipRecord(**{name: kinds[name](value) for name, value in fields.items()})  # type: ignore[arg-type]
    if record.generation < 1 or record.owner == record.peer:
        raise ValueError("generation below 1, or owner is its own peer")
    if (record.state is RecordState.PAIRED) != (record.pairing is not None):
        raise ValueError("a pairing belongs to PAIRED and to nothing else")
    return record


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value
