"""Drills that throw the replica away and rebuild it, on real daemons."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.integration.pair_trial import MakeTrial, Trial
from tests.pair import BIN, LIMIT_S, until

DRILL = ("drill", "secondary", "g1")

pytestmark = pytest.mark.timeout(600)


def drills_of(trial: Trial) -> list[dict[str, Any]]:
    """Return what drills on the primary came to."""
    found: list[dict[str, Any]] = json.loads(trial.alpha.ctl("drill", "report", "--json"))["drills"]
    return found


def test_the_replica_is_thrown_away_and_rebuilt_and_that_is_measured(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic", hold="automatic")
    old = trial.replicate()
    trial.until_state(trial.alpha, "PROTECTED")
    refused = trial.beta.try_ctl(*DRILL, "--yes")
    assert refused.returncode == 4
    assert "run it on alpha" in refused.stderr
    assert "nothing was done" in trial.alpha.ctl(*DRILL, "--dry-run")
    assert trial.status(trial.alpha).pairing == old
    before = trial.pair.ask_guest(limit_s=30)
    done = trial.alpha.try_ctl(*DRILL, "--yes", "--json")
    assert done.returncode == 0, done
    drill = json.loads(done.stdout)["drill"]
    assert (drill["kind"], drill["verdict"]) == ("secondary", "passed")
    assert drill["unprotected_s"] >= drill["protect_s"] > 0
    status = trial.status(trial.alpha)
    assert (status.state, status.owner) == ("PROTECTED", "alpha")
    assert status.pairing not in ("", old)
    assert drill["generation"] == status.generation
    after = trial.pair.ask_guest(limit_s=30)
    assert after["boot_id"] == before["boot_id"]
    assert after["counter"] > before["counter"]
    assert drills_of(trial) == [drill]
    trial.until_epochs_go_on()

    # The daemon dies while the guest is unprotected: the next one has it replicated again.
    argv = [str(BIN / "colodctl"), "--config", str(trial.alpha.config), *DRILL, "--yes"]
    with subprocess.Popen(
        argv,
        env=trial.alpha.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        until(lambda: trial.state(trial.alpha) != "PROTECTED", "it has begun")
        trial.kill_daemon(trial.alpha)
        assert running.wait(LIMIT_S) == 5
    trial.alpha.start_daemon()
    trial.until_state(trial.alpha, "PROTECTED")
    until(lambda: drills_of(trial)[-1]["verdict"] == "aborted", "it is recorded")

    # An interrupted one measures no more, and the replica is rebuilt all the same.
    with subprocess.Popen(
        argv,
        env=trial.alpha.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        until(lambda: trial.state(trial.alpha) != "PROTECTED", "it has begun")
        running.send_signal(signal.SIGINT)
        assert running.wait(LIMIT_S) in (130, -signal.SIGINT)
    until(lambda: len(drills_of(trial)) == 3, "it is recorded")
    assert drills_of(trial)[-1]["verdict"] == "aborted"
    trial.until_state(trial.alpha, "PROTECTED")
    trial.until_epochs_go_on()
