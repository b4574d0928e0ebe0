"""Drills that fail a guest over for real, on real daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from tests.integration.pair_trial import MakeTrial, Trial
from tests.pair import BIN, LIMIT_S, SimulatedHost, until

DRILL = ("drill", "live", "g1", "--yes")

pytestmark = pytest.mark.timeout(600)


def probe_of(trial: Trial) -> str:
    """Return a probe that asks the guest at its address, wherever it runs."""
    address = f"/dev/tcp/127.0.0.1/{trial.pair.guest_port}"
    asks = f"exec 3<>{address}; echo get >&3; read -r said <&3; [[ $said == *counter* ]]"
    return f"exec bash -c '{asks}'"


def drills_of(host: SimulatedHost) -> list[dict[str, Any]]:
    """Return what drills on a host came to."""
    found: list[dict[str, Any]] = json.loads(host.ctl("drill", "report", "--json"))["drills"]
    return found


def drilled(host: SimulatedHost, *options: str) -> tuple[int, dict[str, Any]]:
    """Carry a drill out on `host`; return its exit status and its record."""
    done = host.run(
        "colodctl", "--config", str(host.config), *DRILL, "--json", *options,
        check=False, limit_s=250,
    )  # fmt: skip
    assert done.stdout, done.stderr
    drill: dict[str, Any] = json.loads(done.stdout)["drill"]
    assert drills_of(host)[-1] == drill
    return done.returncode, drill


def begun(host: SimulatedHost, *options: str) -> subprocess.Popen[bytes]:
    """Begin a drill."""
    argv = [str(BIN / "colodctl"), "--config", str(host.config), *DRILL, *options]
    return subprocess.Popen(
        argv,
        env=host.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def trial(make_trial: MakeTrial) -> Trial:
    """A pair that holds output, with its guest protected."""
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic", hold="automatic")
    trial.replicate()
    for host in trial.pair.hosts:
        trial.until_state(host, "PROTECTED")
    return trial


def test_the_guest_fails_over_and_back_and_its_client_sees_for_how_long(trial: Trial) -> None:
    before = trial.pair.ask_guest(limit_s=30)
    old = trial.status(trial.alpha)
    refused = trial.beta.try_ctl(*DRILL)
    assert refused.returncode == 4
    assert "run it on alpha" in refused.stderr
    foretold = trial.alpha.ctl("drill", "live", "g1", "--dry-run", "--failback")
    assert "nothing was done" in foretold
    assert trial.status(trial.alpha).pairing == old.pairing
    status, drill = drilled(trial.alpha, "--failback", "--probe", probe_of(trial))
    assert (status, drill["verdict"]) == (0, "passed"), drill
    assert (drill["kind"], drill["rpo_s"], drill["as_if_host_died"]) == ("live", 0.0, False)
    assert drill["epoch"] >= old.progress.acked_epoch
    assert drill["rto_s"] == pytest.approx(drill["decide_s"] + drill["start_s"], abs=0.01)
    assert 0 < drill["outage_s"] < 60
    assert 0 < drill["protect_s"] < drill["unprotected_s"]
    assert all(drill[f"failback_{name}"] > 0 for name in ("s", "outage_s", "protect_s"))
    assert (drill["generation"], drill["end_owner"]) == (old.generation, "alpha")
    status_now = trial.status(trial.alpha)
    assert drill["end_generation"] == status_now.generation == old.generation + 4
    assert (status_now.state, trial.state(trial.beta)) == ("PROTECTED", "PROTECTED")
    after = trial.pair.ask_guest(limit_s=30)
    assert after["boot_id"] == before["boot_id"]
    assert after["counter"] > before["counter"]
    assert "colod_drill_last_success_timestamp_seconds" in trial.alpha.metrics()
    trial.until_epochs_go_on()


def test_a_takeover_without_the_primary_rolls_back_and_comes_back(trial: Trial) -> None:
    refused = trial.alpha.try_ctl(*DRILL, "--as-if-host-died")
    assert refused.returncode == 4
    assert "run it on beta" in refused.stderr
    foretold = trial.beta.ctl("drill", "live", "g1", "--dry-run", "--as-if-host-died")
    assert "rolled back" in foretold
    assert trial.state(trial.beta) == "PROTECTED"
    acked = trial.acked()
    status, drill = drilled(trial.beta, "--as-if-host-died", "--failback")
    assert (status, drill["verdict"]) == (9, "not checked"), drill
    assert drill["outage_s"] is None
    assert drill["as_if_host_died"]
    assert drill["epoch"] >= acked
    assert 0 < drill["rpo_s"] < 30
    assert drill["end_owner"] == "alpha"
    for host in trial.pair.hosts:
        trial.until_state(host, "PROTECTED")
    assert not trial.runs(trial.beta)
    trial.until_epochs_go_on()


def test_a_failover_that_is_given_up_leaves_the_guest_and_has_failed(trial: Trial) -> None:
    generation = trial.status(trial.alpha).generation
    silent = drilled(trial.alpha, "--probe", "exit 7", "--probe-timeout", "1")
    assert (silent[0], silent[1]["verdict"], silent[1]["rto_s"]) == (1, "failed", None)
    assert "ended with 7" in silent[1]["detail"]
    assert trial.status(trial.alpha).generation == generation
    pid = trial.session(trial.beta)
    with begun(trial.alpha) as running:
        until(lambda: any((trial.alpha.root / "state" / "drills").glob("*.json")), "it has begun")
        os.kill(pid, signal.SIGSTOP)
        try:
            assert running.wait(LIMIT_S) == 1
        finally:
            os.kill(pid, signal.SIGCONT)
    drill = drills_of(trial.alpha)[-1]
    assert drill["verdict"] == "failed"
    assert "stays" in drill["detail"]
    assert (drill["end_owner"], drill["rto_s"]) == ("alpha", None)
    trial.until_runs(trial.alpha)
    trial.until_state(trial.alpha, "PROTECTED")

    # The daemon dies in the middle: the next one says so, and one host runs the guest.
    with begun(trial.alpha) as running:
        until(lambda: trial.history(trial.alpha)[-1] == "SWITCHOVER", "it has begun")
        trial.kill_daemon(trial.alpha)
        assert running.wait(LIMIT_S) == 5
    trial.alpha.start_daemon()
    until(lambda: drills_of(trial.alpha)[-1]["verdict"] == "aborted", "it is recorded")
    assert not any((trial.alpha.root / "state" / "drills").glob("*.json"))
    for host in trial.pair.hosts:
        trial.until_state(host, "PROTECTED")
    until(lambda: trial.runs(trial.alpha) != trial.runs(trial.beta), "one copy runs")
