"""What operators ask of a pair, and what they do to a guest behind colod's back."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from colod.errors import PreflightRefused
from colod.v1 import admin_pb2
from tests.integration.pair_trial import MakeTrial, Trial
from tests.pair import BIN, LIMIT_S, kill, until


def test_a_guest_that_is_not_protected_any_more_goes_on_and_its_replica_is_gone(
    trial: Trial,
) -> None:
    trial.replicate()
    trial.alpha.ctl("unprotect", "g1")
    until(lambda: not trial.status(trial.beta).guest, "beta has forgotten it")
    assert not trial.status(trial.alpha).guest
    assert trial.runs(trial.alpha)
    assert not trial.beta.guests()
    trial.pair.protect()
    trial.until_replicating()


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_drained_host_has_no_pairing_and_the_guest_goes_on_alone(trial: Trial, name: str) -> None:
    trial.replicate()
    host = trial.alpha if name == "alpha" else trial.beta
    assert json.loads(host.ctl("drain", "--json"))["ended"] == ["g1"]
    trial.until_state(trial.alpha, "ALONE", "SUSPENDED")
    until(lambda: not trial.beta.guests(), "the replica is given up")
    trial.until_runs(trial.alpha)
    until(lambda: not any(each.session_pids() for each in trial.pair.hosts), "no session is left")


def test_a_suspended_guest_is_not_paired_again_until_it_is_resumed(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.replicate()
    refused = trial.beta.try_ctl("suspend", "g1")
    assert refused.returncode == 4
    assert "run it on alpha" in refused.stderr
    trial.alpha.ctl("suspend", "g1")
    trial.until_state(trial.alpha, "SUSPENDED")
    until(lambda: trial.seen(trial.beta, "g1--incoming") is None, "the replica is gone")
    trial.kill_daemon(trial.alpha)
    trial.alpha.start_daemon()
    time.sleep(3)
    assert trial.state(trial.alpha) == "SUSPENDED"
    assert trial.runs(trial.alpha)
    resumed = json.loads(trial.alpha.ctl("resume", "g1", "--json"))
    assert resumed["status"]["state"] == "REPLICATING"
    assert resumed["status"]["owner"] == "alpha"


def test_resume_pairs_where_only_an_operator_may(trial: Trial) -> None:
    """With `policy.resync` manual; a drained host says why it cannot."""
    trial.replicate()
    trial.kill(trial.session(trial.beta))
    trial.until_state(trial.alpha, "ALONE")
    time.sleep(2)
    assert trial.state(trial.alpha) == "ALONE"
    trial.alpha.ctl("resume", "g1")
    assert trial.state(trial.alpha) == "REPLICATING"
    trial.alpha.ctl("drain")
    refused = trial.alpha.try_ctl("resume", "g1")
    assert refused.returncode == 4
    assert "systemctl restart colod" in refused.stderr


def test_events_are_followed_over_a_restart_of_the_daemon(trial: Trial) -> None:
    """Whatever the daemon recorded is told, and once."""
    trial.replicate()
    told = trial.pair.root / "events"
    argv = [str(BIN / "colodctl"), "--config", str(trial.alpha.config), "events", "g1"]

    def changes() -> list[str]:
        events = [json.loads(line) for line in told.read_text().splitlines()]
        return [each["change"]["to_state"] for each in events if each["change"]]

    with told.open("w") as file:
        process = subprocess.Popen([*argv, "--follow", "--json"], stdout=file)
    try:
        until(lambda: "REPLICATING" in changes(), "the past is told")
        trial.kill_daemon(trial.alpha)
        trial.alpha.start_daemon()
        trial.alpha.ctl("suspend", "g1")
        until(lambda: "SUSPENDED" in changes(), "what happens then is told")
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(LIMIT_S)
    assert status == 130
    with trial.alpha.admin() as client:
        recorded = [entry.to_state for entry in client.history("g1", 0).entries]
    assert changes() == recorded
    assert [line for line in told.read_text().splitlines() if '"daemon_reachable": true' in line]


def test_an_operator_moves_the_guest_to_the_secondary(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.replicate()
    refused = trial.alpha.try_ctl("failover", "g1", "--yes")
    assert refused.returncode == 4
    assert "primary" in refused.stderr
    counter = trial.pair.ask_guest(limit_s=30)["counter"]
    plan = trial.beta.ctl("failover", "g1", "--dry-run")
    assert "ownership" in plan
    assert trial.is_in_step()
    done = json.loads(trial.beta.ctl("failover", "g1", "--yes", "--json"))
    assert done["generation"] == 3
    assert trial.pair.ask_guest(limit_s=30)["counter"] >= counter
    trial.until_replicating()
    assert trial.status(trial.alpha).owner == "beta"
    trial.until_runs(trial.beta)
    assert not trial.runs(trial.alpha)


def test_only_an_operator_has_a_host_take_over_where_the_policy_says_so(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=3.0, silence_s=2.0, extra='takeover = "manual"\n')
    trial.replicate()
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    time.sleep(3)
    status = trial.status(trial.beta)
    assert (status.state, status.owner) == ("MANUAL_HOLD", "alpha")
    assert status.cause == "alpha is lost, and policy.takeover is manual"
    assert not trial.runs(trial.beta)
    trial.beta.ctl("failover", "g1", "--yes")
    assert trial.status(trial.beta).owner == "beta"
    trial.until_runs(trial.beta)


def test_while_automation_is_paused_only_an_operator_has_a_host_take_over(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=3.0, silence_s=2.0, resync="automatic")
    trial.replicate()
    assert trial.alpha.ctl("pause", "--reason", "new switch") == (
        "automation is paused on both hosts\n"
    )
    until(lambda: "not paused" not in trial.beta.try_ctl("doctor").stdout, "beta has heard of it")
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    assert trial.status(trial.beta).cause == "alpha is lost, and automation is paused"
    trial.kill_daemon(trial.beta)
    trial.beta.start_daemon()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    time.sleep(3)
    assert (trial.status(trial.beta).state, trial.runs(trial.beta)) == ("MANUAL_HOLD", False)
    left = trial.beta.try_ctl("unpause")
    assert left.returncode == 1
    assert "alpha" in left.stderr
    trial.until_runs(trial.beta)
    assert trial.status(trial.beta).owner == "beta"


def test_while_automation_is_paused_a_guest_runs_on_alone_and_is_paired_when_asked(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.replicate()
    trial.beta.ctl("pause", "--reason", "new switch")
    trial.kill(trial.session(trial.beta))
    trial.until_state(trial.alpha, "ALONE")
    until(lambda: "colodctl unpause" in trial.status(trial.alpha).advice, "it says why")
    time.sleep(3)
    assert trial.state(trial.alpha) == "ALONE"
    assert trial.runs(trial.alpha)
    trial.alpha.ctl("resume", "g1")
    until(trial.is_in_step, "both hosts are in step")


def test_a_host_gives_its_guests_away_before_it_is_drained(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, hold="automatic")
    trial.replicate()
    drained = json.loads(trial.alpha.ctl("drain", "--switch-over", "--json"))
    assert drained["given_away"] == ["g1"]
    again = json.loads(trial.alpha.ctl("drain", "--switch-over", "--json"))
    assert again["given_away"] == [], "the other host has it already"
    trial.until_state(trial.beta, "ALONE", "SUSPENDED")
    assert trial.runs(trial.beta)
    until(lambda: not trial.alpha.guests(), "nothing is left at alpha")
    until(lambda: not any(each.session_pids() for each in trial.pair.hosts), "no session is left")


def test_no_pairing_is_ended_where_a_guest_cannot_be_given_away(trial: Trial) -> None:
    pairing = trial.replicate()  # its output is not held, so no checkpoint would be its last
    kept = trial.alpha.try_ctl("drain", "--switch-over")
    assert kept.returncode == 4
    assert "output of g1 is not held" in kept.stderr
    assert "no pairing was ended" in kept.stderr
    assert kept.stderr.count("(state REPLICATING)") == 1
    trial.until_epochs_go_on()
    assert trial.status(trial.alpha).pairing == pairing


def test_a_drained_host_keeps_what_may_be_the_last_copy_and_says_so(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=3.0, silence_s=2.0, extra='takeover = "manual"\n')
    trial.replicate()
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    drained = trial.beta.try_ctl("drain")
    assert drained.returncode == 4
    assert "may be all that is left" in drained.stderr
    assert "do not stop this host" in drained.stderr
    trial.beta.ctl("failover", "g1", "--yes")
    trial.until_runs(trial.beta)


def test_a_reason_that_no_record_can_hold_is_refused(trial: Trial) -> None:
    trial.replicate()
    for reason in (" ", "x" * 1001):
        refused = trial.beta.try_ctl("failover", "g1", "--yes", "--force-reason", reason)
        assert refused.returncode == 2
        request = admin_pb2.FailoverRequest(guest="g1", force_reason=reason)
        with trial.beta.admin() as client, pytest.raises(PreflightRefused, match="reason: "):
            client.failover(request)
    assert trial.status(trial.beta).owner == "alpha"


def test_a_failover_that_the_record_does_not_allow_needs_a_reason(make_trial: MakeTrial) -> None:
    """The primary died before it could write PAIRED."""
    trial = make_trial(suspect_s=3.0, silence_s=2.0)
    trial.pair.create_guest()
    trial.alpha.ctl("protect", "g1", "--to", "beta", "--disks", "none", "--no-wait")
    witness = trial.pair.root / "witness"
    until(lambda: trial.status(trial.beta).pairing, "the pairing has begun, by the record")
    away = witness.with_name("elsewhere")
    witness.rename(away)
    until(lambda: trial.status(trial.beta).progress.acked_epoch >= 3, "the replica follows")
    trial.alpha.die()
    away.rename(witness)
    trial.until_state(trial.beta, "MANUAL_HOLD")
    command = ("failover", "g1", "--yes")
    refused = trial.beta.try_ctl(*command)
    assert refused.returncode == 4
    assert "--force-reason" in refused.stderr
    assert not trial.runs(trial.beta)
    trial.beta.ctl(*command, "--force-reason", "alpha burnt down")
    trial.until_state(trial.beta, "ALONE")
    assert trial.runs(trial.beta)


def test_a_guest_that_powers_off_is_not_failed_over(make_trial: MakeTrial) -> None:
    """Its own xl, which would destroy its domain, is gone since the first checkpoint."""
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.replicate()
    trial.pair.ask_guest("poweroff", limit_s=5)
    trial.until_state(trial.alpha, "GUEST_SHUTDOWN")
    trial.until_state(trial.beta, "STOPPED")
    until(lambda: not any(host.guests() for host in trial.pair.hosts), "no copy is left")
    trial.pair.create_guest()
    trial.until_replicating()


def test_a_guest_that_an_operator_destroys_is_not_failed_over(trial: Trial) -> None:
    trial.replicate()
    trial.alpha.xl("destroy", "g1")
    trial.until_state(trial.alpha, "GUEST_SHUTDOWN")
    until(lambda: not trial.beta.guests(), "the replica is given up")
    assert trial.status(trial.alpha).owner == "alpha"


def test_a_guest_that_reboots_is_paired_anew(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    pairing = trial.replicate()
    before = trial.pair.ask_guest("reboot", limit_s=5)
    until(
        lambda: trial.status(trial.alpha).pairing not in ("", pairing),
        "a new pairing has begun",
    )
    trial.until_replicating()
    after = trial.pair.ask_guest(limit_s=5)
    assert after["boot_id"] != before["boot_id"]
    assert trial.status(trial.alpha).owner == "alpha"


def test_a_guest_that_reboots_without_its_configuration_stays_down_and_colod_says_why(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.replicate()
    config = trial.pair.root / "g1.cfg"
    text = config.read_text()
    config.unlink()
    trial.pair.ask_guest("reboot", limit_s=5)
    until(lambda: "g1.cfg" in trial.status(trial.alpha).cause, "status names the file")
    assert trial.status(trial.alpha).state == "GUEST_SHUTDOWN"
    assert list(trial.alpha.guests()) == ["g1"]
    config.write_text(text)
    trial.until_replicating()


def test_a_guest_that_is_not_to_reboot_is_cleared_away(make_trial: MakeTrial) -> None:
    """An installer's guest: libxl's JSON says nothing where it says `destroy`."""
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.replicate(on_reboot="destroy")
    trial.pair.ask_guest("reboot", limit_s=5)
    until(lambda: not any(host.guests() for host in trial.pair.hosts), "no copy is left")
    assert trial.status(trial.alpha).state == "GUEST_SHUTDOWN"


def test_what_its_configuration_wants_preserved_is_left_as_it_is(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.replicate(on_poweroff="preserve")
    trial.pair.ask_guest("poweroff", limit_s=5)
    until(lambda: "preserve" in trial.status(trial.alpha).cause, "status says what is wanted")
    assert list(trial.alpha.guests()) == ["g1"]
    assert "xl destroy g1" in trial.status(trial.alpha).advice


def made_anew_without_daemon(trial: Trial) -> None:
    """Kill alpha's daemon, create the guest anew as xl or a person may, and see it paused."""
    first = trial.seen(trial.alpha)
    assert first is not None
    trial.kill_daemon(trial.alpha)
    trial.alpha.xl("destroy", "g1")
    trial.pair.create_guest()

    def is_held() -> bool:
        seen = trial.seen(trial.alpha)
        return seen is not None and seen.domid != first.domid and not seen.running

    until(is_held, "the new domain is paused")


