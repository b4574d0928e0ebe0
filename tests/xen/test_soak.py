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
RESTARTS = int(os.environ.get("COLOD_SOAK_RESTARTS", "20"))
SEED = int(os.environ.get("COLOD_SOAK_SEED", "1"))
ON_PRIMARY = (SENDER, DAEMON, XL_REMUS)
ON_SECONDARY = (RECEIVER, DAEMON, XL_RECEIVE)
HOST_DIES = 0.2
"""Share of the rounds in which a whole host loses power, and is switched on again."""


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
        primary, secondary = hosts.until_protected()
        time.sleep(chance.uniform(0, 3))
        began = time.monotonic()
        death = strike(hosts, primary, secondary, chance)
        watch(hosts, for_s=8)
        primary, _ = hosts.until_protected()
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


def watch(hosts: ColodHosts, *, for_s: float) -> None:
    """Look at both hypervisors for a while: there are never two running copies."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        copies = hosts.lab.running_copies()
        assert len(copies) <= 1, copies


@pytest.mark.timeout(2 * 3600)
def test_restarts_of_the_daemon_at_random_moments_change_nothing(pair: Lab) -> None:
    """In good order or by SIGKILL, on either host; the sessions outlive them all."""
    chance = random.Random(SEED)
    hosts = ColodHosts(pair)
    hosts.protect()
    primary, secondary = hosts.until_protected()
    before = hosts.status(primary)
    sessions = sessions_of(hosts)
    print(f"restarts: seed {SEED}, {RESTARTS} restarts")
    for number in range(1, RESTARTS + 1):
        host, other = chance.choice([(primary, secondary), (secondary, primary)])
        how = chance.choice(["systemctl restart", "SIGKILL"])
        epoch = hosts.acked_epoch(other)
        time.sleep(chance.uniform(0, 3))
        began = time.monotonic()
        # More starts than the unit allows in its time (docs/systemd.md) are asked for here.
        host.run("systemctl reset-failed colod", timeout_s=60)
        if how == "SIGKILL":
            hosts.kill(host, DAEMON)
        else:
            host.run("systemctl restart colod", timeout_s=180)
        watch(hosts, for_s=3)
        assert hosts.until_protected() == (primary, secondary)
        took_s = time.monotonic() - began
        until_epoch(hosts, host, epoch + 5)
        after = hosts.status(primary)
        assert (after["generation"], after["pairing"]) == (before["generation"], before["pairing"])
        assert sessions_of(hosts) == sessions
        print(
            f"restarts: {number}: {how} on {host.name}; protected as before within {took_s:.0f} s; "
            f"epoch {epoch} before, {hosts.acked_epoch(host)} after",
            flush=True,
        )


def until_epoch(hosts: ColodHosts, host: Host, epoch: int) -> None:
    """Wait until a host knows that an epoch is acknowledged."""
    wait_for(lambda: hosts.acked_epoch(host) >= epoch, 60, f"epoch {epoch} at {host.name}")


def sessions_of(hosts: ColodHosts) -> list[int]:
    """Return the processes that replicate, of both hosts."""
    return [
        pid
        for host, name in ((hosts.alpha, SENDER), (hosts.beta, RECEIVER))
        for pid in hosts.pids(host, name)
    ]
