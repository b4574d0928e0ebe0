"""Read the configuration of a guest as libxl writes it in JSON. Pure.

Both `xl list -l` and `xl create --dryrun` print it, so xl has parsed what the operator wrote; what
has libxl's default value is left out.

Spec: Xen tools/libs/light/libxl_types.idl, Struct("domain_config").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Config = Mapping[str, Any]
"""A guest's configuration, or a table within it."""


def table(config: Config, key: str) -> Config:
    """Return the table at `key`, an empty one where there is none."""
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def tables(config: Config, key: str) -> Sequence[Config]:
    """Return the tables of the list at `key`, none where there is no list."""
    value = config.get(key)
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def is_true(value: object) -> bool:
    """Tell whether a truth value is set: a bool is one, a defbool is a word."""
    return value is True or value == "True"


def driver_domain(device: Config) -> str:
    """Return the driver domain behind a device; empty if that is dom0."""
    name = str(device.get("backend_domname") or device.get("backend_domid") or "")
    return "" if name in {"0", "Domain-0"} else name
