"""Drills and images on real Xen: what a replica's newest epoch is worth, before it is needed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.xen.colod_hosts import ColodHosts
from tests.xen.guest import ADDRESS, NAME, PORT, REPLICA
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

pytestmark = pytest.mark.lab

KEEP = """
[checkpoints]
keep = true
"""
BRIDGE = "drill0"
NEIGHBOUR = ADDRESS.rpartition(".")[0] + ".99"
DRILL_S = 420.0


@pytest.fixture
def colod(pair: Lab) -> ColodHosts:
    """Give both hosts with the guest protected, and images kept of its replica."""
    hosts = ColodHosts(pair, extra=KEEP)
    hosts.protect()
    hosts.reaches(hosts.alpha, "PROTECTED", limit_s=300)
    return hosts


def asked(host: Host, command: str) -> dict[str, Any]:
    """Return what colodctl answers on a host."""
    found: dict[str, Any] = json.loads(host.run(f"colodctl {command}", timeout_s=DRILL_S).stdout)
    return found


def make_bridge(host: Host) -> None:
    """Make a bridge that leads nowhere, with this host as the guest's only neighbour."""
    host.run(
        f"ip link add {BRIDGE} type bridge; ip link set {BRIDGE} up; "
        f"ip address add {NEIGHBOUR}/32 dev {BRIDGE}; ip route add {ADDRESS}/32 dev {BRIDGE}"
    )


def test_a_drill_s_copy_answers_on_its_own_bridge_while_epochs_go_on(colod: ColodHosts) -> None:
    make_bridge(colod.beta)
    before, epochs = colod.lab.client.wait_for_answer(), colod.acked_epoch(colod.alpha)
    check = f"timeout 60 bash -c 'exec 3<>/dev/tcp/{ADDRESS}/{PORT} && read -r -t 50 word <&3'"
    done = asked(
        colod.beta, f'drill isolated {NAME} --yes --json --bridge {BRIDGE} --check "{check}"'
    )
    assert done["drill"]["verdict"] == "passed", done
    assert colod.acked_epoch(colod.alpha) > epochs + 3
    after = colod.lab.client.wait_for_answer()
    assert (after.boot_id, after.counter > before.counter) == (before.boot_id, True)
    assert set(colod.beta.domains()) & {NAME, REPLICA, f"{NAME}--drill"} == {REPLICA}
    wait_for(lambda: colod.lab.running_copies() == [f"alpha:{NAME}"], 60, "it runs there alone")
    (told,) = asked(colod.beta, "drill report --json")["drills"]
    assert told["verdict"] == "passed"


def test_an_exported_epoch_is_restored_by_xl_alone_and_answers(colod: ColodHosts) -> None:
    boot_id = colod.lab.client.wait_for_answer().boot_id
    image = asked(colod.beta, f"checkpoint export {NAME} --json")
    colod.unprotect(colod.alpha)
    wait_for(
        lambda: not {NAME, REPLICA} & colod.beta.domains().keys(), 120, "beta discards the replica"
    )
    colod.alpha.run(f"xl destroy {NAME}", timeout_s=120)
    colod.beta.run(f"xl restore {image['path']}", timeout_s=DRILL_S)
    assert colod.lab.client.wait_for_answer(120).boot_id == boot_id
    assert colod.lab.running_copies() == [f"beta:{NAME}"]
