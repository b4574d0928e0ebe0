"""The audit log: one line for each begin and end, in order, bounded, and nobody waits for it."""

from __future__ import annotations

import json
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from colod.daemon import audit
from colod.daemon.audit import AuditLog
from colod.errors import NotAllowedNow, NotPermitted
from colod.rpc.admin_guard import BEGUN, DENIED, DONE, FAILED, Act

ACT = Act(
    number=7,
    name="ann",
    role="operator",
    address="ipv4:192.0.2.9:4711",
    call="Suspend",
    request={"guest": "web"},
)


def entries(state: Path, name: str = "audit.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / name).read_text().splitlines()]


def test_it_says_who_what_and_what_came_of_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.note(ACT, BEGUN)
    log.note(ACT, FAILED, NotAllowedNow("SYNCING", "web is not paired yet"))
    log.note(ACT, DONE)
    log.close()
    begun, failed, done = entries(tmp_path)
    assert abs(begun.pop("unix_s") - time.time()) < 60
    assert begun.pop("pid") > 0
    assert begun == {
        "number": 7,
        "name": "ann",
        "role": "operator",
        "address": "ipv4:192.0.2.9:4711",
        "call": "Suspend",
        "request": {"guest": "web"},
        "outcome": "begun",
        "code": "",
        "text": "",
    }
    assert (failed["outcome"], failed["code"]) == ("failed", "state.not_allowed")
    assert failed["text"] == "web is not paired yet (state SYNCING)"
    assert done["outcome"] == "done"


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.note(ACT, DONE)
    log.close()
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_it_goes_on_where_it_was_and_begins_anew_when_it_is_full(tmp_path: Path) -> None:
    for _ in range(5):
        log = AuditLog(tmp_path, max_bytes=600)
        log.note(ACT, DONE)
        log.close()
    assert len(entries(tmp_path, "audit.jsonl.1")) == 3
    assert len(entries(tmp_path)) == 2


def test_the_log_has_it_too_with_the_guest(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    with structlog.testing.capture_logs() as told:
        log.note(ACT, BEGUN)
        log.note(ACT, DENIED, NotPermitted("ann is an operator"))
        log.note(ACT, DONE)
        log.close()
    assert [each["event"] for each in told] == ["admin.called", "admin.denied", "admin.finished"]
    assert all(
        (each["operator"], each["operator_role"], each["protection"]) == ("ann", "operator", "web")
        for each in told
    )


def test_what_comes_after_the_end_is_told_of(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.close()
    with structlog.testing.capture_logs() as told:
        log.note(ACT, DONE)
    assert [each["event"] for each in told] == ["admin.finished", "audit.unwritten"]


def test_a_disk_that_takes_nothing_stops_nobody_and_is_told_of(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "none")
    with structlog.testing.capture_logs() as told:
        log.note(ACT, DONE)
        log.close()
    assert told[-1]["event"] == "audit.unwritten"
    assert "No such file" in told[-1]["error"]


def test_a_disk_that_stands_still_keeps_nobody_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CLOSE_S", 0.05)
    log, still = AuditLog(tmp_path), threading.Event()
    monkeypatch.setattr(log, "_append", lambda line: still.wait())
    log.note(ACT, DONE)
    with structlog.testing.capture_logs() as told:
        log.close()
    still.set()
    assert [each["event"] for each in told] == ["audit.unwritten"]
