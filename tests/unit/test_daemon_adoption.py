"""What a starting daemon does with sessions that it finds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from colod.daemon.adoption import clear_sessions, strangers
from colod.daemon.sessions import session_name
from colod.model import GuestName, PairingId, Role
from colod.session.protocol import PID_FILE
from colod.toolstack import process
from tests.unit.test_daemon_journal import journal

PAIRING = PairingId("0123456789abcdef" * 2)


def directory(sessions: Path, name: str, *, alive: bool) -> Path:
    path = sessions / name
    path.mkdir()
    ticks = process.start_ticks(os.getpid()) if alive else 1
    (path / PID_FILE).write_text(f"{os.getpid()} {ticks}\n")
    return path


def test_only_directories_of_the_journals_pairings_are_known(tmp_path: Path) -> None:
    known = session_name(GuestName("g1"), Role.PRIMARY, PAIRING)
    directory(tmp_path, known, alive=True)
    other = directory(tmp_path, "g1-secondary-01234567", alive=True)
    assert strangers(tmp_path, [replace(journal(), pairing=PAIRING)]) == [other]
    assert len(strangers(tmp_path, [journal()])) == 2


def test_what_a_dead_session_left_is_removed_and_a_living_one_is_left_alone(
    tmp_path: Path,
) -> None:
    known = directory(tmp_path, session_name(GuestName("g1"), Role.PRIMARY, PAIRING), alive=False)
    alive = directory(tmp_path, "g2-secondary-01234567", alive=True)
    dead = directory(tmp_path, "g3-secondary-01234567", alive=False)
    clear_sessions(tmp_path, [replace(journal(), pairing=PAIRING)])
    assert known.exists()
    assert alive.exists()
    assert not dead.exists()
