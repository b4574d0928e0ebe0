"""colodctl against a daemon's double over the real socket: text, JSON, errors, exit statuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from colod import errors
from colod.cli.exits import advice_of
from colod.cli.main import run
from colod.v1 import admin_pb2, types_pb2
from tests.integration.admin_double import (
    FakeDaemon,
    protection,
    replicating,
    report,
    serving,
    syncing,
)
from tests.json_documents import check_json


@dataclass
class Ran:
    """What one command line came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    double = FakeDaemon()
    with serving(double, tmp_path / "admin.sock"):
        yield double


@pytest.fixture
def colodctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Ran:
        status = run(["--socket", str(tmp_path / "admin.sock"), *arguments])
        captured = capsys.readouterr()
        check_json(arguments, captured.out, captured.err)
        return Ran(status, captured.out, captured.err)

    return call


PROTECT = ("protect", "web", "--to", "host-b", "--disks", "none")


def test_the_table_of_status_fits_eighty_columns(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [
        report(
            replicating(),
            syncing(407, guest="db"),
            protection("ALONE", guest="mail", cause="the peer is away"),
            protection(
                "MANUAL_HOLD",
                guest="a-guest-whose-name-is-as-long-as-xen-and-colod-let-it-be-really",
                role=types_pb2.ROLE_SECONDARY,
                peer="a-host-with-a-long-name.example.org",
                cause="the witness is away, so nobody knows who owns the guest",
                advice="bring the witness back, or run: colodctl failover --force-reason",
            ),
        )
    ]
    ran = colodctl("status")
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "GUEST          ROLE       PEER            STATE                          LAG",
        "web            primary    host-b          REPLICATING (output not held)  250 ms",
        "db             primary    host-b          SYNCING 40 %                   unknown",
        "mail           primary    host-b          ALONE                          -",
        "a-guest-       secondary  a-host-with-a-  MANUAL_HOLD                    unknown",
        "whose-name-               long-name.exam",
        "is-as-long-               ple.org",
        "as-xen-and-",
        "colod-let-it-",
        "be-really",
        "",
        "a-guest-whose-name-is-as-long-as-xen-and-colod-let-it-be-really: the witness is",
        "  away, so nobody knows who owns the guest",
        "hint: bring the witness back, or run: colodctl failover --force-reason",
    ]
    assert max(map(len, ran.out.splitlines())) <= 80


def test_an_ordinary_table_is_not_folded(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(replicating())]
    assert colodctl("status").out.splitlines() == [
        "GUEST  ROLE     PEER    STATE                          LAG",
        "web    primary  host-b  REPLICATING (output not held)  250 ms",
    ]


def test_the_simulated_xen_says_so(daemon: FakeDaemon, colodctl: Run) -> None:
    simulated = report(replicating())
    simulated.simulated = True
    daemon.reports = [simulated]
    assert colodctl("status").out.splitlines()[0] == "host-a: simulated Xen"
    assert "(simulated Xen)" in colodctl("status", "web").out
    assert colodctl("status", "--json").json["simulated"] is True


def test_status_of_one_guest_shows_all_that_is_known(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(replicating(cause="in step"))]
    assert colodctl("status", "web").out.splitlines() == [
        "guest        web",
        "role         primary on host-a",
        "peer         host-b, contact up",
        "signals      session heard 250 ms ago",
        "state        REPLICATING (output not held) since 2023-11-14T22:13:20Z",
        "cause        in step",
        "owner        host-a, generation 3",
        "witness      reachable",
        "domain here  running",
        "replica      following",
        "pairing      0123456789abcdef0123456789abcdef",
        "terms        remus, every 200 ms, disks none",
        "lag          250 ms, 1 epoch, 12.0 KiB",
        "epochs       12 sealed, 11 acknowledged",
        "last epoch   133 pages, 532.0 KiB, pause 4 ms, copy 2 ms, acknowledgement 20 ms",
    ]


