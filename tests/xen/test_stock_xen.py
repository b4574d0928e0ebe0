"""What stock Xen really does: the ground truth of the simulated Xen and of colod's rules."""

import pytest

from tests.xen.guest import CONFIG, NAME, REPLICA
from tests.xen.host import Domain
from tests.xen.lab import Lab
from tests.xen.stock import (
    HELPER,
    RECEIVER,
    SENDER,
    TRANSPORT,
    hold_replica,
    replicate,
    signal_process,
    wait_for,
    wait_for_domain,
    whole_epochs,
)

pytestmark = pytest.mark.lab


def test_both_hosts_run_the_real_hypervisor(stock: Lab) -> None:
    for host in stock.hosts:
        assert host.run("cat /sys/hypervisor/type").stdout == "xen\n"
        assert host.domains()["Domain-0"].memory_mib == 1024
        assert host.run("hostname").stdout.strip() == host.name


def test_a_client_outside_sees_the_guests_counter_grow(stock: Lab) -> None:
    first = stock.client.wait_for_answer()
    wait_for(lambda: stock.client_counter() > first.counter, 30, "a later count")
    second = stock.client.read_datagram()
    assert second.counter > first.counter
    assert second.reply > first.reply
    assert second.boot_id == first.boot_id
    assert stock.running_copies() == ["alpha:guest"]


def test_a_guest_starts_on_either_host_from_the_same_configuration(stock: Lab) -> None:
    before = stock.client.wait_for_answer()
    stock.alpha.run(f"xl destroy {NAME}")
    stock.beta.run(f"xl create {CONFIG}", timeout_s=120)
    assert stock.client.wait_for_answer(120).boot_id != before.boot_id
    assert stock.running_copies() == ["beta:guest"]


def test_stock_remus_runs_both_copies_when_only_its_transport_dies(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    signal_process(stock.alpha, TRANSPORT)
    wait_for_domain(stock.beta, NAME, _is_running)
    wait_for_domain(stock.alpha, NAME, _is_running)
    assert "Backup failed? resuming domain" in stock.alpha.run("cat /run/send.err").stdout
    assert "Remus Failover for domain" in stock.beta.run("cat /run/receive.err").stdout


def test_a_second_pause_holds_the_replica_through_stock_failover(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    hold_replica(stock.beta)
    signal_process(stock.alpha, TRANSPORT)
    replica = wait_for_domain(stock.beta, NAME)
    wait_for(lambda: _has(stock, "/run/receive.status"), 60, "end of the receiver")
    assert stock.beta.run("cat /run/receive.status").stdout == "0\n"
    held = stock.beta.domains()[NAME]
    assert held.is_paused()
    assert held.cpu_s == replica.cpu_s
    assert stock.running_copies() == ["alpha:guest"]


def test_a_held_replica_of_a_dead_host_goes_on_from_its_checkpoint(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    hold_replica(stock.beta)
    seen = stock.client.wait_for_answer()
    epochs = whole_epochs(stock.beta)
    wait_for(lambda: whole_epochs(stock.beta) >= epochs + 3, 60, "a later checkpoint")
    stock.alpha.kill()
    signal_process(stock.beta, "relay.py receive", "KILL")
    wait_for_domain(stock.beta, NAME, Domain.is_paused)
    assert stock.client.answer() is None
    stock.beta.run(f"xl unpause {NAME}")
    after = stock.client.wait_for_answer()
    assert after.boot_id == seen.boot_id
    assert after.counter > seen.counter
    stock.alpha.power_on()
    assert list(stock.alpha.domains()) == ["Domain-0"]


def test_a_reboot_and_a_poweroff_after_stock_failover_are_handled_by_xl(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    before = stock.client.wait_for_answer()
    stock.alpha.kill()
    signal_process(stock.beta, "relay.py receive", "KILL")
    wait_for_domain(stock.beta, NAME, _is_running)
    stock.client.wait_for_answer()
    stock.client.tell("reboot")
    wait_for(
        lambda: (now := stock.client.answer()) is not None and now.boot_id != before.boot_id,
        120,
        "the rebooted guest",
    )
    assert stock.running_copies() == ["beta:guest"]
    stock.client.tell("poweroff")
    wait_for(lambda: NAME not in stock.beta.domains(), 60, "end of the guest")


def test_a_pause_of_the_primary_outlives_xls_own_resume(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    _freeze_in_checkpoint(stock)
    stock.alpha.run(f"xl pause {NAME}")
    signal_process(stock.alpha, TRANSPORT, "CONT")
    wait_for_domain(stock.alpha, NAME, lambda guest: not guest.is_suspended())
    assert stock.alpha.domains()[NAME].is_paused()
    epochs = whole_epochs(stock.beta)
    stock.alpha.run(f"xl unpause {NAME}")
    wait_for(lambda: whole_epochs(stock.beta) > epochs, 60, "a checkpoint after the pause")


def test_a_primary_whose_xl_was_killed_in_a_checkpoint_stays_suspended(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    hold_replica(stock.beta)
    _freeze_in_checkpoint(stock)
    signal_process(stock.alpha, SENDER)
    assert stock.alpha.run(f"pgrep -f {HELPER}").status == 0
    signal_process(stock.alpha, TRANSPORT, "CONT")
    wait_for_domain(stock.beta, NAME, Domain.is_paused)
    suspended = stock.alpha.domains()[NAME]
    assert suspended.is_suspended()
    stock.alpha.run(f"xl pause {NAME}; python3 /opt/lab/resume.py {suspended.domid}")
    assert stock.alpha.domains()[NAME].is_paused()
    stock.alpha.run(f"xl unpause {NAME}")
    assert stock.client.wait_for_answer().counter > 0


def test_killing_xl_at_the_receiver_leaves_a_paused_replica_to_destroy(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    signal_process(stock.beta, RECEIVER)
    wait_for(lambda: not _runs(stock, HELPER), 60, "end of the receiver's helper")
    assert stock.beta.domains()[REPLICA].is_paused()
    stock.beta.run(f"xl destroy {REPLICA}")
    assert list(stock.beta.domains()) == ["Domain-0"]


def test_killing_the_receivers_helper_destroys_the_replica(stock: Lab) -> None:
    replicate(stock.alpha, stock.beta)
    signal_process(stock.beta, HELPER)
    wait_for(lambda: _has(stock, "/run/receive.status"), 60, "end of the receiver")
    assert list(stock.beta.domains()) == ["Domain-0"]
    assert "Domain creation failed (code -3)" in stock.beta.run("cat /run/receive.err").stdout


def test_status_of_pause_and_unpause_says_nothing_about_their_effect(stock: Lab) -> None:
    unknown = stock.alpha.run("xl pause 999", check=False)
    running = stock.alpha.run(f"xl unpause {NAME}", check=False)
    assert (unknown.status, running.status) == (0, 0)
    assert "Pausing domain: No such process" in unknown.stderr
    assert "Unpausing domain: Invalid argument" in running.stderr


def _is_running(domain: Domain) -> bool:
    return not domain.is_paused() and not domain.is_suspended()


def _has(lab: Lab, path: str) -> bool:
    return lab.beta.run(f"test -s {path}", check=False).status == 0


def _runs(lab: Lab, name: str) -> bool:
    return lab.beta.run(f"pgrep -f [{name[0]}]{name[1:]}", check=False).status == 0


def _freeze_in_checkpoint(lab: Lab) -> None:
    """Stop the transport: the pipe fills, and the guest stays suspended in mid-checkpoint."""
    signal_process(lab.alpha, TRANSPORT, "STOP")
    wait_for_domain(lab.alpha, NAME, Domain.is_suspended)
