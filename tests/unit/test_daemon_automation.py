"""A pause of automation outlasts the daemon, and what cannot be read counts as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.daemon import automation as module
from colod.daemon.automation import Automation
from colod.errors import JournalError


async def test_a_pause_outlasts_the_daemon_until_it_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "paused.json"
    first = Automation(path)
    assert not first.is_paused
    await first.begin_pause("ann", "new switch")
    later = Automation(path)
    assert later.pause is not None
    assert (later.pause.operator, later.pause.reason) == ("ann", "new switch")
    assert later.pause.unix_s > 0
    await later.end_pause()
    await later.end_pause()
    assert not later.is_paused
    assert Automation(path).pause is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"format": 2}', b"[" * 100_000, b'{"operator": 1}'],
)
def test_what_cannot_be_read_counts_as_a_pause(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "paused.json"
    path.write_bytes(content)
    pause = Automation(path).pause
    assert pause is not None
    assert "cannot be read" in pause.reason


async def test_a_pause_that_cannot_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    automation = Automation(tmp_path / "paused.json")
    with monkeypatch.context() as patch:
        patch.setattr(module, "replace_file", full)
        with pytest.raises(JournalError, match="No space left"):
            await automation.begin_pause("ann", "new switch")
    assert not automation.is_paused
    await automation.begin_pause("ann", "new switch")
    with monkeypatch.context() as patch:
        patch.setattr(module, "replace_file", full)
        with pytest.raises(JournalError):
            await automation.begin_pause("bob", "another one")
    assert automation.pause is not None
    assert automation.pause.operator == "ann"