def test_a_guest_that_is_made_anew_without_its_daemon_is_held_until_one_decides(
    make_trial: MakeTrial,
) -> None:
    """The new domain has interfaces that no gate holds, and the other host may take over."""
    trial = make_trial(suspect_s=8.0, silence_s=6.0)
    trial.replicate()
    before = trial.pair.ask_guest(limit_s=5)
    made_anew_without_daemon(trial)
    trial.until_state(trial.beta, "ALONE")
    assert not trial.runs(trial.alpha)
    assert trial.pair.ask_guest(limit_s=30)["boot_id"] == before["boot_id"]
    trial.alpha.start_daemon()
    until(lambda: not trial.alpha.guests(), "the copy that lost is destroyed")
    trial.until_runs(trial.beta)


def test_a_guest_that_is_held_so_runs_once_a_daemon_has_settled_that_it_owns_the_guest(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=60.0, silence_s=40.0, resync="automatic")
    pairing = trial.replicate()
    before = trial.pair.ask_guest(limit_s=5)
    made_anew_without_daemon(trial)
    trial.alpha.start_daemon()
    trial.until_runs(trial.alpha)
    until(
        lambda: trial.status(trial.alpha).pairing not in ("", pairing),
        "a new pairing has begun",
    )
    trial.until_replicating()
    assert trial.pair.ask_guest(limit_s=5)["boot_id"] != before["boot_id"]


