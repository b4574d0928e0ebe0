"""Drills that touch the protection, on real Xen: the guest fails over, or is paired anew."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.xen.colod_hosts import ColodHosts, protected
from tests.xen.guest import ADDRESS, NAME, PORT
from tests.xen.host import Host
from tests.xen.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500, func_only=True)]

DRILL_S = 1200.0
CLIENT = ADDRESS.rpartition(".")[0] + ".{number}"
ASKED = "timeout 7 head -c 1 <&3 | grep -q ."
PROBE = f"bash -c 'exec 3<>/dev/udp/{ADDRESS}/{PORT} && echo get >&3 && {ASKED}'"
"""Datagrams: a connection takes several held answers, and epochs are slow on emulated hosts."""
PROBING = f'--probe "{PROBE}" --probe-limit 8'


def drill(host: Host, command: str) -> dict[str, Any]:
    """Run a drill on a host until it ends; return its record."""
    said = host.run(
        f"colodctl drill {command} --yes --json --timeout {DRILL_S:.0f}",
        timeout_s=DRILL_S + 60,
        check=False,
    )
    assert said.stdout, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)["drill"]
    assert (found["verdict"], said.status) == ("passed", 0), found
    return found


def join_guests(host: Host) -> None:
    """Give dom0 an address on the guests' network, so that a probe can ask from there."""
    host.run(f"ip address add {CLIENT.format(number=host.number)}/24 dev br0")


def stays_the_same(hosts: ColodHosts, boot_id: str, owner: Host) -> None:
    """Check that the guest was never booted anew, and runs on one host alone."""
    assert hosts.lab.client.wait_for_answer().boot_id == boot_id
    primary, _ = hosts.until_protected()
    assert primary is owner
    assert hosts.lab.runs_only_on(owner)


def test_a_live_drill_gives_the_guest_away_and_has_it_back(pair: Lab) -> None:
    hosts = protected(pair)
    join_guests(hosts.alpha)
    boot_id = pair.client.wait_for_answer().boot_id
    done = drill(hosts.alpha, f"live {NAME} {PROBING} --failback")
    assert done["rpo_s"] == 0, done
    assert done["outage_s"] > 0, done
    assert done["failback_s"] > 0, done
    assert done["end_owner"] == "alpha", done
    stays_the_same(hosts, boot_id, hosts.alpha)


def test_a_live_drill_takes_the_guest_over_as_if_its_host_had_died(pair: Lab) -> None:
    hosts = protected(pair)
    join_guests(hosts.beta)
    boot_id = pair.client.wait_for_answer().boot_id
    done = drill(hosts.beta, f"live {NAME} {PROBING} --as-if-host-died")
    assert done["rpo_s"] > 0, done
    assert done["end_owner"] == "beta", done
    stays_the_same(hosts, boot_id, hosts.beta)


def test_a_drill_of_the_secondary_rebuilds_the_replica(pair: Lab) -> None:
    hosts = protected(pair)
    boot_id = pair.client.wait_for_answer().boot_id
    pairing = hosts.status(hosts.alpha)["pairing"]
    done = drill(hosts.alpha, f"secondary {NAME}")
    assert done["unprotected_s"] > 0, done
    assert hosts.status(hosts.alpha)["pairing"] != pairing
    stays_the_same(hosts, boot_id, hosts.alpha)
