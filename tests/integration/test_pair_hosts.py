"""A host dies, comes back, or loses its witness: the guest has one owner, and one running copy."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.etcd_server import EtcdMember, require_etcd, start_cluster
from tests.integration.pair_trial import MakeTrial, Trial
from tests.pair import SimulatedHost, kill, until

QUICK = {"suspect_s": 3.0, "silence_s": 2.0}


@pytest.fixture
def quick(make_trial: MakeTrial) -> Trial:
    """A pair that notices a death soon."""
    return make_trial(**QUICK)


def await_counter(trial: Trial, beyond: int) -> int:
    """Wait until the guest has counted on, and return how far."""
    until(lambda: trial.pair.ask_guest().get("counter", 0) > beyond, "the guest counts on")
    return int(trial.pair.ask_guest(limit_s=30)["counter"])


def promote_with_a_stopped_xl(trial: Trial) -> list[int]:
    """Have beta take over from a dead host, its xl standing still; return who stands still."""
    target = trial.acked() + 5
    until(lambda: trial.acked() >= target, "the present state is acknowledged")
    stopped = [trial.xl(trial.beta), trial.helper(trial.beta, "g1--incoming")]
    for pid in stopped:
        kill(pid, signal.SIGSTOP)
    trial.alpha.die()
    trial.until_state(trial.beta, "PROMOTING")
    return stopped


def test_the_guest_goes_on_at_the_secondary_when_its_host_dies(quick: Trial) -> None:
    quick.replicate()
    before = quick.pair.ask_guest(limit_s=5)
    target = quick.acked() + 5
    until(lambda: quick.acked() >= target, "that state is acknowledged")
    quick.alpha.die()
    quick.until_state(quick.beta, "ALONE")
    after = quick.pair.ask_guest(limit_s=5)
    assert after["boot_id"] == before["boot_id"]
    assert after["counter"] > before["counter"]
    assert after["intact"]
    status = quick.status(quick.beta)
    assert (status.owner, status.generation) == ("beta", 3)
    assert quick.seen(quick.beta) is not None


def test_a_promotion_waits_for_an_xl_that_stands_still_and_loses_nothing(quick: Trial) -> None:
    """Nothing else has the acknowledged state, so nothing else is done than to wait for it."""
    quick.replicate()
    before = quick.pair.ask_guest(limit_s=5)
    stopped = promote_with_a_stopped_xl(quick)
    time.sleep(3)
    assert quick.beta.state() == "PROMOTING"
    assert not quick.runs(quick.beta)
    for pid in stopped:
        kill(pid, signal.SIGCONT)
    quick.until_state(quick.beta, "ALONE")
    assert quick.pair.ask_guest(limit_s=30)["counter"] > before["counter"]


def create_paused_stranger(trial: Trial) -> None:
    """Create a domain of the guest's name on beta, which nobody lets run."""
    config = trial.pair.root / "stranger.cfg"
    config.write_text('name="g1"\nmemory=64\nsim_memory_pages=16\n')
    trial.beta.xl("create", "-p", str(config))


def test_what_may_be_the_last_copy_is_kept_though_the_other_host_answers_again(
    quick: Trial,
) -> None:
    """It came back without its copy: the replica that xl left unfinished is all there is."""
    quick.replicate()
    stopped = promote_with_a_stopped_xl(quick)
    quick.alpha.start_daemon()
    quick.until_state(quick.alpha, "STOPPED")
    for pid in stopped:
        quick.kill(pid)
    quick.until_state(quick.beta, "MANUAL_HOLD")
    time.sleep(3)
    assert quick.seen(quick.beta, "g1--incoming") is not None
    status = quick.status(quick.beta)
    assert (status.owner, status.state) == ("beta", "MANUAL_HOLD")
    assert "bring alpha back" in status.advice