@pytest.mark.parametrize(("request_", "runs"), [("reboot", True), ("poweroff", False)])
def test_after_a_takeover_the_new_host_deals_with_the_guests_end(
    make_trial: MakeTrial, request_: str, *, runs: bool
) -> None:
    trial = make_trial(suspect_s=3.0, silence_s=2.0)
    trial.replicate()
    trial.alpha.die()
    trial.until_state(trial.beta, "ALONE")
    first = trial.seen(trial.beta)
    assert first is not None
    trial.pair.ask_guest(request_, limit_s=5)
    if not runs:
        trial.until_state(trial.beta, "GUEST_SHUTDOWN")
        return

    def is_anew() -> bool:
        seen = trial.seen(trial.beta)
        return seen is not None and seen.running and seen.domid != first.domid

    until(is_anew, "the guest was rebooted")
    trial.until_state(trial.beta, "ALONE")


def refusal(trial: Trial, *options: str) -> str:
    """Return why `protect` is refused; check that nothing was begun."""
    argv = ("protect", "g1", "--to", "beta", "--disks", "none", *options)
    done = trial.alpha.try_ctl(*argv)
    assert done.returncode == 4, done
    assert not trial.status(trial.alpha).guest
    assert not trial.status(trial.beta).guest
    assert not trial.beta.guests()
    return done.stderr


