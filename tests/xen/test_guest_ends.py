"""A protected guest that reboots, powers off or is destroyed, on real Xen."""

from __future__ import annotations

import pytest

from tests.xen.colod_hosts import ColodHosts, protected
from tests.xen.guest import CONFIG, NAME, REPLICA
from tests.xen.lab import Lab
from tests.xen.recorder import Recorder, said_twice
from tests.xen.stock import wait_for

pytestmark = pytest.mark.lab


def until_both_are_down(hosts: ColodHosts) -> None:
    """Wait until the guest counts as ended, and neither host has anything of it."""
    hosts.reaches(hosts.alpha, "GUEST_SHUTDOWN")
    wait_for(
        lambda: not any({NAME, REPLICA} & host.domains().keys() for host in hosts.lab.hosts),
        120,
        "nothing of the guest is left on either host",
    )
    assert hosts.status(hosts.alpha)["owner"] == "alpha"


def test_a_guest_that_is_destroyed_on_purpose_stays_down_on_both_hosts(pair: Lab) -> None:
    hosts = protected(pair)
    pair.alpha.run(f"xl destroy {NAME}", timeout_s=120)
    until_both_are_down(hosts)


def test_a_guest_that_powers_off_stays_down_and_is_protected_again_once_it_is_started(
    pair: Lab,
) -> None:
    """The xl that would destroy its domain has exited at the first checkpoint: colod does it."""
    hosts = protected(pair)
    before = pair.client.wait_for_answer()
    pair.client.tell("poweroff")
    until_both_are_down(hosts)
    pair.alpha.run(f"xl create {CONFIG}", timeout_s=300)
    primary, _ = hosts.until_protected()
    assert primary is pair.alpha
    assert pair.client.wait_for_answer().boot_id != before.boot_id


def test_a_guest_that_reboots_is_started_again_and_protected(pair: Lab) -> None:
    hosts = protected(pair)
    before = pair.client.wait_for_answer()
    pair.client.tell("reboot")
    wait_for(lambda: pair.client.wait_for_answer().boot_id != before.boot_id, 300, "it boots again")
    primary, _ = hosts.until_protected()
    assert primary is pair.alpha
    assert pair.runs_only_on(pair.alpha)


def test_a_guest_that_reboots_while_its_daemon_is_away_speaks_on_one_host_only(pair: Lab) -> None:
    hosts = protected(pair)
    before = pair.client.wait_for_answer()
    with Recorder(pair.client) as recorder:
        pair.alpha.run("systemctl stop colod", timeout_s=90)
        pair.client.tell("reboot")
        hosts.reaches(pair.beta, "ALONE")
        wait_for(lambda: pair.running_copies() == [f"beta:{NAME}"], 60, "it runs on beta alone")
        pair.alpha.run("systemctl start colod", timeout_s=90)
        primary, _ = hosts.until_protected()
        assert primary is pair.beta
        heard = recorder.heard()
        # The newest epoch may be of a guest that is about to reboot: then it does so again, there.
        assert said_twice(heard) == []
        assert before.boot_id in {each.reading.boot_id for each in heard}