def test_a_takeover_waits_for_its_name_and_nothing_of_that_name_is_run_or_destroyed(
    quick: Trial,
) -> None:
    quick.replicate()
    stopped = promote_with_a_stopped_xl(quick)
    create_paused_stranger(quick)
    stranger = quick.seen(quick.beta)
    for pid in stopped:
        kill(pid, signal.SIGCONT)
    quick.until_state(quick.beta, "MANUAL_HOLD")
    assert quick.status(quick.beta).advice == "look at it, then xl rename g1 g1--aside"
    # One after the other, so soon that the daemon may see no name free in between.
    quick.beta.xl("rename", "g1", "g1--aside")
    quick.beta.xl("rename", "g1--incoming", "g1")
    quick.until_state(quick.beta, "ALONE")
    assert stranger is not None
    aside = quick.seen(quick.beta, "g1--aside")
    assert aside is not None
    assert not aside.running
    runs = quick.seen(quick.beta)
    assert runs is not None
    assert runs.running


def test_a_domain_of_the_guests_name_beside_the_replica_ends_the_pairing(quick: Trial) -> None:
    """The replica could not take over, so the owner does not go on as if it could."""
    quick.replicate()
    create_paused_stranger(quick)
    quick.until_state(quick.alpha, "ALONE")
    quick.until_state(quick.beta, "QUARANTINED")
    until(lambda: quick.seen(quick.beta, "g1--incoming") is None, "the replica is discarded")
    stranger = quick.seen(quick.beta)
    assert stranger is not None
    assert not stranger.running
    quick.until_runs(quick.alpha)
    quick.beta.xl("destroy", "g1")


def test_the_primary_goes_on_alone_when_the_secondary_dies(quick: Trial) -> None:
    quick.replicate()
    before = quick.pair.ask_guest(limit_s=5)
    quick.beta.die()
    quick.until_state(quick.alpha, "ALONE")
    await_counter(quick, before["counter"])
    status = quick.status(quick.alpha)
    assert (status.owner, status.generation) == ("alpha", 3)


