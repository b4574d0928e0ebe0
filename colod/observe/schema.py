"""How JSON begins that colod gives to other programs (docs/json.md, docs/http.md).

Within a version keys are added, but never removed, renamed or given another type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SCHEMA_VERSION: Final = 1


def versioned(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with the version of its schema first."""
    return {"schema_version": SCHEMA_VERSION, **content}
