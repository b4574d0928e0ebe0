"""What is known of copies outlasts the daemon, and never passes on to another domain."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.daemon import quarantine_log as module
from colod.daemon.quarantine_log import QuarantineLog
from colod.errors import JournalError
from colod.model import Generation, GuestName

GUEST = GuestName("g1")
ASIDE = "g1--quarantine-3"


async def test_an_order_goes_with_the_copy_that_is_put_aside(tmp_path: Path) -> None:
    log = QuarantineLog(tmp_path / "q", "boot")
    await log.keep(GUEST, 7, operator="ann", reason="evidence")
    assert log.is_kept(GUEST, 7)
    assert await log.put_aside(GUEST, 7, Generation(3), why="beta owns it") == ASIDE
    later = QuarantineLog(tmp_path / "q", "boot")
    entry = later.entry(ASIDE, 7)
    assert entry is not None
    assert entry.aside is not None
    assert entry.keep is not None
    assert (entry.aside.guest, entry.aside.generation, entry.aside.why) == ("g1", 3, "beta owns it")
    assert (entry.keep.operator, entry.keep.reason) == ("ann", "evidence")
    await later.withdraw(ASIDE, 7)
    assert not later.is_kept(ASIDE, 7)
    assert later.entry(ASIDE, 7) is not None
    await later.forget(ASIDE)
    assert later.entry(ASIDE, 7) is None
    assert not list((tmp_path / "q").glob("g1--*"))


async def test_an_order_holds_for_one_domain_and_one_boot(tmp_path: Path) -> None:
    log = QuarantineLog(tmp_path, "boot")
    await log.keep(GUEST, 7, operator="ann", reason="evidence")
    assert not log.is_kept(GUEST, 8)
    assert not log.is_kept("g2", 7)
    assert not QuarantineLog(tmp_path, "after a reboot").is_kept(GUEST, 7)
    await log.withdraw(GUEST, 7)
    await log.withdraw(GUEST, 7)
    assert not QuarantineLog(tmp_path, "boot").is_kept(GUEST, 7)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 2}'])
def test_what_cannot_be_read_counts_as_an_order_to_keep(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{ASIDE}.json").write_bytes(content)
    log = QuarantineLog(tmp_path, "boot")
    assert log.is_kept(ASIDE, 7)
    entry = log.entry(ASIDE, 7)
    assert entry is not None
    assert entry.aside is None


async def test_what_does_not_reach_the_disk_is_not_said_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replace_file", full)
    log = QuarantineLog(tmp_path, "boot")
    with pytest.raises(JournalError, match="No space left"):
        await log.keep(GUEST, 7, operator="ann", reason="evidence")
    assert not log.is_kept(GUEST, 7)
