"""The pairing that targets of sessions belong to."""

from __future__ import annotations

from typing import Any

from colod.session.deltas import DeltaSpec
from colod.session.spec import SessionSpec

_FIELDS: dict[str, Any] = {
    "role": "receive",
    "guest": "g1",
    "pairing": "ab" * 16,
    "generation": 7,
    "host": "beta",
    "peer": "alpha",
    "secret": b"s" * 32,
    "transport_kind": "tcp",
    "deltas": DeltaSpec(codec="zstd-1", store_bytes=1 << 20),
}


def spec(**changes: Any) -> SessionSpec:
    """Return the receiver's."""
    return SessionSpec(**(_FIELDS | changes))


def sender(**changes: Any) -> SessionSpec:
    """Return the sender's."""
    return spec(**({"role": "send", "host": "alpha", "peer": "beta"} | changes))
