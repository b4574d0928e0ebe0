"""`colodctl quarantine` against a daemon's double over the real socket."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from colod import errors
from colod.cli.main import cli
from colod.v1 import admin_pb2
from tests.integration.admin_double import FakeDaemon
from tests.integration.test_cli_daemon import Run, colodctl, daemon

__all__ = ["colodctl", "daemon"]

NAME = "web--quarantine-3"
COPY = admin_pb2.QuarantinedCopy(
    domain=NAME,
    guest="web",
    kind="aside",
    generation=3,
    why="host-b owns the guest since generation 3",
    since_unix_s=1e9,
    memory_bytes=512 << 20,
    domain_state="paused",
)
KEPT = admin_pb2.QuarantinedCopy(
    domain="db",
    guest="db",
    kind="lost",
    generation=9,
    why="host-b owns the guest, not yet running",
    since_unix_s=1e9,
    memory_bytes=1 << 30,
    domain_state="paused",
    keep=admin_pb2.KeepOrder(operator="ann", reason="evidence", unix_s=2e9),
    refusal="it has the guest's own name",
    advice="wait",
)


def test_a_list_says_what_each_copy_is_and_what_keeps_it(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("quarantine", "list").out == "this host keeps no copy that lost its guest\n"
    daemon.copies = [COPY, KEPT]
    assert colodctl("quarantine", "list").out.splitlines() == [
        "COPY               KIND   GENERATION  MEMORY     SINCE",
        "web--quarantine-3  aside  3           512.0 MiB  2001-09-09T01:46:40Z",
        "db                 lost   9           1.0 GiB    2001-09-09T01:46:40Z",
        "",
        "web--quarantine-3: paused; host-b owns the guest since generation 3",
        "",
        "db: paused; host-b owns the guest, not yet running",
        "kept: by ann: evidence",
        "no discard: it has the guest's own name",
        "hint: wait",
    ]
    first, second = colodctl("quarantine", "list", "--json").json["copies"]
    assert (first["generation"], first["keep"], first["refusal"]) == (3, None, None)
    assert second["keep"] == {"operator": "ann", "reason": "evidence", "unix_s": 2e9}


def test_nothing_is_discarded_unasked_or_in_a_dry_run(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.copies, daemon.plan = [COPY], ["destroy it"]
    assert colodctl("quarantine", "discard", NAME).status == 2
    assert daemon.requests == []
    ran = colodctl("quarantine", "discard", NAME, "--dry-run")
    assert ran.out == f"destroy it\n{NAME}: nothing was done\n"
    assert [each.dry_run for each in daemon.requests] == [True]
    ran = colodctl("quarantine", "discard", NAME, "--yes", "--force-reason", "ann left")
    assert ran.out == f"destroy it\n{NAME}: discarded\n"
    request = daemon.requests[-1]
    assert (request.domain, request.dry_run, request.force_reason) == (NAME, False, "ann left")


def test_a_refusal_tells_the_way_out(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.error = errors.NotAllowedNow("QUARANTINED", "may be the last copy", advice="bring it up")
    ran = colodctl("quarantine", "discard", NAME, "--yes", "--json")
    assert ran.status == 4
    assert '"advice": "bring it up"' in ran.err


def test_an_order_has_a_reason_or_is_given_up(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.copies = [KEPT]
    assert colodctl("quarantine", "keep", "db").status == 2
    assert colodctl("quarantine", "keep", "db", "--reason", "x", "--withdraw").status == 2
    assert colodctl("quarantine", "keep", "db", "--reason", " ").status == 2
    assert daemon.requests == []
    assert colodctl("quarantine", "keep", "db", "--reason", "evidence").out == "db: is kept\n"
    request = daemon.requests[-1]
    assert (request.domain, request.reason, request.withdraw) == ("db", "evidence", False)
    assert request.operator
    assert "any more" in colodctl("quarantine", "keep", "db", "--withdraw").out


def test_copies_are_completed(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(cli, click.Command)
    daemon.copies = [COPY, KEPT]
    monkeypatch.setenv("COLOD_SOCKET", str(tmp_path / "admin.sock"))
    complete = BashComplete(cli, {}, "colodctl", "_COLODCTL_COMPLETE")
    found = complete.get_completions(["quarantine", "discard"], "w")
    assert [each.value for each in found] == [NAME]