def test_what_cannot_be_protected_is_refused_with_every_reason(trial: Trial) -> None:
    trial.pair.create_guest(pci=["0000:03:00.0"], disk=["/dev/none,raw,xvda"])
    (trial.beta.root / "xen" / "xl.conf").write_text('autoballoon="on"\n')
    said = refusal(trial)
    assert "pass" in said
    assert "disk" in said
    assert "autoballoon" in said


def test_a_guest_is_not_protected_while_the_peers_daemon_is_away(trial: Trial) -> None:
    trial.pair.create_guest()
    trial.kill_daemon(trial.beta)
    argv = ("protect", "g1", "--to", "beta", "--disks", "none")
    done = trial.alpha.try_ctl(*argv)
    assert done.returncode not in (0, 2)
    assert "beta" in done.stderr
    assert not trial.status(trial.alpha).guest
    assert trial.runs(trial.alpha)
    trial.beta.start_daemon()
    until(
        lambda: trial.alpha.try_ctl(*argv).returncode == 0,
        "it can be protected now",
    )


@pytest.mark.parametrize("victim", ["receiver", "sender"])
def test_a_first_copy_that_breaks_is_begun_anew(make_trial: MakeTrial, victim: str) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, resync="automatic")
    trial.pair.create_guest(sim_memory_pages=16384)
    argv = ("protect", "g1", "--to", "beta", "--disks", "none", "--no-wait")
    trial.alpha.ctl(*argv)
    host = trial.beta if victim == "receiver" else trial.alpha
    until(lambda: (host.session_pids() or [0])[0], "its session is there")
    kill(host.session_pids()[0])
    trial.until_replicating()
    trial.until_runs(trial.alpha)


