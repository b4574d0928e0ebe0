"""A switchover gives the guest away after a final epoch, or leaves everything as it was."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from colod.simxen import control
from colod.simxen.host import Host
from tests.integration.pair_trial import MakeTrial, Trial, ask_all
from tests.pair import LIMIT_S, SimulatedHost, until


def switch(host: SimulatedHost, *options: str) -> tuple[int, str]:
    """Ask `host` for a switchover of g1; return the exit status and all that was said."""
    done = host.try_ctl("switchover", "g1", *options)
    return done.returncode, done.stdout + done.stderr


def protected(make_trial: MakeTrial, interval_ms: int = 50) -> Trial:
    """Return a pair that holds output, with its guest protected."""
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic", hold="automatic")
    trial.replicate(interval_ms=interval_ms)
    trial.until_state(trial.alpha, "PROTECTED")
    return trial


@pytest.fixture
def trial(make_trial: MakeTrial) -> Trial:
    """A pair that holds output, with its guest protected."""
    return protected(make_trial)


def counter(trial: Trial) -> int:
    """Return what the guest answers, once it does: its output waits for acknowledgements."""
    return int(until(lambda: trial.pair.ask_guest(limit_s=5), "the guest answers")["counter"])


def is_back(trial: Trial) -> bool:
    return trial.state(trial.alpha) == "PROTECTED" and trial.runs(trial.alpha)


def test_the_guest_goes_over_with_nothing_lost_and_back_again(trial: Trial) -> None:
    before = counter(trial)
    status, said = switch(trial.alpha, "--dry-run")
    assert status == 0
    assert "give beta the ownership" in said
    assert trial.is_in_step()
    status, said = switch(trial.alpha, "--yes", "--json")
    assert status == 0, said
    assert json.loads(said)["generation"] == 3
    trial.until_runs(trial.beta)
    assert trial.status(trial.beta).owner == "beta"
    after = counter(trial)
    assert after >= before
    for host in trial.pair.hosts:
        trial.until_state(host, "PROTECTED")
    assert not trial.runs(trial.alpha)
    assert "SWITCHOVER" in trial.history(trial.alpha)
    refused, said = switch(trial.alpha, "--yes")
    assert refused == 4
    assert "run it on beta" in said
    done = trial.alpha.try_ctl("failback", "g1", "--yes")
    assert done.returncode == 4
    assert "run it on beta: colodctl failback g1" in done.stderr
    back = json.loads(trial.beta.ctl("failback", "g1", "--yes", "--json"))
    assert (back["to"], back["generation"]) == ("alpha", 5)
    assert counter(trial) >= after
    trial.until_state(trial.alpha, "PROTECTED")


class Counters:
    """Reads the counter of every copy of g1 from the copy itself, past xl and colod."""

    def __init__(self, *hosts: SimulatedHost) -> None:
        """Read from `hosts` until `stop`."""
        self._hosts = [Host(host.root / "xen") for host in hosts]
        self.ran: list[int] = [0 for _ in hosts]
        """By host: the newest counter seen."""
        self.began: list[int | None] = [None for _ in hosts]
        """By host: the last counter that was seen there before a copy ran, None without one."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(LIMIT_S)

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            for index, host in enumerate(self._hosts):
                for seen in ask_all(host):
                    self._note(index, int(seen["counter"]), has_run=bool(seen["has_run"]))

    def _note(self, index: int, count: int, *, has_run: bool) -> None:
        self.ran[index] = max(self.ran[index], count)
        if not has_run:
            self.began[index] = count


def test_nothing_that_the_guest_did_is_lost_even_if_no_client_has_seen_it(
    make_trial: MakeTrial,
) -> None:
    """The copy that goes on begins exactly where the first one was stopped.

    However long the pause takes: a whole checkpoint would fit into the pipe meanwhile, and the
    guest would run on until the next one.
    """
    trial = protected(make_trial, interval_ms=400)
    trial.alpha.xl("sim", "delay", "pause", "0.2")
    counters = Counters(trial.alpha, trial.beta)
    try:
        status, said = switch(trial.alpha, "--yes")
    finally:
        counters.stop()
    assert status == 0, said
    assert counters.ran[0] > 0
    assert counters.began[1] == counters.ran[0]


@pytest.mark.parametrize("victim", ["session", "helper"])
def test_a_checkpoint_that_does_not_come_leaves_the_guest_here(trial: Trial, victim: str) -> None:
    pid = trial.session(trial.beta) if victim == "session" else trial.helper(trial.alpha)
    os.kill(pid, signal.SIGSTOP)
    try:
        status, said = switch(trial.alpha, "--yes")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert status == 4, said
    assert "stays here" in said
    trial.until_runs(trial.alpha)
    until(lambda: is_back(trial), "it is protected again")
    assert trial.status(trial.alpha).owner == "alpha"


def test_a_guest_that_ran_on_before_its_pause_stays_here(trial: Trial) -> None:
    """Were the window not kept, for whatever reason, Xen itself would say so."""
    trial.alpha.xl("sim", "delay", "pause", "1")
    xen = Host(trial.alpha.root / "xen")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(switch, trial.alpha, "--yes")
        until(lambda: trial.status(trial.alpha).progress.waits_for == "switchover", "it is kept")
        (guest,) = ask_all(xen)
        assert control.ask(xen, guest["domid"], "resume")["ok"]
        status, said = asked.result()
    assert status == 4, said
    assert "the guest ran on" in " ".join(said.split())
    trial.until_runs(trial.alpha)
    until(lambda: is_back(trial), "it is protected again")
    assert trial.status(trial.alpha).owner == "alpha"


def test_a_lost_witness_leaves_the_guest_here(trial: Trial) -> None:
    generation = trial.status(trial.alpha).generation
    with trial.witness_away():
        status, said = switch(trial.alpha, "--yes")
        assert status == 4, said
        assert "stays here" in said
        trial.until_runs(trial.alpha)
    until(lambda: is_back(trial), "it is protected again")
    assert trial.status(trial.alpha).generation >= generation


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_daemon_that_dies_meanwhile_ends_with_one_speaker(trial: Trial, name: str) -> None:
    host = trial.alpha if name == "alpha" else trial.beta
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(switch, trial.alpha, "--yes")
        until(lambda: "SWITCHOVER" in trial.history(trial.alpha), "the switchover has begun")
        trial.kill_daemon(host)
        host.start_daemon()
        asked.result(LIMIT_S)
    until(lambda: trial.runs(trial.alpha) != trial.runs(trial.beta), "one copy runs")
    until(lambda: all(trial.state(each) == "PROTECTED" for each in trial.pair.hosts), "protected")


def test_output_that_is_not_held_allows_no_switchover(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0)
    trial.replicate()
    status, said = switch(trial.alpha, "--yes")
    assert status == 4
    assert "not held" in said
    assert trial.is_in_step()
