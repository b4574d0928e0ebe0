"""Each process of a replication is killed in its turn: one copy runs, on the host that owns it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pair_trial import IN_STEP, Trial
from tests.pair import kill, until


def assert_alpha_goes_on_alone(trial: Trial) -> None:
    """Check that the guest runs at its primary, alone by record, and beta's copy is given up."""
    trial.until_state(trial.alpha, "ALONE")
    trial.until_runs(trial.alpha)
    until(trial.pair.ask_guest, "it answers")
    status = trial.status(trial.alpha)
    assert (status.owner, status.generation) == ("alpha", 3)
    trial.until_state(trial.beta, "STOPPED")
    until(lambda: not trial.beta.guests(), "beta has no copy left")


def sender(trial: Trial) -> list[int]:
    return [trial.session(trial.alpha)]


def receiver(trial: Trial) -> list[int]:
    return [trial.session(trial.beta)]


def xl_remus(trial: Trial) -> list[int]:
    return [trial.xl(trial.alpha)]


def xl_receive(trial: Trial) -> list[int]:
    return [trial.xl(trial.beta)]


def senders_helper(trial: Trial) -> list[int]:
    return [trial.helper(trial.alpha)]


def receivers_helper(trial: Trial) -> list[int]:
    return [trial.helper(trial.beta, "g1--incoming")]


def sender_and_xl(trial: Trial) -> list[int]:
    return [*sender(trial), *xl_remus(trial)]


def receiver_and_xl(trial: Trial) -> list[int]:
    return [*receiver(trial), *xl_receive(trial), *receivers_helper(trial)]


@pytest.mark.parametrize(
    "victims",
    [
        sender,
        receiver,
        xl_remus,
        xl_receive,
        senders_helper,
        receivers_helper,
    ],
)
def test_the_primary_goes_on_alone_when_a_process_of_the_replication_dies(
    trial: Trial, victims: Callable[[Trial], list[int]]
) -> None:
    trial.replicate()
    counter = trial.pair.ask_guest(limit_s=30)["counter"]
    for pid in victims(trial):
        kill(pid)
    assert_alpha_goes_on_alone(trial)
    assert trial.pair.ask_guest(limit_s=30)["counter"] >= counter


def test_a_guest_left_suspended_by_the_death_of_its_xl_is_resumed(trial: Trial) -> None:
    trial.replicate(sim_writes_per_tick=60)
    helper = trial.stop_inside_checkpoint()
    kill(trial.xl(trial.alpha))
    kill(helper, signal.SIGCONT)
    assert_alpha_goes_on_alone(trial)


def test_a_guest_left_suspended_by_the_death_of_its_helper_is_resumed(trial: Trial) -> None:
    trial.replicate(sim_writes_per_tick=60)
    kill(trial.stop_inside_checkpoint())
    assert_alpha_goes_on_alone(trial)


def test_a_guest_that_stands_still_in_a_checkpoint_is_reported_with_the_cause(
    trial: Trial,
) -> None:
    """Nothing is done about it: the checkpoint may still end, as it does here."""
    trial.replicate(sim_writes_per_tick=60)
    helper = trial.stop_inside_checkpoint()
    until(lambda: trial.status(trial.alpha).standstill_cause, "the standstill is reported")
    status = trial.status(trial.alpha)
    assert status.standstill_s > 5.0
    assert "xl or its save helper stands still" in status.standstill_cause
    assert status.state in IN_STEP
    assert not trial.status(trial.beta).HasField("standstill_s")
    kill(helper, signal.SIGCONT)
    until(lambda: not trial.status(trial.alpha).standstill_cause, "the guest goes on")
    trial.until_epochs_go_on()
    log = trial.alpha.log()
    assert log.index('"guest.stalled"') < log.index('"guest.continued"')


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_neither_death_nor_restart_of_a_daemon_changes_anything(trial: Trial, name: str) -> None:
    pairing = trial.replicate()
    host = trial.alpha if name == "alpha" else trial.beta
    other = trial.beta if name == "alpha" else trial.alpha
    sessions = [trial.session(each) for each in trial.pair.hosts]
    for number in (signal.SIGKILL, signal.SIGTERM):
        host.stop_daemon(number)
        trial.until_epochs_go_on(other)
        assert trial.state(other) in IN_STEP
        host.start_daemon()
        trial.until_state(host, *IN_STEP)
        trial.until_epochs_go_on(host)
    for each in trial.pair.hosts:
        status = trial.status(each)
        assert (status.pairing, status.generation, status.owner) == (pairing, 2, "alpha")
        assert set(trial.history(each)) <= {"PAIRING", "SYNCING", *IN_STEP}
    assert [trial.session(each) for each in trial.pair.hosts] == sessions


@pytest.mark.parametrize("victims", [receiver, receiver_and_xl])
def test_receiver_and_daemon_die_together(
    trial: Trial, victims: Callable[[Trial], list[int]]
) -> None:
    trial.replicate()
    pids = victims(trial)
    trial.kill_daemon(trial.beta)
    for pid in pids:
        kill(pid)
    trial.until_state(trial.alpha, "ALONE")
    trial.until_runs(trial.alpha)
    assert not trial.runs(trial.beta)
    trial.beta.start_daemon()
    assert_alpha_goes_on_alone(trial)


@pytest.mark.parametrize("victims", [sender, xl_remus, sender_and_xl])
def test_sender_and_daemon_die_together_and_the_daemon_comes_back(
    trial: Trial, victims: Callable[[Trial], list[int]]
) -> None:
    trial.replicate()
    pids = victims(trial)
    trial.kill_daemon(trial.alpha)
    for pid in pids:
        kill(pid)
    until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "they are gone")
    trial.alpha.start_daemon()  # as systemd does after a second
    assert_alpha_goes_on_alone(trial)