def test_two_guests_are_replicated_in_opposite_directions(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=6.0, silence_s=4.0)  # four sessions on one machine
    trial.replicate("g1")
    trial.replicate_back("g2")
    kill(trial.session(trial.alpha, "g2"))
    trial.until_state(trial.beta, "ALONE", guest="g2")
    trial.until_epochs_go_on(trial.alpha, "g1")
    trial.beta.ctl("protect", "g2", "--to", "alpha", "--disks", "none")
    trial.alpha.die()
    trial.until_state(trial.beta, "ALONE", guest="g1")
    trial.until_state(trial.beta, "ALONE", guest="g2")
    for guest in ("g1", "g2"):
        trial.until_runs(trial.beta, guest)


def test_a_signal_to_a_session_is_no_reason_to_end(trial: Trial) -> None:
    pairing = trial.replicate()
    for host in trial.pair.hosts:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            kill(trial.session(host), number)
    trial.until_epochs_go_on()
    assert trial.status(trial.alpha).pairing == pairing


def test_a_guest_that_was_renamed_is_not_taken_for_gone(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=8.0, silence_s=6.0, hold="automatic")
    trial.replicate()
    trial.alpha.xl("rename", "g1", "other")
    until(lambda: "xl rename other g1" in trial.status(trial.alpha).cause, "it says what to do")
    until(lambda: not trial.status(trial.alpha).output_held, "nothing old is claimed")
    epoch = trial.status(trial.alpha).progress.acked_epoch
    until(lambda: trial.status(trial.alpha).progress.acked_epoch > epoch + 2, "epochs go on")
    trial.alpha.xl("rename", "other", "g1")
    trial.until_state(trial.alpha, "PROTECTED")
    until(lambda: not trial.status(trial.alpha).cause, "all is well")


def test_the_other_host_takes_over_from_one_whose_guest_was_renamed(make_trial: MakeTrial) -> None:
    trial = make_trial(suspect_s=3.0, silence_s=2.0)
    trial.replicate()
    trial.alpha.xl("rename", "g1", "other")
    until(lambda: "xl rename other g1" in trial.status(trial.alpha).cause, "it was noticed")
    trial.alpha.die()
    trial.until_state(trial.beta, "ALONE")
    trial.until_runs(trial.beta)


def test_an_order_that_must_wait_is_not_refused_and_is_shown_until_it_is_done(trial: Trial) -> None:
    trial.replicate()
    with trial.witness_away():
        ordered = trial.alpha.try_ctl("suspend", "g1")
        assert ordered.returncode == 5, "it may still be carried out"
        assert "is still paired" in ordered.stderr
        assert "colodctl suspend was ordered" in trial.status(trial.alpha).cause
    trial.until_state(trial.alpha, "SUSPENDED")
    until(lambda: trial.seen(trial.beta, "g1--incoming") is None, "the replica is given up")
