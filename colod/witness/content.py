"""What a witness keeps under a guest's name: the ownership record, or the mark of a deleted one.

A deleted record leaves a mark, so that its revision and generation go on growing over the deletion,
and so that "unprotected on purpose" can be told from "lost by a restored witness".
"""

from __future__ import annotations

import json

from colod.errors import WitnessError
from colod.failover.record import (
    BELIEVED_GENERATIONS,
    MAX_RECORD_BYTES,
    OwnershipRecord,
    decode,
    encode,
)
from colod.model import Generation
from colod.witness.base import Lost, Outcome, Stored, Unknown, Won

_MARK = {"deleted": True, "format": 1}

_MARKED_GENERATIONS = range(BELIEVED_GENERATIONS.stop - 1)
"""Those after which a record can have the next one, and be read back."""


def pack(stored: Stored) -> bytes:
    """Return the form in which a witness keeps `stored`, without its revision.

    Raises:
        WitnessError: If it could not be read back; nothing may be sent.
    """
    if stored.record is None:
        if stored.last_generation not in _MARKED_GENERATIONS:
            raise WitnessError(f"no record can come after generation {stored.last_generation}")
        return _pack_mark(stored.last_generation)
    raw = encode(stored.record)
    decode(raw)
    return raw


def unpack(raw: bytes, revision: int) -> Stored:
    """Return what `pack` made `raw` of.

    Raises:
        WitnessError: If it is neither a record nor the mark of a deleted one.
    """
    if b'"deleted"' not in raw[: len('{"deleted"')]:
        return Stored(decode(raw), revision)
    try:
        fields = json.loads(raw[:MAX_RECORD_BYTES])
        generation = fields["last_generation"]
        if type(generation) is not int or _pack_mark(Generation(generation)) != raw:
            raise ValueError("not in the form in which colod writes it")
        if generation not in _MARKED_GENERATIONS:
            raise ValueError(f"generation {generation} out of range")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WitnessError(f"mark of a deleted record cannot be read: {error}") from error
    return Stored(None, revision, Generation(generation))


def after_write(expected: Stored, new: OwnershipRecord | None, revision: int) -> Stored:
    """Return what the witness holds once `new` took the place of `expected` at `revision`."""
    if new is None:
        return Stored(None, revision, last_generation(expected))
    return Stored(new, revision)


def outcome_of_mismatch(expected: Stored, present: Stored, new: OwnershipRecord | None) -> Outcome:
    """Return the outcome of a write of `new` over `expected` that found `present` instead.

    Revisions decide, as long as they grow. A witness that was restored, or repaired by hand
    (docs/witness.md, 'An older witness'), may count from less; then contents decide as far as they
    can: this very write, by its attempt id, or a generation that came after what it was to replace.
    """
    is_newer = present.revision > expected.revision
    if present.record == new and (is_newer or new is not None):
        return Won(present)  # our own earlier copy of this write landed, or it is deleted already
    if is_newer or last_generation(present) > last_generation(expected):
        return Lost(present)
    return Unknown(
        f"the witness went back: it holds revision {present.revision}, "
        f"{expected.revision} or another content was read before "
        "(docs/witness.md, 'An older witness')"
    )


def last_generation(stored: Stored) -> Generation:
    """Return the highest generation that `stored` shows."""
    return stored.last_generation if stored.record is None else stored.record.generation


def _pack_mark(generation: Generation) -> bytes:
    return json.dumps(_MARK | {"last_generation": generation}, sort_keys=True).encode()
