"""`colodctl drill` against a daemon's double over the real socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod import errors
from colod.v1 import admin_pb2, types_pb2
from tests.integration.admin_double import FakeDaemon, protection, report
from tests.integration.test_cli_daemon import Run, colodctl, daemon

__all__ = ["colodctl", "daemon"]

Reply = admin_pb2.DrillReply
PLAN = Reply(plan=["write epoch 41", "destroy web--drill"], step="planned")
RECORD = admin_pb2.DrillRecord(
    id="d1",
    unix_s=1e9,
    host="host-b",
    guest="web",
    kind="isolated",
    epoch=42,
    generation=3,
    verdict="passed",
    operator="ann",
    check="true",
    network="none",
    rpo_s=0.25,
    image_s=2,
    restore_s=3,
    start_s=0.5,
    check_s=1,
    rto_s=6.5,
)
DRILL = ("drill", "isolated", "web", "--yes")


def steps(verdict: str, **changes: object) -> list[Reply]:
    """Return what a daemon tells of a drill that comes to `verdict`."""
    record = admin_pb2.DrillRecord()
    record.CopyFrom(RECORD)
    record.verdict = verdict
    for name, value in changes.items():
        setattr(record, name, value)
    return [
        PLAN,
        Reply(id="d1", step="writing", written_bytes=1, total_bytes=2, epoch=42),
        Reply(id="d1", step="checking", domain="web--drill", domid=9, epoch=42),
        Reply(id="d1", step="done", record=record),
    ]


def test_the_check_is_run_here_and_its_status_told(
    daemon: FakeDaemon, colodctl: Run, tmp_path: Path
) -> None:
    daemon.steps = steps("passed")
    seen = tmp_path / "seen"
    check = f'echo "$COLOD_GUEST $COLOD_DRILL_DOMAIN $COLOD_DRILL_DOMID $COLOD_DRILL_EPOCH" >{seen}'
    ran = colodctl(*DRILL, "--check", check)
    assert ran.status == 0
    assert seen.read_text() == "web web--drill 9 42\n"
    request, told = daemon.requests
    assert (request.check, request.bridge, request.keep) == (check, "", False)
    assert (told.id, told.status, told.said) == ("d1", 0, "")
    assert ran.out.splitlines() == [
        "2001-09-09T01:46:40Z  web on host-b: isolated, epoch 42: PASSED",
        " " * 22 + "RPO 250 ms, RTO 6.5 s, image 2.0 s, restore 3.0 s, start",
        " " * 22 + "500 ms, check 1.0 s",
        " " * 22 + "network none, by ann",
    ]
    assert ran.err.splitlines()[:3] == ["web: planned", "web: writing 50 %", "web: checking"]


@pytest.mark.parametrize(
    ("check", "status", "said"),
    [("exit 3", 3, "ended with 3"), ("kill -9 $$", 137, "signal 9"), ("sleep 60", 124, "0.3 s")],
)
def test_a_check_that_did_not_pass_says_how(
    daemon: FakeDaemon, colodctl: Run, check: str, status: int, said: str
) -> None:
    daemon.steps = steps("failed")
    ran = colodctl(*DRILL, "--check", check, "--check-timeout", "0.3")
    assert ran.status == 1
    told = daemon.requests[-1]
    assert told.status == status
    assert said in told.said


@pytest.mark.parametrize(("verdict", "status"), [("not checked", 9), ("aborted", 1), ("new", 1)])
def test_only_what_was_checked_is_a_success(
    daemon: FakeDaemon, colodctl: Run, verdict: str, status: int
) -> None:
    daemon.steps = [each for each in steps(verdict, check_s=-1) if each.step != "checking"]
    ran = colodctl(*DRILL, "--json")
    assert ran.status == status
    drill = ran.json["drill"]
    assert (drill["verdict"], drill["check_s"], drill["rpo_s"]) == (verdict, None, 0.25)


def test_a_timer_on_both_hosts_drills_on_the_secondary_alone(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.steps = steps("passed")
    daemon.reports = [report(protection("PROTECTED"))]
    ran = colodctl(*DRILL, "--if-secondary")
    assert ran.status == 0
    assert ran.out.splitlines()[-1] == "web: nothing was done"
    assert "this host is the primary of web" in ran.out
    assert colodctl(*DRILL, "--if-secondary", "--json").json["drill"] is None
    assert not [each for each in daemon.requests if isinstance(each, admin_pb2.DrillRequest)]
    daemon.reports = [report(protection("PROTECTED", role=types_pb2.ROLE_SECONDARY))]
    ran = colodctl(*DRILL, "--if-secondary", "--json")
    assert (ran.status, ran.json["drill"]["verdict"]) == (0, "passed")
    daemon.reports = [report()]
    assert colodctl(*DRILL, "--if-secondary").status == 6


def test_nothing_is_done_in_a_dry_run_or_unasked(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.steps = steps("passed")
    ran = colodctl("drill", "isolated", "web", "--dry-run")
    assert ran.out == "write epoch 41\ndestroy web--drill\nweb: nothing was done\n"
    assert [each.dry_run for each in daemon.requests] == [True]
    assert colodctl("drill", "isolated", "web").status == 2
    assert colodctl(*DRILL, "--bridge", "b", "--no-network").status == 2
    assert colodctl(*DRILL, "--disk-override", "xvda").status == 2
    assert len(daemon.requests) == 1


def test_a_refusal_and_an_end_that_nobody_saw(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.steps = [PLAN]
    assert colodctl(*DRILL).status == 5
    daemon.error = errors.PreflightRefused(["br0 is the guest's own bridge"])
    ran = colodctl(*DRILL, "--bridge", "br0", "--disk-override", "xvda=/dev/copy")
    assert ran.status == 4
    request = daemon.requests[-1]
    assert (request.disks[0].vdev, request.disks[0].target) == ("xvda", "/dev/copy")


def test_a_report_shows_each_drill(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("drill", "report").out == "no drill is recorded on this host\n"
    daemon.drills = [RECORD]
    assert "PASSED" in colodctl("drill", "report", "web").out
    (told,) = colodctl("drill", "report", "--json").json["drills"]
    assert told["rto_s"] == 6.5
    assert told["operator"] == "ann"


REBUILT = admin_pb2.DrillRecord(
    id="d2",
    unix_s=1e9,
    host="host-a",
    guest="web",
    kind="secondary",
    epoch=42,
    generation=5,
    verdict="passed",
    operator="ann",
    network="none",
    rpo_s=-1,
    image_s=-1,
    restore_s=-1,
    start_s=-1,
    check_s=-1,
    rto_s=-1,
    discard_s=1.5,
    unprotected_s=9.5,
    protect_s=8,
)


def test_a_drill_of_the_secondary_tells_how_long_nothing_protected(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    plan = Reply(plan=["throw it away"], step="planned")
    daemon.steps = [plan, Reply(step="pairing"), Reply(step="done", record=REBUILT)]
    assert colodctl("drill", "secondary", "web").status == 2
    ran = colodctl("drill", "secondary", "web", "--dry-run")
    assert ran.out == "throw it away\nweb: nothing was done\n"
    assert [each.dry_run for each in daemon.requests] == [True]
    ran = colodctl("drill", "secondary", "web", "--yes", "--timeout", "60")
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "2001-09-09T01:46:40Z  web on host-a: secondary, epoch 42: PASSED",
        " " * 22 + "unprotected 9.5 s, old replica gone 1.5 s, new one",
        " " * 22 + "PROTECTED 8.0 s",
        " " * 22 + "by ann",
    ]
    assert (daemon.requests[-1].dry_run, daemon.requests[-1].timeout_s) == (False, 60)
    drill = colodctl("drill", "secondary", "web", "--yes", "--json").json["drill"]
    assert (drill["unprotected_s"], drill["rto_s"]) == (9.5, None)
    daemon.steps = [plan]
    assert colodctl("drill", "secondary", "web", "--yes").status == 5
    daemon.drills = [RECORD, REBUILT]
    listed = colodctl("drill", "report", "--json").json["drills"]
    assert [each["unprotected_s"] for each in listed] == [None, 9.5]


LIVE = admin_pb2.DrillRecord(
    id="d3",
    unix_s=1e9,
    host="host-a",
    guest="web",
    kind="live",
    epoch=42,
    generation=5,
    verdict="passed",
    operator="ann",
    check="true",
    network="none",
    rpo_s=0,
    image_s=-1,
    restore_s=-1,
    start_s=0.5,
    check_s=-1,
    rto_s=2,
    discard_s=-1,
    unprotected_s=9,
    protect_s=8.5,
    decide_s=1.5,
    outage_s=2.25,
    failback_s=-1,
    failback_outage_s=-1,
    failback_protect_s=-1,
    end_owner="host-b",
    end_generation=7,
)


def test_a_live_drill_runs_the_probe_and_tells_each_part(
    daemon: FakeDaemon, colodctl: Run, tmp_path: Path
) -> None:
    plan = Reply(plan=["stop web at a checkpoint"], step="planned")
    probing = Reply(id="d3", step="probing")
    daemon.steps = [plan, probing, Reply(step="giving away"), probing, Reply(step="done")]
    daemon.steps[-1].record.CopyFrom(LIVE)
    assert colodctl("drill", "live", "web").status == 2
    assert colodctl("drill", "live", "web", "--yes", "--fence").status == 2
    ran = colodctl("drill", "live", "web", "--dry-run", "--as-if-host-died", "--fence")
    assert ran.out == "stop web at a checkpoint\nweb: nothing was done\n"
    (request,) = daemon.requests
    assert (request.dry_run, request.as_if_host_died, request.fence) == (True, True, True)
    probe = f'echo "$COLOD_GUEST" >{tmp_path}/seen'
    ran = colodctl("drill", "live", "web", "--yes", "--failback", "--probe", probe)
    assert ran.status == 0
    assert (tmp_path / "seen").read_text() == "web\n"
    request, *told = daemon.requests[1:]
    assert (request.failback, request.probe, request.dry_run) == (True, probe, False)
    assert [(each.id, each.status) for each in told] == [("d3", 0), ("d3", 0)]
    assert ran.out.splitlines() == [
        "2001-09-09T01:46:40Z  web on host-a: live, epoch 42: PASSED",
        " " * 22 + "RPO 0 ms, no answer for 2.2 s, RTO 2.0 s, decision 1.5 s,",
        " " * 22 + "start 500 ms, unprotected 9.0 s, new one PROTECTED 8.5 s",
        " " * 22 + "left on host-b at generation 7, by ann",
    ]


def test_a_guest_that_gives_the_probe_no_answer_is_told_of(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    probing = Reply(id="d3", step="probing")
    daemon.steps = [Reply(step="planned"), probing, Reply(step="done", record=LIVE)]
    daemon.steps[-1].record.verdict = "failed"
    ran = colodctl(
        "drill", "live", "web", "--yes", "--json", "--probe", "exit 3", "--probe-timeout", "0.1"
    )
    assert ran.status == 1
    drill = ran.json["drill"]
    assert (drill["outage_s"], drill["end_owner"], drill["failback_s"]) == (2.25, "host-b", None)
    told = daemon.requests[-1]
    assert told.status == 3
    assert "no answer in 0.1 s" in told.said


def test_a_live_drill_without_a_probe_or_an_end_is_no_success(
    daemon: FakeDaemon, colodctl: Run
) -> None:
    daemon.steps = [Reply(step="planned"), Reply(step="done", record=LIVE)]
    daemon.steps[-1].record.verdict = "not checked"
    daemon.steps[-1].record.as_if_host_died = True
    ran = colodctl("drill", "live", "web", "--yes")
    assert ran.status == 9
    assert "live, as if a host had died, epoch 42: NOT CHECKED" in " ".join(ran.out.split())
    daemon.steps.pop()
    assert colodctl("drill", "live", "web", "--yes").status == 5
    daemon.drills = [RECORD, REBUILT, LIVE]
    listed = colodctl("drill", "report", "--json").json["drills"]
    assert [each["decide_s"] for each in listed] == [None, None, 1.5]
    assert [each["as_if_host_died"] for each in listed] == [None, None, False]
