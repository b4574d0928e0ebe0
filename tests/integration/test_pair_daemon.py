"""The daemon itself: its journal, its configuration, its rescue, and people's words to it."""

from __future__ import annotations

import json
import math
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.pair_trial import MakeTrial, Trial
from tests.pair import BIN, SimulatedHost, kill, until

QUICK = {"suspect_s": 3.0, "silence_s": 2.0}
EXIT_HELD = 75
EXIT_CONFIG = 78
EXIT_TOLD = 143


def run_colod(host: SimulatedHost, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `colod` until it ends."""
    return host.run("colod", "--config", str(host.config), *words, check=False)


def events(host: SimulatedHost, name: str) -> list[dict[str, Any]]:
    """Return the log's events of that name."""
    lines = [json.loads(line) for line in host.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def journal(host: SimulatedHost) -> Path:
    return host.root / "state" / "protections" / "g1.journal"


def test_a_damaged_journal_keeps_the_daemon_from_starting_and_the_sessions_go_on(
    trial: Trial,
) -> None:
    trial.replicate()
    trial.kill_daemon(trial.alpha)
    whole = journal(trial.alpha).read_bytes()
    journal(trial.alpha).write_bytes(whole[: len(whole) // 2])
    ended = run_colod(trial.alpha)
    assert ended.returncode == 1
    assert "g1.journal" in ended.stderr
    assert "torn or damaged" in ended.stderr
    trial.until_epochs_go_on(trial.beta)
    rescued = run_colod(trial.alpha, "rescue")
    assert rescued.returncode == 1
    assert "g1.journal" in rescued.stderr
    journal(trial.alpha).write_bytes(whole)
    trial.alpha.start_daemon()
    trial.until_replicating()


def limit_files(host: SimulatedHost, limit_bytes: int) -> None:
    """Let the daemon write no file beyond that size, as a full disk would."""
    assert host.daemon is not None
    _, most = resource.prlimit(host.daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(host.daemon.pid, resource.RLIMIT_FSIZE, (limit_bytes, most))


def test_a_journal_that_cannot_be_written_changes_nothing_and_says_so(trial: Trial) -> None:
    pairing = trial.replicate()
    before = journal(trial.alpha).read_bytes()
    limit_files(trial.alpha, 16)
    refused = trial.alpha.try_ctl("unprotect", "g1")
    assert refused.returncode == 1, refused
    assert "g1.journal" in refused.stderr
    trial.until_epochs_go_on()
    assert journal(trial.alpha).read_bytes() == before
    assert trial.is_in_step()
    assert trial.status(trial.alpha).pairing == pairing
    limit_files(trial.alpha, resource.RLIM_INFINITY)
    trial.alpha.ctl("unprotect", "g1")


def test_nothing_is_promoted_before_it_could_be_journaled(make_trial: MakeTrial) -> None:
    trial = make_trial(**QUICK)
    trial.replicate()
    limit_files(trial.beta, 16)
    trial.alpha.die()

    def is_told() -> bool:
        return "g1.journal" in trial.status(trial.beta).cause

    until(is_told, "the operator is told")
    assert not trial.runs(trial.beta)
    limit_files(trial.beta, resource.RLIM_INFINITY)
    trial.until_state(trial.beta, "ALONE")
    assert trial.runs(trial.beta)


def test_a_guest_that_may_belong_to_the_other_host_is_paused_though_the_disk_is_full(
    trial: Trial,
) -> None:
    trial.replicate()
    limit_files(trial.alpha, 16)
    trial.kill(trial.session(trial.alpha))

    def is_paused() -> bool:
        seen = trial.seen(trial.alpha)
        return seen is not None and seen.pauses > 0

    until(is_paused, "it is paused")
    until(lambda: "g1.journal" in trial.status(trial.alpha).cause, "the operator is told")
    limit_files(trial.alpha, resource.RLIM_INFINITY)
    trial.until_state(trial.alpha, "ALONE")
    trial.until_runs(trial.alpha)
    trial.alpha.ctl("unprotect", "g1")


def test_a_session_that_the_journal_does_not_know_is_reported_and_left_alone(
    trial: Trial,
) -> None:
    trial.replicate()
    trial.kill_daemon(trial.beta)
    entry = journal(trial.beta)
    kept = entry.read_bytes()
    entry.unlink()
    dead = trial.beta.root / "run" / "sessions" / "g9-primary-00000000"
    dead.mkdir()
    trial.beta.start_daemon()
    (found,) = events(trial.beta, "session.unrecognised")
    assert found["pid"] == trial.session(trial.beta)
    assert not dead.exists()
    trial.until_epochs_go_on()
    assert "g1-secondary" in trial.beta.try_ctl("doctor").stdout
    trial.beta.stop_daemon()
    entry.write_bytes(kept)
    trial.beta.start_daemon()
    trial.until_replicating()


def test_sighup_brings_into_force_what_may_change_and_names_what_may_not(trial: Trial) -> None:
    trial.replicate()
    config = trial.alpha.config
    text = config.read_text()
    assert trial.alpha.daemon is not None
    config.write_text(
        text.replace("suspect_after_s = 8.0", "suspect_after_s = 9.0")
        .replace('level = "debug"', 'level = "info"')
        .replace('launcher = "fork"', 'launcher = "systemd"')
    )
    trial.alpha.daemon.send_signal(signal.SIGHUP)
    until(lambda: events(trial.alpha, "config.reloaded"), "it is reloaded")
    (reloaded,) = events(trial.alpha, "config.reloaded")
    assert reloaded["changed"] == ["detection.suspect_after_s", "log.level"]
    until(lambda: events(trial.alpha, "config.refused"), "the rest is named")
    assert events(trial.alpha, "config.refused")[0]["needs_restart"] == ["toolstack.launcher"]
    config.write_text("nonsense")
    trial.alpha.daemon.send_signal(signal.SIGHUP)
    until(lambda: len(events(trial.alpha, "config.refused")) == 2, "it is refused")
    trial.until_epochs_go_on()
    assert trial.is_in_step()
    config.write_text(text)


def sample(text: str, name: str) -> float:
    """Return the value of a metric of the guest, as Prometheus reads it; NaN without one."""
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name == name and each.labels.get("guest") == "g1":
                return float(each.value)
    return math.nan


def test_every_epoch_is_counted_and_a_restarted_daemon_goes_on_counting(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, hold="automatic")
    trial.replicate()
    until(lambda: trial.acked() >= 30, "some epochs are acknowledged")
    trial.until_state(trial.alpha, "PROTECTED")
    low = trial.acked()
    text = trial.alpha.metrics()
    high = trial.acked()
    assert 'colod_protection_state{guest="g1",state="PROTECTED"} 1.0' in text
    for measure in ("pause_seconds", "copy_seconds", "ack_wait_seconds", "stream_bytes", "pages"):
        assert low <= sample(text, f"colod_epoch_{measure}_count") + 1 <= high  # but the first copy
    held = sample(text, "colod_epoch_hold_seconds_count")
    assert 0 < held <= sample(text, "colod_gate_barriers_total")
    assert sample(text, "colod_lag_seconds") > 0
    assert math.isnan(sample(trial.beta.metrics(), "colod_gate_barriers_total"))
    trial.alpha.stop_daemon()
    trial.alpha.start_daemon()
    until(
        lambda: sample(trial.alpha.metrics(), "colod_epoch_hold_seconds_count") > held,
        "the session's counts are there again, and grow",
    )


def test_an_invalid_configuration_ends_the_daemon_for_good(tmp_path: Path) -> None:
    path = tmp_path / "colod.toml"
    path.write_text("[peer]\n")
    done = subprocess.run(
        [str(BIN / "colod"), "--config", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_CONFIG
    assert "peer.name" in done.stderr


def test_a_rescue_lets_a_guest_run_that_its_dead_daemon_held(trial: Trial) -> None:
    trial.replicate()
    with trial.witness_away():
        kill(trial.session(trial.beta))
        trial.until_state(trial.alpha, "MANUAL_HOLD")
        trial.kill_daemon(trial.alpha)
    assert not trial.runs(trial.alpha)
    done = run_colod(trial.alpha, "rescue")
    assert done.returncode == 0, done.stderr
    trial.until_runs(trial.alpha)
    assert not trial.alpha.session_pids()
    trial.alpha.start_daemon()
    trial.until_state(trial.alpha, "ALONE")


@pytest.mark.parametrize("verb", ["rescue", "run"])
def test_nobody_decides_beside_a_daemon(trial: Trial, verb: str) -> None:
    """Each would write over what the other has just journaled."""
    trial.replicate()
    daemon = trial.alpha.daemon
    assert daemon is not None
    refused = run_colod(trial.alpha, verb)
    assert refused.returncode == EXIT_HELD, refused.stderr
    assert f"process {daemon.pid} decides on this host" in refused.stderr
    trial.until_epochs_go_on()
    assert trial.is_in_step()


def test_a_rescue_needs_neither_the_certificate_nor_the_fencer_that_the_daemon_needs(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=60.0)  # beta must not take over while colod fails to start
    trial.replicate()
    with trial.witness_away():
        kill(trial.session(trial.beta))
        trial.until_state(trial.alpha, "MANUAL_HOLD")
        trial.kill_daemon(trial.alpha)
    text = trial.alpha.config.read_text()
    (folder,) = {Path(line.split('"')[1]).parent for line in text.splitlines() if "ca = " in line}
    (folder / "alpha.key").unlink()
    broken = text + '\n[fencing]\nkind = "agents"\ndevices = [{ agent = "fence_missing" }]\n'
    trial.alpha.config.write_text(broken)
    started = run_colod(trial.alpha)
    assert started.returncode == 1, started.stderr  # it may be there again: retried
    assert not trial.runs(trial.alpha)
    done = run_colod(trial.alpha, "rescue")
    assert done.returncode == 0, done.stderr
    assert "fence_missing" in done.stderr
    assert "alpha.key" in done.stderr
    trial.until_runs(trial.alpha)


@contextmanager
def rescuing(host: SimulatedHost, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a rescue beside the test, and end it with it."""
    argv = [str(BIN / "colod"), "--config", str(host.config), "rescue", *words]
    with subprocess.Popen(argv, env=host.environment, stderr=subprocess.PIPE) as rescue:
        try:
            yield rescue
        finally:
            rescue.kill()


def test_a_rescue_that_is_told_to_stop_stops(trial: Trial) -> None:
    """Systemd does so when the daemon is started again."""
    trial.replicate()
    trial.kill_daemon(trial.alpha)
    with trial.witness_away():
        kill(trial.session(trial.beta))
        with rescuing(trial.alpha) as rescue:
            assert rescue.stderr is not None
            assert any(b"witness.unreached" in line for line in rescue.stderr), "never at work"
            rescue.terminate()
            said = rescue.stderr.read()
            assert rescue.wait(60) == EXIT_TOLD
    assert b"told to stop" in said


def test_a_rescue_that_found_a_pair_at_work_takes_over_when_the_peer_dies_later(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(**QUICK)
    trial.replicate()
    trial.kill_daemon(trial.beta)
    with rescuing(trial.beta) as rescue:
        assert rescue.stderr is not None
        # Debug lines tell of each look at the witness: it is at work, and finds nothing to do.
        looks = (line for line in rescue.stderr if b"effect.started" in line)
        assert [next(looks) for _ in range(3)]
        assert rescue.poll() is None
        trial.alpha.die()
        said = rescue.stderr.read()
        assert rescue.wait(60) == 0, said
    assert b"ownership.won" in said
    assert trial.runs(trial.beta)


def test_a_rescue_settles_what_waited_once_the_witness_is_back(make_trial: MakeTrial) -> None:
    trial = make_trial(**QUICK)
    trial.replicate()
    trial.kill_daemon(trial.beta)
    with rescuing(trial.beta) as rescue:
        assert rescue.stderr is not None
        with trial.witness_away():
            trial.alpha.die()
            assert any(b"MANUAL_HOLD" in line for line in rescue.stderr), "never held"
            assert not trial.runs(trial.beta)
        said = rescue.stderr.read()
        assert rescue.wait(60) == 0, said
    assert trial.runs(trial.beta)


def test_a_rescue_that_cannot_settle_leaves_the_guest_held_and_says_so(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(**QUICK)
    trial.replicate()
    trial.kill_daemon(trial.beta)
    with trial.witness_away():
        trial.alpha.die()
        done = run_colod(trial.beta, "rescue", "--limit", "20")
        assert not trial.runs(trial.beta)
    assert done.returncode == 1
    assert "g1: MANUAL_HOLD" in done.stderr
    assert run_colod(trial.beta, "rescue").returncode == 0
    assert trial.runs(trial.beta)
    trial.beta.start_daemon()


@pytest.mark.parametrize("survivor", ["alpha", "beta"])
def test_a_rescue_settles_ownership_after_the_peers_death(
    make_trial: MakeTrial, survivor: str
) -> None:
    trial = make_trial(**QUICK)
    trial.replicate()
    alive, dead = (trial.alpha, trial.beta) if survivor == "alpha" else (trial.beta, trial.alpha)
    trial.kill_daemon(alive)
    dead.die()
    done = run_colod(alive, "rescue")
    assert done.returncode == 0, done.stderr
    trial.until_runs(alive)
    assert not trial.runs(dead)
    alive.start_daemon()
    trial.until_state(alive, "ALONE")
    assert trial.status(alive).owner == survivor


def test_a_rescue_leaves_a_pairing_that_works_as_it_is(trial: Trial) -> None:
    pairing = trial.replicate()
    sessions = [trial.session(host) for host in trial.pair.hosts]
    trial.kill_daemon(trial.alpha)
    done = run_colod(trial.alpha, "rescue", "--limit", "5")
    assert done.returncode == 1, done.stderr
    assert "in a pair with beta" in done.stderr
    trial.until_epochs_go_on(trial.beta)
    assert [trial.session(host) for host in trial.pair.hosts] == sessions
    trial.alpha.start_daemon()
    trial.until_replicating()
    assert trial.status(trial.alpha).pairing == pairing


def fence_confirm(host: SimulatedHost) -> subprocess.CompletedProcess[str]:
    return host.try_ctl("fence-confirm", "g1", "--reason", "pulled the plug")


def test_a_guest_on_shared_disks_waits_for_the_operators_word_that_the_peer_is_off(
    make_trial: MakeTrial,
) -> None:
    fencing = '\n[fencing]\nkind = "manual"\n'
    trial = make_trial(**QUICK, extra=fencing)
    trial.replicate(disks="shared")
    assert fence_confirm(trial.beta).returncode == 4
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    status = trial.status(trial.beta)
    assert "cannot write" in status.cause
    assert not trial.runs(trial.beta)
    assert (status.owner, status.generation) == ("beta", 3)
    confirmed = fence_confirm(trial.beta)
    assert confirmed.returncode == 0, confirmed
    trial.until_state(trial.beta, "ALONE")
    assert trial.runs(trial.beta)
    assert "FENCING" in trial.history(trial.beta)
    assert events(trial.beta, "fence.confirmed")[0]["evidence"].endswith("pulled the plug")


def agents(script: Path, off: int, status: str) -> str:
    """Write a fence agent that notes each action and ends so; return the table that names it."""
    script.write_text(
        "#!/bin/sh\n"
        "while IFS= read -r line; do case $line in action=*) action=${line#action=} ;; esac; done\n"
        f"echo $action >>{script}.log\n"
        f"case $action in off) exit {off} ;; status) {status} ;; esac\n"
    )
    script.chmod(0o755)
    device = f'[[fencing.devices]]\nagent = "{script}"\nattempts = 1\n'
    return f'\n[fencing]\nkind = "agents"\n{device}'


def test_a_guest_on_shared_disks_goes_on_once_an_agent_has_fenced_the_peer(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    script = tmp_path / "fence_test"
    trial = make_trial(**QUICK, extra=agents(script, 0, "echo Status: OFF; exit 2"))
    trial.replicate(disks="shared")
    trial.alpha.die()
    trial.until_state(trial.beta, "ALONE")
    assert trial.runs(trial.beta)
    assert Path(f"{script}.log").read_text().split() == ["off", "status"]
    assert "status: off" in events(trial.beta, "fence.confirmed")[0]["evidence"]


def test_a_failover_switches_no_host_off_that_answers_unless_it_is_told_to(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    script = tmp_path / "fence_test"
    trial = make_trial(**QUICK, extra=agents(script, 0, "echo Status: OFF; exit 2"))
    trial.replicate(disks="shared")
    for argv in (("--yes",), ("--dry-run",)):
        refused = trial.beta.try_ctl("failover", "g1", *argv)
        assert refused.returncode == 4
        assert "alpha would be fenced, with all its guests" in refused.stderr
        assert "colodctl switchover" in refused.stderr
    assert not Path(f"{script}.log").exists()
    assert trial.is_in_step()
    plan = trial.beta.ctl("failover", "g1", "--fence", "--dry-run")
    assert "switch alpha off, with all its guests" in " ".join(plan.split())
    trial.beta.ctl("failover", "g1", "--fence", "--yes")
    assert Path(f"{script}.log").read_text().split() == ["off", "status"]
    trial.until_runs(trial.beta)


def test_a_failover_from_a_silent_host_says_that_it_is_switched_off(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    script, manual = tmp_path / "fence_test", 'takeover = "manual"\n'
    trial = make_trial(**QUICK, extra=manual + agents(script, 0, "echo Status: OFF; exit 2"))
    trial.replicate(disks="shared")
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    plan = trial.beta.ctl("failover", "g1", "--dry-run")
    assert "switch alpha off, with all its guests" in " ".join(plan.split())
    trial.beta.ctl("failover", "g1", "--yes")
    trial.until_runs(trial.beta)


def test_an_agent_that_proves_nothing_leaves_the_guest_held_for_an_operator(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    script = tmp_path / "fence_test"
    trial = make_trial(**QUICK, extra=agents(script, 0, "echo Status: ON"))
    trial.replicate(disks="shared")
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    assert not trial.runs(trial.beta)
    assert fence_confirm(trial.beta).returncode == 0
    trial.until_state(trial.beta, "ALONE")
    assert events(trial.beta, "fence.confirmed")[0]["evidence"].endswith("pulled the plug")


def test_an_agent_that_proves_it_only_later_ends_the_hold_by_itself(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    script, repaired = tmp_path / "fence_test", tmp_path / "repaired"
    status = f"test -e {repaired} && {{ echo Status: OFF; exit 2; }}; exit 1"
    trial = make_trial(**QUICK, extra=agents(script, 0, status))
    trial.replicate(disks="shared")
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    until(lambda: "status ended with 1" in trial.status(trial.beta).cause, "it says why")
    repaired.touch()
    trial.until_state(trial.beta, "ALONE")
    assert trial.runs(trial.beta)
    assert trial.history(trial.beta).count("FENCING") == 1


def test_shared_disks_are_refused_without_fencing(trial: Trial) -> None:
    trial.pair.create_guest()
    argv = ("protect", "g1", "--to", "beta", "--disks", "shared")
    done = trial.alpha.try_ctl(*argv)
    assert done.returncode == 4
    assert "fenc" in done.stderr


def test_with_a_manual_witness_a_person_decides(make_trial: MakeTrial) -> None:
    trial = make_trial(**QUICK, witness='kind = "manual"\ndirectory = "{root}/state"')
    trial.replicate()
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    assert not trial.runs(trial.beta)
    until(lambda: "fence-confirm" in trial.status(trial.beta).advice, "it says how")
    confirmed = fence_confirm(trial.beta)
    assert confirmed.returncode == 0, confirmed
    trial.until_state(trial.beta, "ALONE")
    assert trial.runs(trial.beta)
    assert trial.status(trial.beta).generation == 3
    trial.alpha.start_daemon()
    until(lambda: trial.status(trial.alpha).owner == "beta", "alpha learns of it")
    trial.until_state(trial.alpha, "STOPPED")


def test_with_a_manual_witness_a_lost_process_needs_no_person(make_trial: MakeTrial) -> None:
    trial = make_trial(
        suspect_s=8.0, silence_s=6.0, witness='kind = "manual"\ndirectory = "{root}/state"'
    )
    trial.replicate()
    kill(trial.session(trial.beta))
    trial.until_state(trial.alpha, "ALONE")
    assert trial.status(trial.alpha).generation == 3
    trial.until_state(trial.beta, "STOPPED")
    trial.alpha.ctl("unprotect", "g1")


def test_lines_of_the_log_are_of_colod_only_and_bear_known_names(trial: Trial) -> None:
    trial.replicate()
    trial.alpha.stop_daemon()
    from colod.observe.logs import Event

    lines = [json.loads(line) for line in trial.alpha.log().splitlines()]
    assert {line["event"] for line in lines} <= {str(event) for event in Event}
