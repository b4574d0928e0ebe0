"""Two real sessions between a simulated `xl remus` and `xl migrate-receive`."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.session_pair import GENERATION, SESSION, Daemon, Pair, State
from tests.integration.simxen_hosts import LIMIT_S, until


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    found = Pair(tmp_path)
    try:
        yield found
    finally:
        found.end()
        print(found.logs())


@pytest.fixture
def replicating(pair: Pair) -> Pair:
    pair.start_sender()
    pair.sending.wait_acked(3)
    pair.receiving.wait_acked(3)
    return pair


def copies_running(pair: Pair) -> int:
    """Count on how many hosts the guest's vCPU may run now, as the hypervisors have it."""
    guests = [*pair.primary.guests().values(), *pair.secondary.guests().values()]
    return sum(bool(guest["running"]) for guest in guests)


def assert_copy_is_paused(pair: Pair, name: str = "g1--incoming", pauses: int = 2) -> None:
    copy = pair.secondary.guest(name)
    assert copy is not None
    assert copy["pauses"] == pauses
    assert not copy["running"]
    assert not copy["has_run"]


def wait_taken_over(pair: Pair) -> None:
    """Wait until xl has renamed the copy and dropped its own pause reference."""
    until(lambda: (pair.secondary.guest("g1") or {}).get("pauses") == 1, "xl lets the copy go")


def epochs_applied(pair: Pair) -> int:
    """Count the checkpoints that xl has applied; of the first one libxc says nothing."""
    return 1 + pair.logs().count("All records processed")


def resumed(pair: Pair) -> bool:
    return until(pair.primary.runs, "the guest runs on")


def test_acknowledged_epochs_grow_and_the_copy_has_two_pause_references(replicating: Pair) -> None:
    first = replicating.sending.newest()
    assert first.state == State.SESSION_STATE_REPLICATING
    later = replicating.sending.wait_acked(first.progress.acked_epoch + 5)
    assert later.peer_connected
    assert later.peer_daemon_up
    assert later.toolstack_pid == replicating.primary.roles()["xl remus"]
    assert 0 <= later.progress.lag_s < LIMIT_S
    assert later.progress.domain_pages == 64 << 8
    assert later.progress.first_copy_pages >= 128
    receiving = replicating.receiving.newest()
    assert receiving.second_pause
    assert not receiving.handed_over
    assert_copy_is_paused(replicating)
    until(replicating.primary.runs, "the guest runs between its checkpoints")


