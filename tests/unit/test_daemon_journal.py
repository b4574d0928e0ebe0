"""The journal on disk: whole or not at all, and never passed over."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from colod.daemon.journal import JournalStore
from colod.errors import JournalError
from colod.failover.view import Journal
from colod.model import Disks, GuestName, HostName, Mode, Protection, Role


def journal(guest: str = "g1") -> Journal:
    return Journal(
        protection=Protection(
            guest=GuestName(guest),
            primary=HostName("alpha"),
            secondary=HostName("beta"),
            disks=Disks.NONE,
            mode=Mode.REMUS,
            interval_ms=200,
        ),
        host=HostName("alpha"),
        role=Role.PRIMARY,
    )


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    return JournalStore(tmp_path / "protections")


async def test_what_was_written_is_read_by_the_next_daemon(
    store: JournalStore, tmp_path: Path
) -> None:
    await store.write(journal())
    await store.write(replace(journal(), held=True))
    assert JournalStore(tmp_path / "protections").read_all() == [replace(journal(), held=True)]


async def test_an_erased_entry_is_gone(store: JournalStore) -> None:
    await store.write(journal())
    await store.erase(GuestName("g1"))
    assert not store.read_all()


async def test_a_write_that_fails_leaves_the_old_entry(store: JournalStore, tmp_path: Path) -> None:
    await store.write(journal())
    (tmp_path / "protections" / "g1.new").mkdir()  # in the way, for root too
    with pytest.raises(JournalError, match=r"g1\.journal"):
        await store.write(replace(journal(), held=True))
    assert store.read_all() == [journal()]


@pytest.mark.parametrize("before", [[], [journal()]])
async def test_an_entry_whose_directory_cannot_be_synced_is_not_read_later(
    store: JournalStore, before: list[Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller was told that nothing was written, and has not acted on it."""
    for each in before:
        await store.write(each)

    def fails(_: JournalStore) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(JournalStore, "_sync_directory", fails)
    with pytest.raises(JournalError, match=r"g1\.journal: Input/output error"):
        await store.write(replace(journal(), force_reason="alpha burns"))
    assert store.read_all() == before


async def test_a_torn_write_that_was_never_finished_is_no_entry(
    store: JournalStore, tmp_path: Path
) -> None:
    await store.write(journal())
    (tmp_path / "protections" / "g2.new").write_bytes(b"half")
    assert [each.protection.guest for each in store.read_all()] == ["g1"]


@pytest.mark.parametrize("cut", range(1, 40, 3))
async def test_a_damaged_entry_stops_the_daemon_and_not_the_rescue(
    store: JournalStore, tmp_path: Path, cut: int
) -> None:
    await store.write(journal("g1"))
    await store.write(journal("g2"))
    path = tmp_path / "protections" / "g1.journal"
    path.write_bytes(path.read_bytes()[:-cut])
    if cut > 1:  # the last byte is only the newline
        with pytest.raises(JournalError, match=r"g1\.journal") as refused:
            store.read_all()
        assert refused.value.advice
        journals, wrong = store.read_readable()
        assert [each.protection.guest for each in journals] == ["g2"]
        assert len(wrong) == 1
