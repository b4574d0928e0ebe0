"""`colodctl failback` against a daemon's double over the real socket."""

from __future__ import annotations

import pytest

from colod.v1 import admin_pb2, types_pb2
from tests.integration.admin_double import FakeDaemon, protection, report
from tests.integration.test_cli_daemon import Run, colodctl, daemon

__all__ = ["colodctl", "daemon"]


def asked(daemon: FakeDaemon) -> list[bool]:
    """Return of each switchover that was asked for whether it was only to be foretold."""
    found = [each for each in daemon.requests if isinstance(each, admin_pb2.SwitchoverRequest)]
    return [each.dry_run for each in found]


@pytest.fixture
def owner(daemon: FakeDaemon) -> FakeDaemon:
    """A daemon whose host has taken the guest over, and has a replica again."""
    daemon.reports = [report(protection("PROTECTED"))]
    daemon.plan = ["stop web at a checkpoint", "give host-b the ownership"]
    daemon.entries = [
        admin_pb2.HistoryEntry(unix_s=1_700_000_000 + at, guest="web", to_state=state)
        for at, state in enumerate(["PROTECTED", "PROMOTING", "ALONE", "SYNCING", "PROTECTED"])
    ]
    return daemon


def test_failback_says_who_owned_the_guest_and_gives_it_back(
    owner: FakeDaemon, colodctl: Run
) -> None:
    ran = colodctl("failback", "web", "--yes")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "host-b owned web until 2023-11-14T22:13:21Z",
        *owner.plan,
        "web: owned by host-b again, generation 4",
    ]
    assert asked(owner) == [False]


def test_a_dry_run_of_failback_changes_nothing(owner: FakeDaemon, colodctl: Run) -> None:
    ran = colodctl("failback", "web", "--dry-run", "--json")
    assert ran.json == {
        "schema_version": 1,
        "guest": "web",
        "dry_run": True,
        "plan": owner.plan,
        "generation": None,
        "to": "host-b",
        "owned_until_unix_s": 1_700_000_001,
    }
    assert asked(owner) == [True]


def test_failback_asks_nobody_where_nobody_is_and_does_nothing(
    owner: FakeDaemon, colodctl: Run
) -> None:
    assert colodctl("failback", "web").status == 2
    assert owner.requests == []


def test_a_host_that_has_always_owned_the_guest_cannot_fail_back(
    owner: FakeDaemon, colodctl: Run
) -> None:
    owner.entries = [admin_pb2.HistoryEntry(guest="web", to_state="PROTECTED")]
    ran = colodctl("failback", "web", "--yes")
    assert (ran.status, ran.out, asked(owner)) == (4, "", [])
    assert ran.err.splitlines() == [
        "colodctl: web: the history here does not say that host-b owned it before (state "
        "PROTECTED) (state.not_allowed)",
        "hint: to give it to host-b all the same: colodctl switchover web",
    ]


def test_failback_on_the_wrong_host_says_which_is_the_right_one(
    owner: FakeDaemon, colodctl: Run
) -> None:
    owner.reports = [report(protection("PROTECTED", role=types_pb2.ROLE_SECONDARY))]
    ran = colodctl("failback", "web", "--yes")
    assert (ran.status, asked(owner)) == (4, [])
    assert "hint: run it on host-b: colodctl failback web\n" in ran.err


def test_failback_of_a_guest_that_is_not_protected(owner: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("failback", "db", "--yes").status == 6
