"""What operators ask for, on real Xen: a switchover and back, and the end of a protection."""

from __future__ import annotations

import pytest

from tests.xen.colod_hosts import XL_REMUS, ColodHosts
from tests.xen.guest import NAME, REPLICA
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

pytestmark = pytest.mark.lab


@pytest.fixture
def colod(pair: Lab) -> ColodHosts:
    """Give both hosts with colod running and the guest protected; it pairs again by itself."""
    hosts = ColodHosts(pair, resync="automatic")
    hosts.protect()
    hosts.reaches(hosts.alpha, "PROTECTED")
    return hosts


def switch_over(hosts: ColodHosts, giver: Host, taker: Host) -> None:
    """Switch the guest over, with a client looking; nothing of it is lost or taken back."""
    before = hosts.lab.client.wait_for_answer()
    known = len(hosts.history(giver))
    hosts.switch_over(giver)
    after = hosts.lab.client.wait_for_answer(120)
    assert after.boot_id == before.boot_id
    assert after.counter >= before.counter
    assert hosts.lab.runs_only_on(taker)
    assert hosts.status(taker)["owner"] == taker.name
    # One that is given up goes on as before: PROTECTED follows.
    states = [entry.to_state for entry in hosts.history(giver)[known:]]
    given_at = states.index("SWITCHOVER")
    assert states[given_at + 1] != "PROTECTED", states


def test_a_guest_is_switched_over_and_back(colod: ColodHosts) -> None:
    switch_over(colod, colod.alpha, colod.beta)
    for host in (colod.beta, colod.alpha):
        colod.reaches(host, "PROTECTED", limit_s=300)
    switch_over(colod, colod.beta, colod.alpha)
    colod.reaches(colod.alpha, "PROTECTED", limit_s=300)


def test_an_unprotected_guest_goes_on_and_nothing_of_its_replica_is_left(colod: ColodHosts) -> None:
    before = colod.lab.client.wait_for_answer()
    colod.unprotect(colod.alpha)
    wait_for(
        lambda: not {NAME, REPLICA} & colod.beta.domains().keys(), 120, "beta discards the replica"
    )
    wait_for(lambda: not colod.status(colod.beta), 60, "beta forgets the protection")
    after = colod.lab.client.wait_for_answer(60)
    assert after.boot_id == before.boot_id
    assert after.counter > before.counter
    assert colod.lab.running_copies() == [f"alpha:{NAME}"]
    assert not colod.pids(colod.alpha, XL_REMUS)
