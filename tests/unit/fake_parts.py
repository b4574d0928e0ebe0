"""The ports of a host for tests of what stands on them: all is well, and nothing is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from colod.daemon.parts import Parts


def limits_with(**changes: Any) -> SimpleNamespace:
    """Return the limits that decisions look at."""
    usual: dict[str, Any] = {
        "beat_interval_s": 1.0,
        "suspect_after_s": 5.0,
        "carrier_grace_s": 3.0,
        "standstill_s": 5.0,
        "resync_backoff_s": 5.0,
        "resync_backoff_max_s": 5.0,
        "takeover_automatic": True,
        "resync_automatic": False,
        "keep_quarantined": False,
        "self_fence_required": False,
    }
    return SimpleNamespace(**(usual | changes))


def parts_with(**ports: Any) -> Parts:
    """Return the ports of a host; those that are not given hold nothing and stop nobody."""
    usual: dict[str, Any] = {
        "boot": "b",
        "limits": limits_with(),
        "carriers": SimpleNamespace(lost_at=lambda address: None),
        "quarantine": SimpleNamespace(is_kept=lambda domain, domid: False),
        "holds": SimpleNamespace(domid=lambda guest: 0, forget=lambda guest: None),
        "automation": SimpleNamespace(is_paused=False),
    }
    return cast("Parts", SimpleNamespace(**(usual | ports)))