GATE = types_pb2.Gate(
    phase=types_pb2.GATE_PHASE_HOLDING,
    is_protected=True,
    sound_from=2,
    released_epoch=11,
    barriers=10,
    skipped={"unacknowledged": 2},
    held_packets=3,
    held_bytes=4096,
    dropped_packets=7,
    hold_s=0.25,
    uncovered=["vif1.1"],
    not_in_replica=["vif1.1"],
)


def test_status_shows_how_the_watchdog_of_the_host_stands(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    fence = admin_pb2.SelfFence(
        kind="watchdog", device="/dev/watchdog0", identity="xen_wdt", active=True, timeout_s=120
    )
    fence.margin_s = 119.5
    shown = report(replicating())
    shown.self_fence.CopyFrom(fence)
    daemon.reports = [shown]
    assert "host-a: watchdog /dev/watchdog0 armed, 120 s\n" in colodctl("status").out
    assert colodctl("status", "--json").json["self_fence"] == {
        "kind": "watchdog",
        "device": "/dev/watchdog0",
        "required": False,
        "identity": "xen_wdt",
        "active": True,
        "timeout_s": 120.0,
        "margin_s": 119.5,
        "trouble": None,
    }
    shown.self_fence.trouble = "nobody is heard"
    shown.self_fence.margin_s = 60.2
    said = colodctl("status").out
    assert "armed, 120 s, 60 s left: nobody is heard\n" in said
    shown.self_fence.active = False
    assert "is not armed: nobody is heard\n" in colodctl("status").out


def test_the_json_of_status_is_the_documented_one(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(replicating(cause="in step"))]
    assert colodctl("status", "--json").json == {
        "schema_version": 1,
        "host": "host-a",
        "simulated": False,
        "automation": {
            "paused": False,
            "operator": None,
            "reason": None,
            "since_unix_s": None,
            "peer_paused": None,
        },
        "self_fence": None,
        "protections": [
            {
                "guest": "web",
                "role": "primary",
                "peer": "host-b",
                "state": "REPLICATING",
                "output_held": False,
                "cause": "in step",
                "advice": "",
                "since_unix_s": 1_700_000_000,
                "decided_age_s": None,
                "owner": "host-a",
                "generation": 3,
                "pairing": "0123456789abcdef0123456789abcdef",
                "mode": "remus",
                "disks": "none",
                "interval_ms": 200,
                "replica": "following",
                "promotable": False,
                "guest_domain": "running",
                "witness": "reachable",
                "peer_contact": "up",
                "signals": [
                    {
                        "name": "session",
                        "silent": False,
                        "heard_age_s": 0.25,
                        "no_carrier_s": None,
                    }
                ],
                "standstill_s": 0.0,
                "standstill_cause": None,
                "lag": {"lag_s": 0.25, "lag_epochs": 1, "lag_bytes": 12_288},
                "link": None,
                "progress": {
                    "sealed_epoch": 12,
                    "acked_epoch": 11,
                    "stream_bytes": 5_000_000,
                    "unacked_bytes": 12_288,
                    "first_copy_pages": 1000,
                    "domain_pages": 1000,
                    "epoch_pages": 133,
                    "epoch_bytes": 544_768,
                    "pause_s": 0.004,
                    "copy_s": 0.0015,
                    "ack_wait_s": 0.02,
                    "last_ack_age_s": 0.125,
                    "peer_heard_age_s": 0.0625,
                    "rtt_s": None,
                    "epoch_wire_bytes": 0,
                    "epoch_pages_same": 0,
                    "epoch_pages_delta": 0,
                    "epoch_pages_raw": 0,
                    "staged_bytes": 0,
                    "staged_peak_bytes": 0,
                    "staging_bytes": 0,
                    "stalled_s": 0.0,
                    "suspended_s": None,
                    "waits_for": None,
                },
                "gate": None,
                "comparison": None,
            }
        ],
    }


def test_status_tells_of_a_guest_that_stands_still_and_by_what_the_peer_is_heard(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    signals = [
        admin_pb2.PeerSignal(name="192.0.2.2:7411", is_silent=True, no_carrier_s=9.0),
        admin_pb2.PeerSignal(name="session", heard_age_s=0.25),
    ]
    cause = "xl stands still"
    daemon.reports = [
        report(replicating(standstill_s=7.0, standstill_cause=cause, signals=signals))
    ]
    assert "stands still, for 7.0 s: xl stands still" in colodctl("status").out
    out = " ".join(colodctl("status", "web").out.split())
    assert "stands still for 7.0 s: xl stands still" in out
    heard = "192.0.2.2:7411 never heard, silent, no link for 9.0 s; session heard 250 ms ago"
    assert f"signals {heard}" in out


def test_status_tells_how_output_is_held(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(replicating(gate=GATE))]
    assert colodctl("status", "--json").json["protections"][0]["gate"] == {
        "phase": "holding",
        "protects": True,
        "sound_from_epoch": 2,
        "released_epoch": 11,
        "barriers": 10,
        "skipped": {"unacknowledged": 2},
        "held_packets": 3,
        "held_bytes": 4096,
        "dropped_packets": 7,
        "hold_s": 0.25,
        "uncovered": ["vif1.1"],
        "not_in_replica": ["vif1.1"],
        "error": None,
    }
    out = colodctl("status", "web").out
    assert "gate holding, holds 3 packets, 4.0 KiB, for 250 ms at most" in out
    assert "10 set, skipped: 2 unacknowledged" in out
    assert "7 packets dropped for want of room" in out
    assert "vif1.1" in out


def test_lag_tells_what_an_epoch_took(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(replicating(gate=GATE), syncing(1, guest="db"))]
    out = colodctl("lag").out.splitlines()
    assert out[0].split() == [
        "GUEST",
        "LAG",
        "EPOCHS",
        "BYTES",
        "PAUSE",
        "COPY",
        "ACK",
        "HOLD",
        "WIRE",
    ]
    assert " ".join(out[1].split()).startswith("web 250 ms 1 12.0 KiB 4 ms 2 ms 20 ms 250 ms")
    assert out[2].split() == ["db", *["unknown"] * 8]
    web, db = colodctl("lag", "--json").json["guests"]
    assert (web["lag_s"], web["hold_s"], web["pause_s"]) == (0.25, 0.25, 0.004)
    assert {db[name] for name in db.keys() - {"guest", "state"}} == {None}


def test_lag_is_told_of_this_hosts_own_guests_only(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(replicating(role=types_pb2.ROLE_SECONDARY))]
    assert colodctl("lag").out == "host-a is the primary of no protected guest\n"
    assert colodctl("lag", "db").status == 6
    ran = colodctl("lag", "web")
    assert ran.status == 4
    assert "hint: run it on host-b, or here: colodctl top web\n" in ran.err


def test_top_shows_each_guest_in_a_line(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [
        report(
            replicating(gate=GATE),
            replicating(guest="db", role=types_pb2.ROLE_SECONDARY),
            protection("ALONE", guest="mail"),
            syncing(407, guest="a-guest-whose-name-is-long"),
        )
    ]
    ran = colodctl("top", "--count", "1")
    assert ran.status == 0
    title, heads, *rows, mark = ran.out.splitlines()
    assert title.startswith("host-a, 20")
    assert heads.split() == [
        *("GUEST", "ROLE", "STATE", "LAG", "PAUSE", "HOLD", "WIRE/S", "HELD", "LAGS"),
    ]
    assert [row.split() for row in rows] == [
        ["web", "pri", "REPLICATING*", "250", "ms", "4", "ms", "250", "ms", "unknown", "3", "█"],
        ["db", "sec", "REPLICATING*", "250", "ms", "-", "-", "-", "-", "█"],
        ["mail", "pri", "ALONE", "-", "-", "-", "-", "-", "·"],
        ["a-guest-", "pri", "SYNCING", "40", "%", *["unknown"] * 4, "-", "·"],
        ["whose-"],
        ["name-is-"],
        ["long"],
    ]
    assert mark == "* output not held: clients may have seen what a failover takes back"
    assert max(map(len, ran.out.splitlines())) <= 80


def test_top_says_that_the_xen_is_simulated(daemon: FakeDaemon, colodctl: Run) -> None:
    simulated = report(protection("PROTECTED"))
    simulated.simulated = True
    daemon.reports = [simulated]
    assert colodctl("top", "--count", "1").out.startswith("host-a: simulated Xen, 20")
    assert colodctl("top", "--count", "1", "--json").json["simulated"] is True


def test_the_widest_table_of_top_fits_eighty_columns(daemon: FakeDaemon, colodctl: Run) -> None:
    progress = types_pb2.Progress(acked_epoch=3, lag_s=7100, pause_s=99.94, copy_s=1, ack_wait_s=1)
    gate = types_pb2.Gate(phase=types_pb2.GATE_PHASE_HOLDING, hold_s=7100, held_packets=999_999)
    wide = {"gate": gate, "guest": "w" * 63}
    daemon.reports = [
        report(protection("GUEST_SHUTDOWN", progress, **wide), protection("SUSPENDED")),
        report(protection("SYNCING", progress, **wide), protection("LOST_RACE", guest="db")),
    ]
    for _ in range(2):
        out = colodctl("top", "--count", "1").out
        assert max(map(len, out.splitlines())) <= 80
        daemon.reports.pop()


def test_top_streams_one_object_a_look(daemon: FakeDaemon, colodctl: Run) -> None:
    wire = types_pb2.Histogram(counts=[1], total=4096)
    daemon.reports = [report(replicating(gate=GATE, measures={"wire_bytes": wire}))]
    ran = colodctl("top", "--count", "2", "--interval", "0.2", "--json")
    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert first.keys() == {
        *("schema_version", "host", "simulated", "unix_s", "interval_s", "guests"),
    }
    assert (second["interval_s"], second["host"]) == (0.2, "host-a")
    (guest,) = second["guests"]
    assert guest == {
        "guest": "web",
        "state": "REPLICATING",
        "lag_s": 0.25,
        "lag_epochs": 1,
        "lag_bytes": 12_288,
        "pause_s": 0.004,
        "copy_s": 0.0015,
        "ack_wait_s": 0.02,
        "hold_s": 0.25,
        "wire_bytes": 0,
        "role": "primary",
        "wire_bytes_per_s": 0.0,
        "held_packets": 3,
        "held_bytes": 4096,
    }
    assert first["guests"][0]["wire_bytes_per_s"] is None
    assert second["unix_s"] >= first["unix_s"] + 0.1


def test_top_knows_of_a_secondary_only_how_old_its_replica_is(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.reports = [report(replicating(role=types_pb2.ROLE_SECONDARY))]
    (guest,) = colodctl("top", "--count", "1", "--json").json["guests"]
    known = {name for name, value in guest.items() if value is not None}
    assert known == {"guest", "state", "role", "lag_s", "lag_epochs", "lag_bytes"}


def test_top_of_a_guest_that_is_not_there(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("top", "--count", "1").out.endswith("protects nothing and holds no replica\n")
    assert colodctl("top", "db").status == 6


def test_what_no_gate_has_measured_is_null(daemon: FakeDaemon, colodctl: Run) -> None:
    gate = types_pb2.Gate(phase=types_pb2.GATE_PHASE_OPEN, hold_s=-1)
    daemon.reports = [report(replicating(gate=gate))]
    said = colodctl("status", "--json").json["protections"][0]["gate"]
    assert said["hold_s"] is said["sound_from_epoch"] is said["error"] is None
    assert "overflow" not in colodctl("status", "web").out


def test_what_was_not_measured_is_null_and_never_zero(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(syncing(1), protection("PAIRING", guest="db"))]
    web, db = colodctl("status", "--json").json["protections"]
    assert web["lag"] == db["lag"] == {"lag_s": None, "lag_epochs": None, "lag_bytes": None}
    assert db["progress"] is None
    assert db["pairing"] is None


def test_a_host_without_protections_says_so(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("status").out == "host-a protects nothing and holds no replica\n"


def test_a_guest_that_is_not_protected_is_not_found(daemon: FakeDaemon, colodctl: Run) -> None:
    ran = colodctl("status", "db")
    assert ran.status == 6
    assert ran.err.startswith("colodctl: db is not protected on host-a (not_found)\nhint: ")


def test_watching_prints_each_change_once(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(syncing(1)), report(syncing(2)), report(replicating())]
    ran = colodctl("status", "--watch")
    assert ran.out.count("GUEST") == 2
    assert "SYNCING 0 %" in ran.out
    assert "REPLICATING" in ran.out


def test_watching_with_json_prints_one_object_a_line(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(syncing(1)), report(replicating())]
    lines = [json.loads(line) for line in colodctl("status", "--watch", "--json").out.splitlines()]
    assert [line["protections"][0]["state"] for line in lines] == ["SYNCING", "REPLICATING"]


def test_protect_waits_for_the_replica_and_shows_the_first_copy(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.plan = ["replicate web to host-b every 200 ms"]
    daemon.reports = [
        report(protection("PAIRING", cause="asked")),
        *(report(syncing(pages)) for pages in (0, 50, 99, 300, 1000)),
        report(replicating()),
    ]
    ran = colodctl(*PROTECT)
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "replicate web to host-b every 200 ms",
        "web: REPLICATING (output not held), replica on host-b",
    ]
    assert ran.err.splitlines() == [
        "web: PAIRING (asked)",
        "web: SYNCING 0 %",
        "web: SYNCING 30 %",
        "web: SYNCING 100 %",
        "web: REPLICATING (output not held)",
    ]


def test_protect_passes_all_terms_on(daemon: FakeDaemon, colodctl: Run) -> None:
    colodctl(*PROTECT[:-1], "external", "--interval-ms", "50", "--no-wait")
    assert daemon.requests == [
        admin_pb2.ProtectRequest(guest="web", to="host-b", disks="external", interval_ms=50)
    ]


def test_protect_without_waiting_does_not_claim_a_replica(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    ran = colodctl(*PROTECT, "--no-wait")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "web: accepted, not replicated yet; see: colodctl status web\n"


def test_a_dry_run_of_protect_only_says_what_would_be_done(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.plan = ["pair with host-b"]
    ran = colodctl(*PROTECT, "--dry-run")
    assert (ran.status, ran.out) == (
        0,
        "pair with host-b\nweb: can be protected so; nothing was changed\n",
    )
    assert [request.dry_run for request in daemon.requests] == [True]


def test_protect_with_json_prints_nothing_but_the_result(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.plan = ["pair"]
    daemon.reports = [report(syncing(1)), report(replicating())]
    ran = colodctl(*PROTECT, "--json")
    assert ran.err == ""
    assert (ran.json["guest"], ran.json["plan"], ran.json["dry_run"]) == ("web", ["pair"], False)
    assert ran.json["status"]["state"] == "REPLICATING"


def test_protect_that_is_not_through_in_time_has_an_unknown_outcome(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.reports = [report(syncing(1))]
    daemon.hang_after_reports = True
    ran = colodctl(*PROTECT, "--timeout", "1")
    assert ran.status == 5
    assert "last seen SYNCING" in ran.err
    assert "the daemon goes on by itself" in ran.err


def test_protect_whose_daemon_goes_away_has_an_unknown_outcome(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.reports = [report(syncing(1))]
    assert colodctl(*PROTECT).status == 5


def test_protect_survives_a_hold_that_passes(daemon: FakeDaemon, colodctl: Run) -> None:
    held = report(protection("MANUAL_HOLD", cause="the witness is away"))
    daemon.reports = [*[held] * 9, report(syncing(1)), *[held] * 9, report(replicating())]
    assert colodctl(*PROTECT).status == 0


def test_protect_that_is_held_up_for_good_is_refused_with_the_cause(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    held = protection("MANUAL_HOLD", cause="the witness is away", advice="bring it back")
    daemon.reports = [report(held)] * 10
    ran = colodctl(*PROTECT)
    assert ran.status == 4
    assert ran.err.splitlines()[-2:] == [
        "colodctl: web: the witness is away (state MANUAL_HOLD) (state.not_allowed)",
        "hint: bring it back",
    ]


def test_protect_that_is_ended_meanwhile_is_not_found(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(syncing(1)), report()]
    assert colodctl(*PROTECT).status == 6


def test_unprotect_says_what_it_did(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("unprotect", "web").out == "web: not protected any more\n"
    assert colodctl("unprotect", "web", "--json").json == {
        "schema_version": 1,
        "guest": "web",
        "protected": False,
    }


def test_a_checkpoint_made_now_is_told_by_its_number(daemon: FakeDaemon, colodctl: Run) -> None:
    said = "web: both copies are equal as of checkpoint 7\n"
    assert colodctl("checkpoint", "now", "web").out == said
    assert daemon.requests == [admin_pb2.MakeCheckpointRequest(guest="web")]
    assert colodctl("checkpoint", "now", "web", "--json").json["checkpoints"] == 7


def test_the_mode_is_passed_on_and_colo_is_one(daemon: FakeDaemon, colodctl: Run) -> None:
    argv = ("protect", "web", "--to", "beta", "--disks", "none", "--no-wait")
    colodctl(*argv, "--mode", "colo")
    colodctl(*argv)
    asked = [each for each in daemon.requests if isinstance(each, admin_pb2.ProtectRequest)]
    assert [each.mode for each in asked] == ["colo", ""]


def test_suspend_says_how_to_go_on(daemon: FakeDaemon, colodctl: Run) -> None:
    said = "web: not replicated until: colodctl resume web\n"
    assert colodctl("suspend", "web").out == said
    assert daemon.requests == [admin_pb2.SuspendRequest(guest="web")]
    assert colodctl("suspend", "web", "--json").json == {
        "schema_version": 1,
        "guest": "web",
        "suspended": True,
    }


def test_resume_waits_for_the_replica(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.reports = [report(syncing(1)), report(replicating())]
    ran = colodctl("resume", "web")
    assert ran.status == 0
    assert ran.out == "web: REPLICATING (output not held), replica on host-b\n"
    assert daemon.requests[0] == admin_pb2.ResumeRequest(guest="web")
    status = colodctl("resume", "web", "--json").json["status"]
    assert status["state"] == "REPLICATING"


def test_resume_need_not_wait(daemon: FakeDaemon, colodctl: Run) -> None:
    ran = colodctl("resume", "web", "--no-wait")
    assert ran.out == "web: accepted, not replicated yet; see: colodctl status web\n"
    assert colodctl("resume", "web", "--no-wait", "--json").json == {
        "schema_version": 1,
        "guest": "web",
        "suspended": False,
        "status": None,
    }


def test_failover_shows_plan_and_generation(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.plan = ["take web over from host-b", "lose at most 0.2 s"]
    ran = colodctl("failover", "web", "--yes", "--force-reason", "host-b burnt down")
    assert ran.out.splitlines() == [*daemon.plan, "web: owned by this host, generation 4"]
    assert daemon.requests == [
        admin_pb2.FailoverRequest(guest="web", force_reason="host-b burnt down")
    ]


def test_failover_asks_nobody_where_nobody_is_and_does_nothing(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    ran = colodctl("failover", "web")
    assert ran.status == 2
    assert "--yes" in ran.err
    assert daemon.requests == []


@pytest.mark.parametrize("words", [("--dry-run",), ("--dry-run", "--yes")])
def test_a_dry_run_of_failover_changes_nothing(
    daemon: FakeDaemon, colodctl: Run, words: tuple[str, ...]
) -> None:
    daemon.plan = ["take over"]
    ran = colodctl("failover", "web", *words, "--json")
    assert [request.dry_run for request in daemon.requests] == [True]
    assert ran.json == {
        "schema_version": 1,
        "guest": "web",
        "dry_run": True,
        "plan": ["take over"],
        "generation": None,
    }


def test_pause_and_unpause_tell_both_hosts(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("pause", "--reason", "new switch").out == "automation is paused on both hosts\n"
    assert colodctl("unpause", "--here-only").out == "automation goes on on this host\n"
    begun, ended = daemon.requests
    assert (begun.paused, begun.reason, begun.here_only) == (True, "new switch", False)
    assert begun.operator
    assert (ended.paused, ended.here_only) == (False, True)


def test_a_pause_that_the_other_host_did_not_hear_of_is_a_failure(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.peer_error = "host-b does not answer"
    ran = colodctl("pause", "--reason", "new switch")
    assert ran.status == 1
    assert ran.out == "automation is paused on this host\n"
    assert "not told: host-b does not answer" in ran.err
    assert "--here-only" in ran.err
    ran = colodctl("unpause", "--json")
    assert ran.status == 1
    assert ran.json["peer_error"] == "host-b does not answer"
    assert ran.err == ""


def test_status_says_that_automation_is_paused_and_where(daemon: FakeDaemon, colodctl: Run) -> None:
    said = report(replicating())
    said.automation.paused = True
    said.automation.operator, said.automation.reason = "ann", "new switch"
    said.automation.since_unix_s = 1_700_000_000
    said.automation.peer_paused = False
    daemon.reports = [said]
    lines = colodctl("status").out.splitlines()
    assert lines[0] == "automation: paused by ann since 2023-11-14T22:13:20Z: new switch"
    assert lines[1] == "automation: not paused on the other host"
    assert colodctl("status", "--json").json["automation"] == {
        "paused": True,
        "operator": "ann",
        "reason": "new switch",
        "since_unix_s": 1_700_000_000,
        "peer_paused": False,
    }


def test_drain_names_what_it_ended(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("drain").out == "nothing to end\n"
    daemon.ended = ["web: alone on this host"]
    assert colodctl("drain").out == "ended: web: alone on this host\n"
    assert colodctl("drain", "--json").json == {
        "schema_version": 1,
        "ended": daemon.ended,
        "given_away": [],
    }
    assert colodctl("drain", "--switch-over").out == (
        "given to the other host: db\nended: web: alone on this host\n"
    )


def test_history_shows_each_change_with_its_cause(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.entries = [
        admin_pb2.HistoryEntry(
            unix_s=1_700_000_000,
            host="host-a",
            guest="web",
            from_state="REPLICATING",
            to_state="ARBITRATING",
            cause="neither host-b nor its session was heard for 5 s",
            generation=3,
            epoch=12,
        ),
        admin_pb2.HistoryEntry(
            unix_s=1_700_000_001, host="host-a", guest="web", to_state="ALONE", generation=4
        ),
    ]
    ran = colodctl("history", "web", "--limit", "5")
    assert ran.out.splitlines() == [
        "2023-11-14T22:13:20Z  web on host-a: REPLICATING -> ARBITRATING (generation 3,",
        "                      epoch 12)",
        "                      neither host-b nor its session was heard for 5 s",
        "2023-11-14T22:13:21Z  web on host-a: ALONE (generation 4)",
    ]
    assert daemon.requests == [admin_pb2.HistoryRequest(guest="web", limit=5)]
    entries = colodctl("history", "--json").json["entries"]
    assert entries[1] == {
        "unix_s": 1_700_000_001,
        "host": "host-a",
        "guest": "web",
        "from_state": None,
        "to_state": "ALONE",
        "cause": "",
        "generation": 4,
        "epoch": None,
    }


def test_doctor_fails_on_errors_and_not_on_warnings(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.findings = [
        admin_pb2.Finding(severity="ok", subject="witness", text="answers"),
        admin_pb2.Finding(severity="warning", subject="clock", text="off", advice="run ntp"),
    ]
    ran = colodctl("doctor")
    assert (ran.status, ran.out.splitlines()) == (
        0,
        ["ok       witness: answers", "warning  clock: off", "         hint: run ntp"],
    )
    daemon.findings.append(admin_pb2.Finding(severity="error", subject="xl", text="missing"))
    ran = colodctl("doctor", "--json")
    assert ran.status == 1
    assert ran.json["findings"][2] == {
        "severity": "error",
        "subject": "xl",
        "text": "missing",
        "advice": "",
    }


def test_version_names_both_sides(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("version").out.splitlines()[1] == (
        "colod    9.9 on host-a (protocol 1 to 2, simulated Xen)"
    )


def test_version_works_without_a_daemon(colodctl: Run) -> None:
    ran = colodctl("version", "--json")
    assert (ran.status, ran.json["daemon"]) == (0, None)
    assert "\ncolod    unknown: no daemon answers at " in colodctl("version").out


def test_what_an_error_advises_itself_comes_before_what_is_said_of_its_kind() -> None:
    assert advice_of(errors.NotFound("web is not protected", advice="look there")) == "look there"
    assert "journalctl" in advice_of(errors.ToolstackError(["xl", "list"], 1))
    assert "xl list" in advice_of(errors.DomainNotFound(["xl", "list", "web"], 1))
    refused = errors.ColodError("/etc/colod: Permission denied")
    refused.__cause__ = PermissionError()
    assert "root may" in advice_of(refused)


def test_a_history_that_is_too_long_for_one_answer_is_cut_and_that_is_said(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.entries = [
        admin_pb2.HistoryEntry(guest="web", to_state="ALONE", cause="x" * 1000, epoch=epoch)
        for epoch in range(2000)
    ]
    ran = colodctl("history", "--limit", "2000", "--json")
    # The double's server is in this process too, and may log that its long answer was not taken.
    assert ran.err.endswith("colodctl: only the newest 1000 fit into one answer\n")
    assert [entry["epoch"] or 0 for entry in ran.json["entries"]] == [*range(1000, 2000)]
    assert colodctl("history", "--limit", "900").err == ""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotAllowedNow("SYNCING", "not promotable yet", advice="wait"), 4),
        (errors.PreflightRefused(["web has a PCI device: detach it"]), 4),
        (errors.PeerRefused("host-b says no"), 4),
        (errors.OwnershipLost("newer generation"), 4),
        (errors.NotFound("web is not protected"), 6),
        (errors.DomainNotFound(["xl", "list", "web"], 1), 6),
        (errors.ToolstackError(["xl", "list"], 1, "boom"), 1),
        (errors.WitnessUnreachable("etcd is away"), 1),
        (errors.PeerUnreachable("host-b is away"), 1),
        (errors.FenceUnconfirmed("no proof"), 5),
        (errors.OutcomeUnknown("no answer"), 5),
        (errors.VersionMismatch("1 and 2"), 8),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_is_said_with_code_hint_and_exit_status_in_both_forms(
    daemon: FakeDaemon, colodctl: Run, error: errors.ColodError, status: int
) -> None:
    daemon.error = error
    ran = colodctl("unprotect", "web")
    hint = f"hint: {advice_of(error)}\n"
    assert (ran.status, ran.out) == (status, "")
    assert ran.err == f"colodctl: {error} ({error.code})\n{hint}"
    ran = colodctl("unprotect", "web", "--json")
    assert (ran.status, ran.out) == (status, "")
    assert json.loads(ran.err) == {
        "error": {
            "code": error.code,
            "message": str(error),
            "advice": advice_of(error),
            "exit": status,
        }
    }


def test_no_daemon_has_an_exit_status_of_its_own(colodctl: Run) -> None:
    ran = colodctl("status")
    assert ran.status == 3
    assert "(daemon.unreachable)" in ran.err
    assert "hint: is colod running?" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("protect", "web"),
        ("protect", "web--incoming", "--to", "b", "--disks", "none"),
        ("protect", "web", "--to", "b", "--disks", "some"),
        ("protect", "web", "--to", "b", "--disks", "none", "--interval-ms", "19"),
        ("status", "../x"),
        ("nonsense",),
        ("status", "--nonsense"),
        ("pause", "--reason", " "),
        ("failover", "web", "--yes", "--force-reason", ""),
        ("fence-confirm", "web", "--reason", "x" * 1001),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_asked(
    daemon: FakeDaemon, colodctl: Run, words: tuple[str, ...]
) -> None:
    ran = colodctl(*words)
    assert ran.status == 2
    assert "hint: run: colodctl" in ran.err
    assert daemon.requests == []


def test_a_wrong_command_line_is_json_where_json_was_asked_for(colodctl: Run) -> None:
    ran = colodctl("status", "--json", "--nonsense")
    assert json.loads(ran.err)["error"]["code"] == "usage"
