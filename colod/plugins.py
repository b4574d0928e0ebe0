"""Find the kinds of a plug-in family: transports, witnesses, fencers.

A kind is an entry point, so a package of its own can add one without a change here.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from colod.errors import ConfigError


def load(group: str, kind: str) -> type[Any]:
    """Return the class that stands for `kind` in `group`.

    Args:
        group: The entry-point group, such as `colod.witnesses`.
        kind: The name that the configuration gives, such as `etcd`.

    Raises:
        ConfigError: If no installed package has that kind, if two packages fight over it, or if
            its module cannot be imported or lacks the class.
    """
    found = metadata.entry_points(group=group)
    matching = found.select(name=kind)
    targets = {point.value for point in matching}
    if not targets:
        raise ConfigError(
            [f"{group}: no kind {kind!r}; known are {', '.join(kinds(group)) or '-'}"]
        )
    if len(targets) > 1:
        raise ConfigError([f"{group}: kind {kind!r} is claimed by {', '.join(sorted(targets))}"])
    return _import(group, next(iter(matching)))


def kinds(group: str) -> tuple[str, ...]:
    """Return the names of the kinds that are installed in `group`, sorted."""
    return tuple(sorted({point.name for point in metadata.entry_points(group=group)}))


def _import(group: str, point: metadata.EntryPoint) -> type[Any]:
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        problem = f"{group}: kind {point.name!r} ({point.value}) cannot be loaded: {error}"
        raise ConfigError([problem]) from error
    if not isinstance(loaded, type):
        raise ConfigError([f"{group}: kind {point.name!r} ({point.value}) is not a class"])
    return loaded
