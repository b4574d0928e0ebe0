"""Images of a replica and drills on it, by real daemons over the simulated Xen."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pair import BIN, LIMIT_S, Pair, until

KEEP = """
[checkpoints]
keep = true
directory = "{root}/images"
every_s = 15.0
keep_images = 2
"""


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Give a pair whose replica follows and of which an image is kept; all tests share it."""
    root = Path(tempfile.mkdtemp(prefix="colod-"))  # paths of sockets end at 107 bytes
    found = Pair(root, suspect_s=20.0, silence_s=15.0, extra=KEEP.format(root=root))
    try:
        found.start()
        found.create_guest()
        found.protect("g1", "--no-wait")
        until(lambda: found.beta.state() == "REPLICATING", "the replica follows", limit_s=200)
        yield found
    finally:
        found.close()
        shutil.rmtree(root, ignore_errors=True)


def test_an_export_is_an_image_that_xl_restores(pair: Pair) -> None:
    refused = pair.alpha.try_ctl("checkpoint", "export", "g1")
    assert refused.returncode == 4
    assert "hint: run it on beta" in refused.stderr
    listed = json.loads(pair.beta.ctl("checkpoint", "list", "--json"))
    assert listed["kept"][0]["is_kept"]
    assert "nothing was written" in pair.beta.ctl("checkpoint", "export", "g1", "--dry-run")
    assert pair.beta.try_ctl("checkpoint", "export", "g1", "--name", "../x").returncode == 4
    done = json.loads(pair.beta.ctl("checkpoint", "export", "g1", "--json"))
    assert done["epoch"] >= listed["kept"][0]["epoch"]
    exported = json.loads(pair.beta.ctl("checkpoint", "list", "--json"))["exported"]
    assert done["bytes"] in [each["size_bytes"] for each in exported]
    pair.beta.ctl("stream", "inspect", done["path"])
    acked = pair.alpha.protection().progress.acked_epoch
    until(lambda: pair.alpha.protection().progress.acked_epoch > acked + 3, "epochs go on")


def test_the_schedule_keeps_the_newest_few_and_leaves_what_operators_wrote(pair: Pair) -> None:
    exported = json.loads(pair.beta.ctl("checkpoint", "export", "g1", "--json"))["path"]
    directory = pair.root / "images" / "scheduled"

    def names() -> list[str]:
        return sorted(path.name for path in directory.glob("g1-*.xlsave"))

    first = until(names, "the first one is written", limit_s=120)[0]
    until(lambda: len(names()) == 2 and first not in names(), "it is replaced", limit_s=240)
    assert Path(exported).exists()
    schedule = json.loads(pair.beta.ctl("checkpoint", "list", "--json"))["schedule"]
    assert (schedule["every_s"], schedule["keep_images"]) == (15.0, 2)
    assert len(schedule["images"]) <= 3
    image = shutil.copy(directory / names()[-1], pair.root / "image")  # the next ones replace it
    pair.beta.ctl("stream", "inspect", str(image))
    assert "colod_image_last_scheduled_timestamp_seconds" in pair.beta.metrics()


DRILL = ("drill", "isolated", "g1", "--yes")


def drills_of(pair: Pair) -> list[dict[str, Any]]:
    """Return what drills on the secondary came to."""
    found: list[dict[str, Any]] = json.loads(pair.beta.ctl("drill", "report", "--json"))["drills"]
    return found


def check_of(pair: Pair) -> str:
    """Return a check that asks the simulated guest past its network, and looks at its memory."""
    command = f"'{Path(sys.executable).parent}/colod-simxl' sim guest \"$COLOD_DRILL_DOMAIN\""
    return f"{command} | grep -q '\"intact\": true'"