def test_a_dead_primary_comes_back_as_secondary_and_is_replicated_to(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(**QUICK, resync="automatic")
    trial.replicate()
    trial.alpha.die()
    trial.until_state(trial.beta, "ALONE")
    counter = trial.pair.ask_guest(limit_s=30)["counter"]
    trial.alpha.start_daemon()
    trial.until_replicating()
    statuses = [trial.status(host) for host in trial.pair.hosts]
    assert [each.owner for each in statuses] == ["beta", "beta"]
    assert [each.generation for each in statuses] == [4, 4]
    assert "STOPPED" in trial.history(trial.alpha)
    await_counter(trial, counter)
    trial.until_runs(trial.beta)


def test_a_replicas_xl_that_hangs_ends_the_pairing_and_not_the_guests_output(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=20.0, silence_s=15.0, extra="\n[session]\nack_timeout_s = 4\n")
    trial.replicate()
    before = trial.pair.ask_guest(limit_s=5)
    for pid in (trial.xl(trial.beta), trial.helper(trial.beta, "g1--incoming")):
        kill(pid, signal.SIGSTOP)
    trial.until_state(trial.alpha, "ALONE")
    until(lambda: "has not acknowledged" in trial.status(trial.alpha).cause, "it says why")
    trial.until_runs(trial.alpha)
    after = trial.pair.ask_guest(limit_s=30)
    assert after["boot_id"] == before["boot_id"]
    until(lambda: not trial.beta.guests(), "what is left at the other host is discarded")


def test_a_primary_that_is_back_before_it_was_missed_gives_the_guest_to_its_replica(
    trial: Trial,
) -> None:
    """Its guest did not end by its own will, though nothing else is wrong any more."""
    trial.replicate()
    before = trial.pair.ask_guest(limit_s=5)
    target = trial.acked() + 5
    until(lambda: trial.acked() >= target, "that state is acknowledged")
    trial.alpha.die()
    trial.alpha.start_daemon()
    trial.until_state(trial.beta, "ALONE")
    until(lambda: trial.runs(trial.beta), "the guest runs at the other host")
    after = trial.pair.ask_guest(limit_s=30)
    assert after["boot_id"] == before["boot_id"]
    assert after["counter"] > before["counter"]
    assert trial.status(trial.alpha).owner == "beta"


def test_a_copy_that_a_cut_off_primary_still_has_is_not_run_again(quick: Trial) -> None:
    """Daemon and session of the primary die and stay away; the domain itself is left paused."""
    quick.replicate()
    sessions = quick.alpha.session_pids()
    quick.alpha.xl("pause", "g1")
    quick.kill_daemon(quick.alpha)
    for pid in [*sessions, quick.xl(quick.alpha)]:
        quick.kill(pid)
    quick.until_state(quick.beta, "ALONE")
    assert quick.seen(quick.alpha) is not None
    quick.alpha.start_daemon()
    until(lambda: quick.seen(quick.alpha) is None, "the old copy is destroyed")
    quick.until_state(quick.alpha, "STOPPED")
    assert quick.runs(quick.beta)


def test_a_copy_that_lost_ownership_is_kept_aside_where_the_policy_says_so(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(**QUICK, extra='quarantine = "keep"\n')
    trial.replicate()
    xl = trial.xl(trial.alpha)
    trial.alpha.xl("pause", "g1")
    trial.kill_daemon(trial.alpha)
    for pid in [*trial.alpha.session_pids(), xl]:
        trial.kill(pid)
    trial.until_state(trial.beta, "ALONE")
    trial.alpha.start_daemon()
    aside = "g1--quarantine-3"
    until(lambda: trial.seen(trial.alpha, aside), "the copy is put aside")
    trial.until_state(trial.alpha, "STOPPED")
    seen = trial.seen(trial.alpha, aside)
    assert seen is not None
    assert not seen.running
    assert seen.pauses >= 1


def assert_holds(trial: Trial, host: SimulatedHost) -> None:
    trial.until_state(host, "MANUAL_HOLD")
    assert not trial.runs(host)
    status = trial.status(host)
    assert "witness" in status.cause
    assert status.advice


@pytest.mark.parametrize("survivor", ["alpha", "beta"])
def test_a_lost_peer_and_a_lost_witness_leave_the_guest_paused_until_the_witness_answers(
    quick: Trial, survivor: str
) -> None:
    quick.replicate()
    alive, dead = (quick.alpha, quick.beta) if survivor == "alpha" else (quick.beta, quick.alpha)
    with quick.witness_away():
        dead.die()
        assert_holds(quick, alive)
    quick.until_state(alive, "ALONE")
    quick.until_runs(alive)
    assert quick.status(alive).generation == 3


def test_nothing_changes_when_only_the_witness_is_lost(trial: Trial) -> None:
    pairing = trial.replicate()
    with trial.witness_away():
        asked = lambda: trial.status(trial.alpha).witness == "does not answer"  # noqa: E731
        until(asked, "the primary has noticed")
        trial.until_epochs_go_on()
        assert trial.is_in_step()
    until(lambda: trial.status(trial.alpha).witness == "answers", "it answers again")
    assert trial.status(trial.alpha).pairing == pairing
    assert trial.status(trial.alpha).generation == 2


def test_ownership_is_settled_by_a_real_etcd(make_trial: MakeTrial) -> None:
    require_etcd()
    trial_root = make_trial.root
    (member,) = start_cluster(trial_root, 1)
    try:
        _fail_over_by_etcd(make_trial, member)
    finally:
        member.stop()


def _fail_over_by_etcd(make_trial: MakeTrial, member: EtcdMember) -> None:
    witness = f'kind = "etcd"\nendpoints = ["{member.url}"]\ntimeout_s = 1.0'
    trial = make_trial(**QUICK, witness=witness, resync="automatic")
    trial.replicate()
    member.freeze()
    try:
        trial.until_epochs_go_on()
        trial.alpha.die()
        assert_holds(trial, trial.beta)
    finally:
        member.thaw()
    trial.until_state(trial.beta, "ALONE")
    trial.alpha.start_daemon()
    trial.until_replicating()
    assert trial.status(trial.alpha).owner == "beta"


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_host_that_stood_still_learns_that_it_lost_and_runs_nothing(
    quick: Trial, name: str
) -> None:
    """Its daemon and session are stopped for longer than the limit, then go on where they were."""
    quick.replicate()
    still, other = (quick.alpha, quick.beta) if name == "alpha" else (quick.beta, quick.alpha)
    assert still.daemon is not None
    stopped = [still.daemon.pid, quick.session(still)]
    for pid in stopped:
        kill(pid, signal.SIGSTOP)
    quick.until_state(other, "ALONE")
    quick.until_runs(other)
    for pid in stopped:
        kill(pid, signal.SIGCONT)
    quick.until_state(still, "STOPPED")
    until(lambda: not still.guests(), "its copy is gone")
    assert quick.runs(other)
    assert quick.status(still).owner == other.name
