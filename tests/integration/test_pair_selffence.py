"""A host with a watchdog: a stand-in is fed by the real daemon, and resets its simulated host."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from colod.observe.documents import status_json
from colod.v1 import admin_pb2
from tests.integration.pair_trial import MakeTrial, Trial
from tests.integration.watchdog_stand_in import NAME, StandInDriver
from tests.pair import SimulatedHost, until

TIMEOUT_S = 6
LONG_S = 90
"""For tests that start a daemon anew, on a machine that may be busy."""


def table(timeout_s: int) -> str:
    return f"""
[self_fence]
kind = "simulated"
device = "{{root}}/{NAME}"
timeout_s = {timeout_s}
"""


TABLE = table(TIMEOUT_S)
QUICK = {"suspect_s": 3.0, "silence_s": 2.0, "extra": TABLE}

MakeDriver = Callable[[SimulatedHost], StandInDriver]


@pytest.fixture
def make_driver() -> Iterator[MakeDriver]:
    made: list[StandInDriver] = []

    def make(host: SimulatedHost) -> StandInDriver:
        made.append(StandInDriver(host.root, host.die))
        return made[-1]

    yield make
    for each in made:
        each.close()


def standing(host: SimulatedHost) -> dict[str, Any]:
    """Return what the daemon's status says of the watchdog, as JSON."""
    with host.admin() as client:
        said = status_json(client.status())["self_fence"]
    assert said is not None
    return {**said}


def outlast(driver: StandInDriver) -> None:
    """Wait for longer than its time-out while it is fed."""
    enough = driver.feeds + TIMEOUT_S + 2
    until(lambda: driver.feeds >= enough or driver.has_fired.is_set(), "it is fed on")
    assert not driver.has_fired.is_set()
    assert driver.is_active


def replicating(trial: Trial, make_driver: MakeDriver) -> StandInDriver:
    """Have alpha replicate a guest with its watchdog armed."""
    driver = make_driver(trial.alpha)
    trial.replicate()
    until(lambda: driver.is_active, "the watchdog is armed")
    return driver


def test_it_is_armed_on_the_owner_while_paired_and_let_go_after(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, extra=TABLE)
    idle = make_driver(trial.beta)
    assert standing(trial.alpha)["active"] is False
    driver = replicating(trial, make_driver)
    outlast(driver)
    assert not idle.starts
    until(lambda: standing(trial.alpha)["active"], "status says so")
    said = standing(trial.alpha)
    assert (said["kind"], said["timeout_s"], said["trouble"]) == ("simulated", TIMEOUT_S, None)
    assert 0 < said["margin_s"] <= TIMEOUT_S
    assert "\ncolod_watchdog_active 1.0\n" in trial.alpha.metrics()
    assert "\ncolod_watchdog_margin_seconds " in trial.alpha.metrics()
    assert "stand-in" in trial.alpha.try_ctl("doctor").stdout
    assert "(simulated) armed" in trial.alpha.ctl("status")
    trial.alpha.ctl("suspend", "g1")
    until(lambda: not driver.is_active, "it is disarmed")
    assert standing(trial.alpha)["active"] is False
    trial.until_runs(trial.alpha)


def test_a_daemon_that_is_killed_goes_on_with_it_and_one_that_is_stopped_lets_it_go(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, extra=table(LONG_S))
    driver = replicating(trial, make_driver)
    trial.kill_daemon(trial.alpha)
    assert driver.is_active
    starts = driver.starts
    trial.alpha.start_daemon()
    until(lambda: driver.starts > starts, "the next daemon opens it")
    fed = driver.feeds
    until(lambda: driver.feeds > fed + 1, "it is fed on")
    trial.alpha.stop_daemon(signal.SIGTERM)
    until(lambda: not driver.is_active, "it is disarmed")
    trial.alpha.start_daemon()
    until(lambda: driver.is_active, "it is armed again")
    trial.until_epochs_go_on()


def test_what_a_killed_daemon_left_is_disarmed_when_it_is_not_wanted_any_more(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, extra=table(LONG_S))
    driver = replicating(trial, make_driver)
    trial.kill_daemon(trial.alpha)
    text = trial.alpha.config.read_text()
    trial.alpha.config.write_text(text.partition("[self_fence]")[0])
    trial.alpha.start_daemon()
    until(lambda: not driver.is_active, "it is disarmed")
    assert not driver.has_fired.is_set()


def test_a_lost_witness_resets_nobody_while_the_peer_lives(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, extra=TABLE)
    driver = replicating(trial, make_driver)
    with trial.witness_away():
        outlast(driver)


def test_a_lost_peer_resets_nobody_while_the_witness_answers(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    trial = make_trial(**QUICK)
    driver = replicating(trial, make_driver)
    trial.beta.die()
    trial.until_state(trial.alpha, "ALONE")
    until(lambda: not driver.is_active, "alone, it is disarmed")
    assert not driver.has_fired.is_set()


def test_an_isolated_host_that_has_paused_its_guest_is_not_reset(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    """Its copy may be the last one, and hurts nobody."""
    trial = make_trial(**QUICK)
    driver = replicating(trial, make_driver)
    with trial.witness_away():
        trial.beta.die()
        trial.until_state(trial.alpha, "MANUAL_HOLD")
        outlast(driver)
        assert not trial.runs(trial.alpha)
    trial.until_state(trial.alpha, "ALONE")
    until(lambda: not driver.is_active, "it is disarmed")
    trial.until_runs(trial.alpha)


def test_an_isolated_host_that_cannot_pause_its_guest_is_reset(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    trial = make_trial(**QUICK)
    driver = replicating(trial, make_driver)
    trial.alpha.xl("sim", "hang", "list")
    with trial.witness_away():
        trial.beta.die()
        until(driver.has_fired.is_set, "the watchdog resets the host")
    until(lambda: not trial.runs(trial.alpha), "the guest is gone with its host")
    assert '"watchdog.starved"' in trial.alpha.log()


def test_where_it_is_required_the_other_host_may_take_over_only_once_it_is_armed(
    make_trial: MakeTrial, make_driver: MakeDriver
) -> None:
    extra = f'{table(LONG_S)}mode = "required"\n'
    trial = make_trial(suspect_s=8.0, silence_s=6.0, extra=extra)
    trial.pair.create_guest()
    request = admin_pb2.ProtectRequest(guest="g1", to="beta", disks="none", interval_ms=50)
    with trial.alpha.admin() as client:
        client.protect(request)
    until(
        lambda: "self-fencing is required" in trial.status(trial.alpha).cause,
        "the operator is told why it is not paired",
    )
    assert trial.state(trial.alpha) == "SYNCING"
    trial.until_state(trial.beta, "SYNCING")
    assert NAME in trial.alpha.try_ctl("doctor").stdout
    driver = make_driver(trial.alpha)
    trial.until_replicating()
    assert driver.is_active
