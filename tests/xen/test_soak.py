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
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]

ROUNDS = int(os.environ.get("COLOD_SOAK_ROUNDS", "20"))
SEED = int(os.environ.get("COLOD_SOAK_SEED", "1"))
ON_PRIMARY = (SENDER, DAEMON, XL_REMUS)
ON_SECONDARY = (RECEIVER, DAEMON, XL_RECEIVE)
HOST_DIES = 0.2
"""Share of the rounds in which a whole host loses power, and is switched on again."""
HEALED_S = 600


@pytest.mark.timeout(4 * 3600)
def test_a_protected_guest_lives_through_many_kills(pair: Lab) -> None:
    """Kill processes of one side, or the whole host, at random; the pair heals itself each time.

    Whichever host runs the guest is the primary of the next round.
    """
    chance = random.Random(SEED)
    hosts = ColodHosts(pair, resync="automatic")
    for host in pair.hosts:
        host.run("systemctl enable colod")
    hosts.protect()
    boot_id = pair.client.wait_for_answer().boot_id
    print(f"soak: seed {SEED}, {ROUNDS} rounds")
    for number in range(1, ROUNDS + 1):
        primary, secondary = healed(hosts)
        time.sleep(chance.uniform(0, 3))
        began = time.monotonic()
        death = strike(hosts, primary, secondary, chance)
        watch(hosts, for_s=8)
        primary, _ = healed(hosts)
        reading = pair.client.wait_for_answer()
        assert reading.boot_id == boot_id
        print(
            f"soak: round {number}: {death}; protected again on {primary.name} after "
            f"{time.monotonic() - began:.0f} s; generation "
            f"{hosts.status(primary)['generation']}, counter {reading.counter}",
            flush=True,
        )


def strike(hosts: ColodHosts, primary: Host, secondary: Host, chance: random.Random) -> str:
    """Let something die; return what it was."""
    host, processes = chance.choice([(primary, ON_PRIMARY), (secondary, ON_SECONDARY)])
    role = "primary" if host is primary else "secondary"
    if chance.random() < HOST_DIES:
        host.kill()
        watch(hosts, for_s=chance.uniform(0, 30))
        host.power_on()
        hosts.reconnect(host)
        return f"{role} {host.name} lost power, was switched on"
    killed = chance.sample(processes, chance.randint(1, len(processes)))
    hosts.kill(host, *killed)
    return f"on {role} {host.name} killed {', '.join(killed)}"


def healed(hosts: ColodHosts) -> tuple[Host, Host]:
    """Wait until both hosts say that the guest is protected; return primary and secondary."""
    found: list[tuple[Host, Host]] = []

    def agree() -> bool:
        for primary, secondary in (hosts.lab.hosts, hosts.lab.hosts[::-1]):
            said = [hosts.status(primary), hosts.status(secondary)]
            roles = [each.get("role") for each in said]
            states = {each.get("state") for each in said}
            if roles == ["ROLE_PRIMARY", "ROLE_SECONDARY"] and states == {"PROTECTED"}:
                found.append((primary, secondary))
        return bool(found)

    wait_for(agree, HEALED_S, "both hosts to say PROTECTED")
    primary, secondary = found[-1]
    return primary, secondary


def watch(hosts: ColodHosts, *, for_s: float) -> None:
    """Look at both hypervisors for a while: there are never two running copies."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        copies = hosts.lab.running_copies()
        assert len(copies) <= 1, copies
