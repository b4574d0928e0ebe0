"""The group whose members may use the operators' socket."""

from __future__ import annotations

import grp
from typing import Final

from colod.errors import ConfigError

GROUP: Final = "admin.group"
"""The key in the configuration that names it."""


def group_id(group: str) -> int:
    """Return the number of a group.

    Raises:
        ConfigError: If this host has none of that name.
    """
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ConfigError([f"{GROUP}: this host has no group {group!r}"]) from error
