"""Many kills on real Xen, one after the other: run by hand, the log is kept in docs/lab-log.md."""

from __future__ import annotations

import os
import random
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
from tests.xen.guest import NAME
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]

ROUNDS = int(os.environ.get("COLOD_SOAK_ROUNDS", "20"))
SEED = int(os.environ.get("COLOD_SOAK_SEED", "1"))
ALPHA = ("alpha", (SENDER, DAEMON, XL_REMUS))
BETA = ("beta", (RECEIVER, DAEMON, XL_RECEIVE))


@pytest.mark.timeout(4 * 3600)
def test_a_protected_guest_lives_through_many_kills(pair: Lab) -> None:
    """Kill one to three processes of one side at random; the pair heals itself each time."""
    chance = random.Random(SEED)
    hosts = ColodHosts(pair, resync="automatic")
    hosts.protect()
    boot_id = pair.client.wait_for_answer().boot_id
    print(f"soak: seed {SEED}, {ROUNDS} rounds")
    for number in range(1, ROUNDS + 1):
        name, processes = chance.choice([ALPHA, BETA])
        killed = chance.sample(processes, chance.randint(1, len(processes)))
        time.sleep(chance.uniform(0, 3))
        began = time.monotonic()
        hosts.kill({"alpha": pair.alpha, "beta": pair.beta}[name], *killed)
        watch(hosts, for_s=8)
        hosts.reaches(hosts.alpha, "REPLICATING", "PROTECTED", limit_s=300)
        wait_for(lambda: pair.client.answer() is not None, 60, "the guest answers")
        reading = pair.client.wait_for_answer()
        assert reading.boot_id == boot_id
        print(
            f"soak: round {number}: on {name} killed {', '.join(killed)}; replicating again after "
            f"{time.monotonic() - began:.0f} s; generation "
            f"{hosts.status(hosts.alpha)['generation']}, counter {reading.counter}",
            flush=True,
        )
    assert pair.running_copies() == [f"alpha:{NAME}"]


def watch(hosts: ColodHosts, *, for_s: float) -> None:
    """Look at both hypervisors for a while: there are never two running copies."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        copies = hosts.lab.running_copies()
        assert len(copies) <= 1, copies
