"""Xen's own watchdog, through `xen_wdt`: armed while paired, and it resets a host left alone."""

from __future__ import annotations

import time

import pytest

from tests.xen.colod_hosts import DAEMON, ColodHosts
from tests.xen.guest import NAME
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

pytestmark = pytest.mark.lab

TIMEOUT_S = 100
_FIND = (
    "modprobe xen_wdt && for each in /sys/class/watchdog/*; do "
    'grep -q -i xen "$each/identity" && basename "$each" && exit 0; done; exit 1'
)


def watchdog_of(host: Host) -> str:
    """Load Xen's watchdog and return its name below /dev."""
    return host.run(_FIND).stdout.strip()


def state_of(host: Host, name: str) -> str:
    """Return `active` or `inactive`, as the kernel says."""
    return host.run(f"cat /sys/class/watchdog/{name}/state").stdout.strip()


@pytest.fixture
def watched(pair: Lab) -> tuple[ColodHosts, str]:
    """Give both hosts with colod, the guest protected, and the watchdog's name."""
    names = {watchdog_of(host) for host in pair.hosts}
    (name,) = names
    table = f'\n[self_fence]\nkind = "watchdog"\ndevice = "/dev/{name}"\ntimeout_s = {TIMEOUT_S}\n'
    hosts = ColodHosts(pair, extra=table)
    hosts.protect()
    return hosts, name


def test_xens_watchdog_runs_while_the_other_host_may_take_over(
    watched: tuple[ColodHosts, str],
) -> None:
    hosts, name = watched
    wait_for(lambda: state_of(hosts.alpha, name) == "active", 60, "it is armed")
    assert state_of(hosts.beta, name) == "inactive"
    hosts.alpha.run("systemctl restart colod", timeout_s=180)
    wait_for(lambda: state_of(hosts.alpha, name) == "active", 60, "it is armed again")
    hosts.kill(hosts.alpha, DAEMON)
    assert state_of(hosts.alpha, name) == "active"
    time.sleep(1.2 * TIMEOUT_S)  # the next daemon feeds it, or Xen would have reset the host
    hosts.commits(5)
    hosts.alpha.run(f"colodctl suspend {NAME}", timeout_s=180)
    wait_for(lambda: state_of(hosts.alpha, name) == "inactive", 60, "it is disarmed")


def test_a_host_whose_daemon_does_not_come_back_is_reset_by_xen(
    watched: tuple[ColodHosts, str],
) -> None:
    hosts, name = watched
    wait_for(lambda: state_of(hosts.alpha, name) == "active", 60, "it is armed")
    never = "'[Unit]\\nConditionPathExists=/nowhere\\n'"  # `mask` does nothing to units below /etc
    for unit in ("colod", "colod-rescue"):
        folder = f"/run/systemd/system/{unit}.service.d"
        hosts.alpha.run(f"mkdir -p {folder}; printf {never} > {folder}/never.conf")
    hosts.alpha.run("systemctl daemon-reload")
    hosts.kill(hosts.alpha, DAEMON)
    log = hosts.alpha.serial_log

    def has_fired() -> bool:
        return "fired for d" in log.read_text(errors="replace")

    wait_for(has_fired, 4 * TIMEOUT_S, "Xen's watchdog fires")
    hosts.reaches(hosts.beta, "ALONE", limit_s=300)
    assert hosts.status(hosts.beta)["owner"] == "beta"