def test_a_drill_runs_the_newest_epoch_cut_off_while_the_protection_goes_on(pair: Pair) -> None:
    refused = pair.alpha.try_ctl(*DRILL)
    assert refused.returncode == 4
    assert "hint: run it on beta" in refused.stderr
    refused = pair.beta.try_ctl(*DRILL, "--bridge", "br0")
    assert refused.returncode == 4
    assert "the guest's own bridge" in refused.stderr
    foretold = json.loads(pair.beta.ctl("drill", "isolated", "g1", "--dry-run", "--json"))
    assert "no network" in foretold["plan"][1]
    assert set(pair.beta.guests()) == {"g1--incoming"}
    known = drills_of(pair)
    before = pair.alpha.protection().progress.acked_epoch
    address = pair.ask_guest(limit_s=30)["boot_id"]
    look = f"sleep 2; {check_of(pair)}"
    done = pair.beta.try_ctl(*DRILL, "--check", look, "--json")
    assert done.returncode == 0, done
    drill = json.loads(done.stdout)["drill"]
    assert drill["verdict"] == "passed"
    assert drill["epoch"] >= before - 1
    assert all(drill[name] is not None for name in ("rpo_s", "rto_s", "image_s", "check_s"))
    assert drill["rto_s"] >= drill["image_s"] + drill["restore_s"] + drill["check_s"]
    assert set(pair.beta.guests()) == {"g1--incoming"}
    until(lambda: pair.alpha.protection().progress.acked_epoch > before + 3, "epochs go on")
    assert pair.alpha.state() == pair.beta.state() == "REPLICATING"
    # The guest's address was never answered by the copy.
    answer = pair.ask_guest(limit_s=5)
    assert (answer["boot_id"], answer["domain"]) == (address, "g1")
    assert drills_of(pair) == [*known, drill]
    assert "colod_drill_last_success_timestamp_seconds" in pair.beta.metrics()
    assert not list((pair.root / "images").glob(".*"))


def test_a_drill_without_a_check_is_no_success_and_a_failed_check_says_so(pair: Pair) -> None:
    done = pair.beta.try_ctl(*DRILL)
    assert done.returncode == 9
    assert "NOT CHECKED" in done.stdout
    done = pair.beta.try_ctl(*DRILL, "--check", "exit 3", "--keep")
    assert done.returncode == 1
    assert "the check ended with 3" in done.stdout
    copy = pair.beta.guests()["g1--drill"]
    assert copy["running"]
    refused = pair.beta.try_ctl(*DRILL)
    assert refused.returncode == 4
    assert "xl destroy" in refused.stderr
    pair.beta.xl("destroy", "g1--drill")
    assert [each["verdict"] for each in drills_of(pair)[-2:]] == ["not checked", "failed"]


def test_a_drill_that_the_daemon_did_not_survive_is_cleared_away(pair: Pair) -> None:
    begun = pair.root / "checking"
    argv = [str(BIN / "colodctl"), "--config", str(pair.beta.config), *DRILL]
    with subprocess.Popen(
        [*argv, "--check", f"touch {begun}; sleep 99"],
        env=pair.beta.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        until(begun.exists, "the check runs")
        assert pair.beta.guests()["g1--drill"]["running"]
        pair.beta.stop_daemon(signal.SIGKILL)
        try:
            assert running.wait(LIMIT_S) == 5  # long before the check would have ended
            assert "g1--drill" in pair.beta.guests()
        finally:
            pair.beta.start_daemon()
    until(lambda: set(pair.beta.guests()) == {"g1--incoming"}, "the copy is cleared away")
    until(lambda: pair.beta.state() == "REPLICATING", "the replica is what it was")
    until(lambda: drills_of(pair)[-1]["verdict"] == "aborted", "it is recorded")


def test_a_drill_whose_time_is_over_kills_its_check_and_still_shows_its_record(pair: Pair) -> None:
    check = pair.root / "check.pid"
    done = pair.beta.try_ctl(*DRILL, "--check", f"echo $$ > {check}; sleep 99", "--timeout", "15")
    assert done.returncode == 1
    assert "ABORTED" in done.stdout
    assert "it was not done in time" in done.stdout
    if check.exists():  # else the machine was too slow for it to begin
        assert not Path(f"/proc/{check.read_text().strip()}").exists()
    assert set(pair.beta.guests()) == {"g1--incoming"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_drill_is_cleared_away_with_its_check(
    pair: Pair, number: signal.Signals, tmp_path: Path
) -> None:
    check = f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 99"
    argv = [str(BIN / "colodctl"), "--config", str(pair.beta.config), *DRILL, "--check", check]
    with subprocess.Popen(
        argv, env=pair.beta.environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        until(lambda: pair.beta.guests().get("g1--drill", {}).get("running"), "the copy runs")
        until((tmp_path / "pid").exists, "the check runs")
        pid = (tmp_path / "pid").read_text().strip()
        running.send_signal(number)
        assert running.wait(LIMIT_S) in (130, -signal.SIGINT)
    assert not Path(f"/proc/{pid}").exists()
    until(lambda: set(pair.beta.guests()) == {"g1--incoming"}, "the copy is cleared away")
