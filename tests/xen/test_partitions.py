"""Hosts that are cut off, hang or come back, on real Xen: one copy speaks, and all heals."""

from __future__ import annotations

import time

import pytest

from tests.xen.colod_hosts import ColodHosts, protected
from tests.xen.guest import NAME
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.recorder import Recorder, said_twice
from tests.xen.stock import wait_for

pytestmark = pytest.mark.lab

DATA = "10.77.9"
CUT_S = 30.0
"""Longer than the limits after which a session and a host count as lost (6 s and 10 s)."""


def is_owner(hosts: ColodHosts, host: Host) -> bool:
    """Tell whether a host says that it owns the guest, alone or in a new pair."""
    status = hosts.status(host)
    return status.get("owner") == host.name and int(status.get("generation", 0)) > 2


def test_hosts_that_see_only_the_witness_agree_on_one_owner(pair: Lab) -> None:
    hosts = protected(pair)
    names = [host.name for host in pair.hosts]
    with Recorder(pair.client) as recorder:
        pair.namespace.set_apart(names, "mgmt", is_apart=True)
        began = time.monotonic()
        while time.monotonic() < began + CUT_S:
            assert len(pair.running_copies()) <= 1
        wait_for(lambda: any(is_owner(hosts, host) for host in pair.hosts), 120, "an owner")
        assert not all(is_owner(hosts, host) for host in pair.hosts)
        wait_for(lambda: len(pair.running_copies()) == 1, 120, "one copy runs")
        pair.namespace.set_apart(names, "mgmt", is_apart=False)
        hosts.until_protected()
        recorder.wait_for(time.monotonic(), "udp", 5, 60)
        assert said_twice(recorder.heard()) == []


def test_a_primary_that_is_cut_off_from_everything_is_replaced_and_falls_silent(
    pair: Lab,
) -> None:
    """Its guests' network is another one: clients can still hear it."""
    hosts = protected(pair)
    with Recorder(pair.client) as recorder:
        pair.alpha.cut("mgmt")
        hosts.reaches(pair.beta, "ALONE")
        recorder.wait_for(time.monotonic(), "udp", 50, 60)
        pair.alpha.join("mgmt")
        hosts.until_protected()
        assert hosts.status(pair.beta)["role"] == "ROLE_PRIMARY"
        wait_for(lambda: pair.running_copies() == [f"beta:{NAME}"], 60, "it runs on beta alone")
        assert said_twice(recorder.heard()) == []


def test_the_loss_of_the_replication_network_alone_costs_the_protection_only(pair: Lab) -> None:
    hosts = protected(pair, data_prefix=DATA)
    with Recorder(pair.client) as recorder:
        hosts.cut_data(pair.beta)
        wait_for(lambda: is_owner(hosts, pair.alpha), 120, "alpha goes on alone")
        assert hosts.status(pair.alpha)["role"] == "ROLE_PRIMARY"
        wait_for(lambda: pair.running_copies() == [f"alpha:{NAME}"], 60, "the guest runs there")
        hosts.join_data(pair.beta)
        hosts.until_protected()
        assert hosts.status(pair.alpha)["owner"] == "alpha"
        assert said_twice(recorder.heard()) == []


def test_a_host_that_hangs_is_replaced_and_says_nothing_once_it_goes_on(pair: Lab) -> None:
    hosts = protected(pair)
    with Recorder(pair.client) as recorder:
        pair.alpha.freeze()
        hosts.reaches(pair.beta, "ALONE")
        recorder.wait_for(time.monotonic(), "udp", 50, 60)
        pair.alpha.thaw()
        hosts.until_protected()
        assert hosts.status(pair.beta)["role"] == "ROLE_PRIMARY"
        wait_for(lambda: pair.running_copies() == [f"beta:{NAME}"], 60, "it runs on beta alone")
        assert said_twice(recorder.heard()) == []


def test_a_dead_primary_that_is_switched_on_again_is_the_secondary(pair: Lab) -> None:
    pair.alpha.run("systemctl enable colod")
    hosts = protected(pair)
    boot_id = pair.client.wait_for_answer().boot_id
    pair.alpha.kill()
    hosts.reaches(pair.beta, "ALONE")
    pair.alpha.power_on()
    hosts.reconnect(pair.alpha)
    hosts.until_protected()
    assert hosts.status(pair.alpha)["role"] == "ROLE_SECONDARY"
    wait_for(lambda: pair.running_copies() == [f"beta:{NAME}"], 60, "it runs on beta alone")
    assert pair.client.wait_for_answer().boot_id == boot_id
