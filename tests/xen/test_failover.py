"""A guest survives its host, on real Xen: colod as a service on both nested hosts."""

from __future__ import annotations

import time

import pytest

from tests.xen.colod_hosts import (
    DAEMON,
    RECEIVER,
    SENDER,
    XL_RECEIVE,
    XL_REMUS,
    ColodHosts,
)
from tests.xen.guest import NAME, REPLICA
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

pytestmark = pytest.mark.lab

FOLLOWING = ("REPLICATING", "PROTECTED")


@pytest.fixture
def colod(pair: Lab) -> ColodHosts:
    """Give both hosts with colod running and the guest protected."""
    hosts = ColodHosts(pair)
    hosts.protect()
    return hosts


def assert_one_copy_runs(hosts: ColodHosts, *, on: str, for_s: float = 5.0) -> None:
    """Look at both hypervisors for a while: the guest runs on one host and on no other."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert hosts.lab.running_copies() == [f"{on}:{NAME}"]


def never_two_copies(hosts: ColodHosts, *, for_s: float) -> None:
    """Look at both hypervisors for a while: there are never two running copies."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        copies = hosts.lab.running_copies()
        assert len(copies) <= 1, copies


@pytest.mark.lab_ci
def test_twenty_epochs_are_committed_and_the_guest_survives_the_death_of_its_host(
    colod: ColodHosts,
) -> None:
    colod.commits(20)
    before = colod.lab.client.wait_for_answer()
    epoch = colod.acked_epoch(colod.beta)
    wait_for(lambda: colod.acked_epoch(colod.beta) >= epoch + 2, 60, "two more epochs")
    colod.alpha.kill()
    after = colod.lab.client.wait_for_answer(120)
    assert after.boot_id == before.boot_id
    assert after.counter >= before.counter
    status = colod.reaches(colod.beta, "ALONE")
    assert status["role"] == "ROLE_PRIMARY"
    assert status["owner"] == "beta"
    assert int(status["generation"]) == 3
    assert_one_copy_runs(colod, on="beta")


def test_the_death_of_the_secondary_host_leaves_the_guest_running(colod: ColodHosts) -> None:
    before = colod.lab.client.wait_for_answer()
    colod.beta.kill()
    status = colod.reaches(colod.alpha, "ALONE")
    assert status["owner"] == "alpha"
    after = colod.lab.client.wait_for_answer(120)
    assert after.boot_id == before.boot_id
    assert after.counter > before.counter


@pytest.mark.parametrize(
    "killed",
    [
        pytest.param((SENDER,), id="the sender"),
        pytest.param((XL_REMUS,), id="xl remus"),
    ],
)
def test_a_death_on_the_primary_leaves_the_guest_there_alone(
    colod: ColodHosts, killed: tuple[str, ...]
) -> None:
    before = colod.lab.client.wait_for_answer()
    colod.kill(colod.alpha, *killed)
    never_two_copies(colod, for_s=10)
    status = colod.reaches(colod.alpha, "ALONE")
    assert status["owner"] == "alpha"
    assert colod.lab.client.wait_for_answer(120).boot_id == before.boot_id
    wait_for(lambda: not has_replica(colod), 60, "the void replica is discarded")
    assert_one_copy_runs(colod, on="alpha")


@pytest.mark.parametrize(
    "killed",
    [
        pytest.param((RECEIVER,), id="the receiver"),
        pytest.param((XL_RECEIVE,), id="xl migrate-receive"),
        pytest.param((RECEIVER, DAEMON), id="receiver and daemon"),
    ],
)
def test_a_death_on_the_secondary_never_starts_the_replica(
    colod: ColodHosts, killed: tuple[str, ...]
) -> None:
    before = colod.lab.client.wait_for_answer()
    colod.kill(colod.beta, *killed)
    never_two_copies(colod, for_s=10)
    status = colod.reaches(colod.alpha, "ALONE")
    assert status["owner"] == "alpha"
    assert colod.lab.client.wait_for_answer(120).boot_id == before.boot_id
    wait_for(lambda: not has_replica(colod), 60, "the void replica is discarded")
    assert_one_copy_runs(colod, on="alpha")


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_killing_the_daemon_changes_no_role_and_epochs_go_on(colod: ColodHosts, name: str) -> None:
    host = {"alpha": colod.alpha, "beta": colod.beta}[name]
    before = colod.status(colod.alpha)
    colod.kill(host, DAEMON)
    never_two_copies(colod, for_s=5)
    colod.reaches(host, *FOLLOWING)
    colod.commits(5)
    after = colod.status(colod.alpha)
    assert (after["generation"], after["pairing"]) == (before["generation"], before["pairing"])


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_restarting_the_service_changes_no_role_and_epochs_go_on_during_it(
    colod: ColodHosts, name: str
) -> None:
    host = {"alpha": colod.alpha, "beta": colod.beta}[name]
    other = {"alpha": colod.beta, "beta": colod.alpha}[name]
    before = colod.status(colod.alpha)
    sessions = sorted(colod.pids(colod.alpha, SENDER) + colod.pids(colod.beta, RECEIVER))
    host.run("systemctl stop colod", timeout_s=90)
    epoch = colod.acked_epoch(other)
    wait_for(lambda: colod.acked_epoch(other) >= epoch + 5, 60, "epochs without the daemon")
    host.run("systemctl start colod", timeout_s=90)
    colod.reaches(host, *FOLLOWING)
    colod.commits(5)
    after = colod.status(colod.alpha)
    assert (after["generation"], after["pairing"]) == (before["generation"], before["pairing"])
    assert sessions == sorted(colod.pids(colod.alpha, SENDER) + colod.pids(colod.beta, RECEIVER))


def test_a_guest_reboots_and_powers_off_on_its_new_host(colod: ColodHosts) -> None:
    before = colod.lab.client.wait_for_answer()
    colod.alpha.kill()
    assert colod.lab.client.wait_for_answer(120).boot_id == before.boot_id
    colod.reaches(colod.beta, "ALONE")
    colod.lab.client.tell("reboot")
    wait_for(
        lambda: (
            (again := colod.lab.client.answer()) is not None and again.boot_id != before.boot_id
        ),
        180,
        "the guest boots again",
    )
    assert_one_copy_runs(colod, on="beta")
    colod.lab.client.tell("poweroff")
    colod.reaches(colod.beta, "GUEST_SHUTDOWN")
    wait_for(lambda: NAME not in colod.beta.domains(), 60, "xl destroys the guest")
    colod.reaches(colod.beta, "GUEST_SHUTDOWN")


def test_protect_is_refused_with_autoballoon_on(pair: Lab) -> None:
    hosts = ColodHosts(pair)
    hosts.beta.put(b'autoballoon="on"\n', "/etc/xen/xl.conf")
    done = hosts.alpha.run(
        f"colodctl protect {NAME} --to beta --disks none", check=False, timeout_s=120
    )
    assert done.status == 4, done
    assert "autoballoon" in done.stderr
    assert hosts.status(hosts.alpha) == {}
    assert pair.client.wait_for_answer().counter > 0


def has_replica(hosts: ColodHosts) -> bool:
    """Whether any copy of the guest is left on beta."""
    return bool({NAME, REPLICA} & hosts.beta.domains().keys())
