"""Read the configuration again while the daemon runs (SIGHUP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from colod.config import Config

CHANGEABLE: Final = frozenset({"detection", "policy", "log"})
"""Tables that are used anew each time; every other one shapes ports that exist already."""


def differences(old: Config, new: Config) -> Sequence[str]:
    """Return the paths (`peer.address`) whose values differ, in the order of the tables."""
    return list(_paths(old.model_dump(), new.model_dump()))


def needs_restart(paths: Sequence[str]) -> Sequence[str]:
    """Return those of `paths` that only a restart of the daemon brings into force."""
    return [path for path in paths if path.partition(".")[0] not in CHANGEABLE]


def merged(old: Config, new: Config) -> Config:
    """Return `old` with the changeable tables of `new`."""
    return old.model_copy(update={name: getattr(new, name) for name in sorted(CHANGEABLE)})


def _paths(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _paths(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}")
    return found
