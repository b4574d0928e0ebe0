"""What was paused and the journal could not take."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.daemon.holds import Holds
from colod.model import GuestName

GUEST = GuestName("g1")


def test_the_next_daemon_knows_what_was_paused(tmp_path: Path) -> None:
    Holds(tmp_path / "held").add(GUEST, 7)
    holds = Holds(tmp_path / "held")
    assert (holds.domid(GUEST), holds.domid(GuestName("g2"))) == (7, 0)
    holds.add(GUEST, 8)
    assert holds.domid(GUEST) == 8
    holds.forget(GUEST)
    holds.forget(GUEST)
    assert holds.domid(GUEST) == 0


@pytest.mark.parametrize("content", [b"", b"seven", b"\xff\xfe", b"7" * 5000])
def test_a_torn_note_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / GUEST).write_bytes(content)
    assert Holds(tmp_path).domid(GUEST) == 0


def test_a_note_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("no directory")
    with pytest.raises(OSError, match="exists"):
        Holds(tmp_path / "held").add(GUEST, 7)
    assert Holds(tmp_path / "held").domid(GUEST) == 0
