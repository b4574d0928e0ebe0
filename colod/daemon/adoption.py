"""Sessions that a starting daemon finds: its journal's own, what dead ones left, and strangers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog

from colod.daemon.sessions import SessionHandle, remove_directory, session_name
from colod.failover.view import Journal
from colod.model import Role
from colod.observe.logs import Event

_log = structlog.get_logger()


def strangers(sessions: Path, journals: Sequence[Journal]) -> Sequence[Path]:
    """Return directories of sessions that no entry of the journal knows."""
    known = {
        session_name(each.protection.guest, each.role, each.pairing)
        for each in journals
        if each.pairing is not None
    }
    return [path for path in sorted(sessions.iterdir()) if path.name not in known]


def clear_sessions(sessions: Path, journals: Sequence[Journal]) -> None:
    """Remove what dead sessions left; report those that live and nobody knows.

    These are left alone: whatever they hold, a guest may hang on it, and only an operator can say.
    """
    for path in strangers(sessions, journals):
        role = Role.PRIMARY if f"-{Role.PRIMARY}-" in path.name else Role.SECONDARY
        stranger = SessionHandle(path, role, lambda: None)
        if stranger.process is None and stranger.toolstack is None:
            remove_directory(path)
            continue
        _log.warning(
            Event.SESSION_UNKNOWN,
            directory=str(path),
            pid=stranger.process.pid if stranger.process else None,
            xl_pid=stranger.toolstack.pid if stranger.toolstack else None,
            advice="the journal knows nothing of it; see docs/failure-modes.md",
        )
