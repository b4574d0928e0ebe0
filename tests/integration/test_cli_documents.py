"""Each command with `--json` prints its document, and as text what a person wants to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import colod
from colod.cli.json_reference import DOCUMENTS
from colod.v1 import admin_pb2
from tests.integration.admin_double import FakeDaemon, replicating, report
from tests.integration.test_cli_colo import GUEST, SIMXL
from tests.integration.test_cli_daemon import Run, colodctl, daemon
from tests.unit.stream_samples import save_image
from tests.unit.test_cli_local import CONFIG

__all__ = ["colodctl", "daemon"]

TOOLSTACK = """
[toolstack]
xl = ["{xl}"]
guest_configs = "{root}"
"""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "status": (),
    "protect": ("web", "--to", "host-b", "--disks", "none"),
    "unprotect": ("web",),
    "suspend": ("web",),
    "resume": ("web",),
    "checkpoint now": ("web",),
    "lag": (),
    "top": ("--count", "1"),
    "failover": ("web", "--yes"),
    "switchover": ("web", "--yes"),
    "failback": ("web", "--yes"),
    "fence-confirm": ("web", "--reason", "it is on my desk"),
    "pause": ("--reason", "new switch"),
    "unpause": (),
    "drain": (),
    "drill isolated": ("web", "--yes"),
    "drill secondary": ("web", "--yes"),
    "drill live": ("web", "--yes"),
    "drill report": (),
    "checkpoint list": (),
    "checkpoint export": ("web",),
    "quarantine list": (),
    "quarantine discard": ("web--quarantine-3", "--yes"),
    "quarantine keep": ("web--quarantine-3", "--reason", "evidence"),
    "history": (),
    "events": (),
    "doctor": (),
    "colo config": ("web", "--file", "{root}/web.cfg", "--primary-address", "192.0.2.1"),
    "config check": (),
    "config show": (),
    "pki init": ("--directory", "{root}/new"),
    "pki issue": ("host-b", "--directory", "{root}/pki"),
    "pki issue-operator": ("ann", "--role", "viewer", "--directory", "{root}/pki"),
    "stream inspect": ("{root}/image",),
    "version": (),
}

TEXTS: Mapping[str, list[str]] = {
    "failover": ["take web over", "web: owned by this host, generation 4"],
    "switchover": ["take web over", "web: owned by the other host, generation 4"],
    "fence-confirm": ["web: confirmed to fencing"],
    "unprotect": ["web: not protected any more"],
    "lag": [
        "GUEST  LAG     EPOCHS  BYTES     PAUSE  COPY  ACK    HOLD     WIRE",
        "web    250 ms  1       12.0 KiB  4 ms   2 ms  20 ms  unknown  0 B",
    ],
    "events": ["2023-11-14T22:13:20Z  web on host-a: PROMOTING (generation 4)"],
    "history": ["2023-11-14T22:13:20Z  web on host-a: PROMOTING (generation 4)"],
    "doctor": ["ok       xl: answers"],
    "version": [
        f"colodctl {colod.__version__}",
        "colod    9.9 on host-a (protocol 1 to 2, simulated Xen)",
    ],
}

DOCUMENTED: Mapping[str, dict[str, Any]] = {
    "switchover": {"guest": "web", "dry_run": False, "plan": ["take web over"], "generation": 4},
    "fence-confirm": {"guest": "web", "given_to": ["fencing"]},
    "pause": {"paused": True, "here_only": False, "peer_error": None},
    "unpause": {"paused": False, "here_only": False, "peer_error": None},
    "drain": {"ended": [], "given_away": []},
    "doctor": {"findings": [{"severity": "ok", "subject": "xl", "text": "answers", "advice": ""}]},
    "drill report": {"drills": []},
    "lag": {
        "host": "host-a",
        "simulated": False,
        "guests": [
            {
                "guest": "web",
                "state": "REPLICATING",
                "lag_s": 0.25,
                "lag_epochs": 1,
                "lag_bytes": 12_288,
                "pause_s": 0.004,
                "copy_s": 0.0015,
                "ack_wait_s": 0.02,
                "hold_s": None,
                "wire_bytes": 0,
            }
        ],
    },
    "version": {
        "colodctl": colod.__version__,
        "daemon": {
            "software": "9.9",
            "host": "host-a",
            "version_min": 1,
            "version_max": 2,
            "simulated": True,
        },
    },
}


@pytest.fixture
def run(daemon: FakeDaemon, colodctl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command by its name, with a daemon and files that let it succeed."""
    daemon.reports = [report(replicating())]
    daemon.plan = ["take web over"]
    daemon.entries = [
        admin_pb2.HistoryEntry(
            unix_s=1_700_000_000, host="host-a", guest="web", to_state="PROMOTING", generation=4
        )
    ]
    daemon.findings = [admin_pb2.Finding(severity="ok", subject="xl", text="answers")]
    daemon.exports = [admin_pb2.ExportCheckpointReply(path="/c/web", epoch=9, is_done=True)]
    record = admin_pb2.DrillRecord(id="d1", guest="web", verdict="passed", check="true")
    daemon.steps = [admin_pb2.DrillReply(id="d1", step="done", record=record)]
    daemon.copies = [admin_pb2.QuarantinedCopy(domain="web--quarantine-3", guest="web")]
    for words in (("init",), ("issue", "host-a")):
        assert colodctl("pki", *words, "--directory", str(tmp_path / "pki")).status == 0
    simulated = TOOLSTACK.format(xl=SIMXL, root=tmp_path)
    (tmp_path / "colod.toml").write_text(CONFIG.format(pki=tmp_path / "pki") + simulated)
    (tmp_path / "web.cfg").write_text(GUEST)
    (tmp_path / "sim").mkdir()
    monkeypatch.setenv("COLOD_SIMXEN_DIR", str(tmp_path / "sim"))
    (tmp_path / "image").write_bytes(save_image().data)
    monkeypatch.setenv("COLOD_CONFIG", str(tmp_path / "colod.toml"))

    def call(name: str, *options: str) -> Any:
        words = [each.format(root=tmp_path) for each in COMMANDS[name]]
        return colodctl(*name.split(), *words, *options)

    return call


def test_every_document_is_printed_by_a_command_below() -> None:
    assert COMMANDS.keys() == DOCUMENTS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_json_prints_one_documented_object_and_no_more(run: Run, name: str) -> None:
    """Its keys and types are checked by what runs it."""
    ran = run(name, "--json")
    assert (ran.status, ran.err) == (0, "")
    printed = ran.json
    assert printed.pop("schema_version") == 1
    assert printed == DOCUMENTED.get(name, printed)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_text_for_people(run: Run, name: str) -> None:
    ran = run(name)
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert lines
    assert lines == TEXTS.get(name, lines)