def test_the_unix_transport_carries_a_guest_too(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    options = {"directory": str(tmp_path / "t")}
    pair = Pair(tmp_path, transport={"kind": "unix", "options": options})
    try:
        pair.start_sender()
        pair.sending.wait_acked(3)
    finally:
        pair.end()


def test_the_death_of_both_daemons_stops_nothing(replicating: Pair) -> None:
    before = replicating.sending.newest().progress.acked_epoch
    replicating.sending.close()
    replicating.receiving.close()
    replicating.sending = Daemon(replicating.send_dir)
    replicating.receiving = Daemon(replicating.receive_dir)
    assert replicating.sending.wait_acked(before + 3).state == State.SESSION_STATE_REPLICATING


def test_a_session_tells_its_peer_when_its_daemon_is_away(replicating: Pair) -> None:
    assert replicating.sending.wait(lambda s: s.peer_daemon_up, "the daemon there is up")
    replicating.receiving.close()
    away = replicating.sending.wait(lambda s: not s.peer_daemon_up, "the daemon there is away")
    assert away.state == State.SESSION_STATE_REPLICATING
    replicating.receiving = Daemon(replicating.receive_dir)
    replicating.sending.wait(lambda s: s.peer_daemon_up, "the daemon there is back")


def test_a_command_of_an_older_generation_is_refused(replicating: Pair) -> None:
    for daemon in (replicating.sending, replicating.receiving):
        answer = daemon.command(generation=GENERATION - 1, release={"reason": "too late"})
        assert "older" in answer.command_error
    before = replicating.sending.newest().progress.acked_epoch
    replicating.sending.wait_acked(before + 2)


def test_a_hand_over_is_nothing_for_the_sender(replicating: Pair) -> None:
    assert replicating.sending.hand_over().command_error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_polite_signal_ends_no_session(replicating: Pair, number: signal.Signals) -> None:
    for daemon in (replicating.sending, replicating.receiving):
        os.kill(daemon.newest().pid, number)
    before = replicating.sending.newest().progress.acked_epoch
    replicating.sending.wait_acked(before + 3)
    assert f"signal={number.name}" in replicating.logs()


def test_released_sender_lets_xl_resume_the_guest_and_tells_the_peer(replicating: Pair) -> None:
    replicating.sending.release()
    assert replicating.remus.wait(LIMIT_S) == 1
    assert resumed(replicating)
    there = replicating.receiving.wait_state(State.SESSION_STATE_PEER_LOST)
    assert there.error_code == "peer.released"
    assert_copy_is_paused(replicating)
    assert "resuming domain at primary" in replicating.logs()


def test_handed_over_copy_has_its_name_and_stays_paused(replicating: Pair) -> None:
    answer = replicating.receiving.hand_over()
    assert answer.command_error == ""
    done = replicating.receiving.wait(lambda s: s.handed_over, "xl lets the copy go")
    assert done.toolstack_pid == 0
    assert done.error_code == "session.handed_over"
    assert_copy_is_paused(replicating, "g1", pauses=1)
    here = replicating.sending.wait_state(State.SESSION_STATE_PEER_LOST)
    assert here.error_code == "peer.handed_over"
    assert here.toolstack_pid, "xl remus waits for the daemon here"
    replicating.receiving.release()
    assert replicating.receiver.wait(LIMIT_S) == 0
    assert_copy_is_paused(replicating, "g1", pauses=1)
    replicating.secondary.xl("unpause", "g1")
    assert replicating.secondary.runs()


# -- one process after the other is killed


def test_killed_receiver_leaves_xl_the_whole_acknowledged_epoch_and_a_paused_copy(
    replicating: Pair,
) -> None:
    # xl is stopped, so that what is acknowledged from here on lies in its pipe only.
    roles = replicating.secondary.roles()
    xl = (roles["xl migrate-receive"], roles["save-helper 1"])
    for pid in xl:
        os.kill(pid, signal.SIGSTOP)
    applied = epochs_applied(replicating)
    acked = _last_ack(replicating)
    assert acked > applied, "nothing was acknowledged that xl has not applied"
    replicating.receiver.kill()
    replicating.receiver.wait(LIMIT_S)
    for pid in xl:
        os.kill(pid, signal.SIGCONT)
    wait_taken_over(replicating)
    assert_copy_is_paused(replicating, "g1", pauses=1)
    assert epochs_applied(replicating) == acked
    here = replicating.sending.wait_state(State.SESSION_STATE_PEER_LOST)
    assert here.error_code == "peer.unreachable"
    assert here.toolstack_pid, "the sender keeps xl, and with it the guest, as they are"


def _last_ack(pair: Pair) -> int:
    """Return the newest acknowledged epoch once none comes any more."""
    last, same = -1, 0
    while same < 6:
        now = pair.sending.next().progress.acked_epoch
        same = same + 1 if now == last else 0
        last = now
    return last


def test_killed_sender_lets_xl_resume_the_guest_while_the_copy_stays_paused(
    replicating: Pair,
) -> None:
    os.kill(replicating.sending.newest().pid, signal.SIGKILL)
    assert replicating.remus.wait(LIMIT_S) == 1
    there = replicating.receiving.wait_state(State.SESSION_STATE_PEER_LOST)
    assert there.error_code == "peer.unreachable"
    assert resumed(replicating)
    assert_copy_is_paused(replicating)
    assert copies_running(replicating) == 1


def test_killed_xl_remus_is_told_apart_from_a_dead_host(replicating: Pair) -> None:
    replicating.remus.kill()
    replicating.remus.wait(LIMIT_S)
    here = replicating.sending.wait_state(State.SESSION_STATE_TOOLSTACK_LOST)
    there = replicating.receiving.wait_state(State.SESSION_STATE_PEER_LOST)
    assert there.error_code == "peer.toolstack_lost"
    assert here.error_code == "toolstack.lost"
    here = replicating.sending.wait(lambda s: not s.toolstack_pid, "xl's end is seen")
    assert there.progress.acked_epoch == here.progress.acked_epoch
    assert_copy_is_paused(replicating)
    assert replicating.sending.release().command_error == ""


def test_killed_xl_migrate_receive_is_a_lost_replica_on_both_sides(replicating: Pair) -> None:
    os.kill(replicating.receiving.newest().toolstack_pid, signal.SIGKILL)
    there = replicating.receiving.wait_state(State.SESSION_STATE_TOOLSTACK_LOST)
    assert there.toolstack_pid == 0
    here = replicating.sending.wait_state(State.SESSION_STATE_FAILED)
    assert here.error_code == "peer.replica_lost"
    assert here.toolstack_pid
    assert replicating.receiving.hand_over().command_error
    assert copies_running(replicating) <= 1
    assert_copy_is_paused(replicating)


def test_killed_receiver_and_its_xl_start_no_copy(replicating: Pair) -> None:
    status = replicating.receiving.newest()
    os.kill(status.pid, signal.SIGSTOP)
    os.kill(status.toolstack_pid, signal.SIGKILL)
    os.kill(status.pid, signal.SIGKILL)
    replicating.receiver.wait(LIMIT_S)
    replicating.sending.wait_state(State.SESSION_STATE_PEER_LOST)
    assert_copy_is_paused(replicating)


def test_a_silent_receiver_is_lost_and_the_guest_stays_stopped_until_the_daemon_decides(
    tmp_path: Path,
) -> None:
    pair = Pair(tmp_path)
    pair.changes |= {"silence_s": 1.0}
    try:
        pair.start_sender()
        pair.sending.wait_acked(3)
        os.kill(pair.receiver.pid, signal.SIGSTOP)
        here = pair.sending.wait_state(State.SESSION_STATE_PEER_LOST)
        assert here.error_code == "peer.silent"
        until(lambda: not (pair.primary.guest("g1") or {})["running"], "the guest is stopped")
        assert pair.remus.poll() is None
        pair.sending.release()
        assert pair.remus.wait(LIMIT_S) == 1
        assert resumed(pair)
    finally:
        os.kill(pair.receiver.pid, signal.SIGCONT)
        pair.end()


def test_released_receiver_leaves_a_copy_that_does_not_run(replicating: Pair) -> None:
    replicating.receiving.release()
    assert replicating.receiver.wait(LIMIT_S) == 0
    here = replicating.sending.wait_state(State.SESSION_STATE_PEER_LOST)
    assert here.error_code == "peer.released"
    wait_taken_over(replicating)
    assert_copy_is_paused(replicating, "g1", pauses=1)


def test_a_destroyed_guest_is_told_apart_from_a_dead_host(replicating: Pair) -> None:
    replicating.primary.xl("destroy", "g1")
    there = replicating.receiving.wait_state(State.SESSION_STATE_PEER_LOST)
    assert there.error_code in ("peer.toolstack_lost", "peer.stream")
    assert_copy_is_paused(replicating)


def test_a_second_session_in_one_directory_is_refused(replicating: Pair) -> None:
    command = [SESSION, "receive", "--spec", str(replicating.receive_dir / "spec.json")]
    done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    before = replicating.sending.newest().progress.acked_epoch
    replicating.sending.wait_acked(before + 2)
