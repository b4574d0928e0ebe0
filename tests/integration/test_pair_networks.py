"""Several networks between the hosts: which of them have to fail before a host is suspected."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from colod.v1 import admin_pb2
from tests.integration.pair_trial import IN_STEP, MakeTrial, Trial
from tests.pair import SimulatedHost, Site, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),  # three pairs of daemons after another on a busy machine
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

DAEMONS, SESSIONS, THIRD = 1, 2, 3
"""The networks, by what goes over them; a third one is for heartbeats alone."""

ALL: Final = (DAEMONS, SESSIONS, THIRD)
HOSTS: Final = ("alpha", "beta")
NEVER: Final = 300.0
"""A silence, in seconds, that no test waits for."""


def address(host: str, network: int) -> str:
    """Return a host's address in a network."""
    return f"10.98.{network}.{2 + HOSTS.index(host)}"


class Cables:
    """Two namespaces, and a cable between them for each network."""

    def __init__(self) -> None:
        self._mark = f"colod-{os.getpid()}"
        for host in HOSTS:
            _ip("netns", "add", self.name(host))
            _ip("-n", self.name(host), "link", "set", "lo", "up")
        for network in ALL:
            device = f"net{network}"
            other = ("peer", device, "netns", self.name("beta"))
            _ip("-n", self.name("alpha"), "link", "add", device, "type", "veth", *other)
            for host in HOSTS:
                where = ("-n", self.name(host))
                _ip(*where, "address", "add", f"{address(host, network)}/24", "dev", device)
                _ip(*where, "link", "set", device, "up")

    def name(self, host: str) -> str:
        """Return a host's namespace."""
        return f"{self._mark}-{host}"

    def site(self, host: str, *, has_backup: bool = False) -> Site:
        """Return where a host is; its sessions may have the third network, too."""
        return Site(
            namespace=self.name(host),
            address=address(host, DAEMONS),
            data=address(host, SESSIONS),
            more=(address(host, THIRD),),
            backup=address(host, THIRD) if has_backup else "",
        )

    def pull(self, *networks: int) -> None:
        """Pull cables out at alpha's end; beta sees that they are gone."""
        for network in networks:
            _ip("-n", self.name("alpha"), "link", "set", f"net{network}", "down")

    def put_back(self, *networks: int) -> None:
        """Put them in again."""
        for network in networks:
            _ip("-n", self.name("alpha"), "link", "set", f"net{network}", "up")

    def close(self) -> None:
        """Remove everything."""
        for host in HOSTS:
            if Path("/run/netns", self.name(host)).exists():
                _ip("netns", "delete", self.name(host))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def cables() -> Iterator[Cables]:
    """Return cables; whatever hangs on them is ended before."""
    laid = Cables()
    try:
        yield laid
    finally:
        laid.close()


def connected(
    make_trial: MakeTrial,
    cables: Cables,
    *,
    grace_s: float,
    silence_s: float,
    has_backup: bool = False,
) -> Trial:
    """Return a pair on these cables whose guest is replicated."""
    alpha, beta = (cables.site(host, has_backup=has_backup) for host in HOSTS)
    trial = make_trial(
        sites=(alpha, beta),
        suspect_s=NEVER,
        silence_s=silence_s,
        detection=f"carrier_grace_s = {grace_s}",
    )
    trial.replicate()
    return trial


def signals(trial: Trial) -> dict[int, admin_pb2.PeerSignal]:
    """Return how beta hears alpha, by the network."""
    found = {}
    for each in trial.status(trial.beta).signals:
        host = each.name.partition(":")[0]
        found[SESSIONS if each.name == "session" else int(host.split(".")[2])] = each
    return found


def without_link(trial: Trial) -> set[int]:
    """Return the networks of which beta sees that their link is gone."""
    return {network for network, each in signals(trial).items() if each.HasField("no_carrier_s")}


def is_missed(trial: Trial, network: int) -> bool:
    """Tell whether beta has lost the link of that network alone, and counts it as silent."""
    return without_link(trial) == {network} and signals(trial)[network].is_silent


def contact(trial: Trial) -> str:
    """Return what beta thinks of alpha."""
    return trial.status(trial.beta).peer_contact


def until_dead(trial: Trial) -> None:
    """Have alpha die as by a power cut, its cables in place, and beta miss it."""
    trial.alpha.die()
    trial.until_state(trial.beta, "DEGRADED")
    until(lambda: contact(trial) == "silent", "beta misses alpha's daemon")


def events(host: SimulatedHost) -> list[str]:
    """Return what a daemon has logged, as `event` or `event state`."""
    found = []
    for line in host.log().splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            found.append(f"{entry['event']} {entry.get('state_to', '')}".strip())
    return found


def test_a_host_is_not_suspected_while_one_of_the_networks_carries(
    make_trial: MakeTrial, cables: Cables
) -> None:
    trial = connected(make_trial, cables, grace_s=6.0, silence_s=4.0)
    until(lambda: signals(trial).keys() == set(ALL), "beta hears alpha over all networks")
    for network in (DAEMONS, THIRD):
        cables.pull(network)
        until(partial(is_missed, trial, network), "beta misses that network alone")
        trial.until_epochs_go_on()
        until(lambda: contact(trial) == "up", "the daemons hear each other")
        assert trial.state(trial.beta) in IN_STEP
        cables.put_back(network)
        until(lambda: not without_link(trial), "the link is back")
        until(lambda: not any(each.is_silent for each in signals(trial).values()), "all speak")
    assert "ARBITRATING" not in trial.history(trial.beta)
    trial.check_one_speaker()


def test_a_dead_host_is_suspected_as_soon_as_every_link_to_it_is_down(
    make_trial: MakeTrial, cables: Cables
) -> None:
    """Its silence alone would not be enough within the time of this test."""
    trial = connected(make_trial, cables, grace_s=6.0, silence_s=4.0)
    until_dead(trial)
    cables.pull(DAEMONS, SESSIONS)
    until(lambda: {n for n, each in signals(trial).items() if each.is_silent} >= {1, 2}, "silent")
    assert trial.state(trial.beta) == "DEGRADED"
    cables.pull(THIRD)
    trial.until_state(trial.beta, "ALONE")
    seen = events(trial.beta)
    assert seen.index("role.changed ALONE") > max(
        index for index, event in enumerate(seen) if event == "carrier.lost"
    )
    trial.check_one_speaker()


def test_links_that_come_back_within_the_grace_let_nobody_fail_over(
    make_trial: MakeTrial, cables: Cables
) -> None:
    trial = connected(make_trial, cables, grace_s=NEVER, silence_s=4.0)
    until_dead(trial)
    for _ in range(3):
        cables.pull(*ALL)
        until(lambda: without_link(trial) == set(ALL), "beta sees that all links are gone")
        cables.put_back(*ALL)
        until(lambda: not without_link(trial), "all are back")
        assert contact(trial) == "silent"
    assert trial.state(trial.beta) == "DEGRADED"
    assert "ARBITRATING" not in trial.history(trial.beta)
    assert events(trial.beta).count("carrier.lost") >= len(ALL)


def test_of_living_hosts_that_are_cut_off_from_each_other_the_primary_goes_on(
    make_trial: MakeTrial, cables: Cables
) -> None:
    trial = connected(make_trial, cables, grace_s=14.0, silence_s=4.0)
    cables.pull(*ALL)
    trial.until_state(trial.alpha, "ALONE")
    until(lambda: not trial.beta.guests(), "the secondary gives its copy up")
    cables.put_back(*ALL)
    until(lambda: trial.status(trial.alpha).peer_contact == "up", "they hear each other again")
    trial.alpha.ctl("resume", "g1")
    trial.until_replicating()
    assert trial.status(trial.alpha).owner == "alpha"
    trial.check_one_speaker()


def test_a_link_that_is_pulled_and_replaced_changes_no_role_and_copies_nothing_anew(
    make_trial: MakeTrial, cables: Cables
) -> None:
    trial = connected(make_trial, cables, grace_s=20.0, silence_s=15.0, has_backup=True)

    def standing() -> tuple[object, ...]:
        """Return what a new pairing, or another owner, would change."""
        status = trial.status(trial.alpha)
        sessions = [trial.session(host) for host in trial.pair.hosts]
        return (status.pairing, status.generation, status.owner, sessions, trial.xl(trial.alpha))

    def path() -> str:
        return trial.status(trial.alpha).link.path

    before, began = standing(), len(trial.history(trial.alpha))
    assert path() == "primary"
    for _ in range(2):
        cables.pull(SESSIONS)
        until(lambda: path() == "backup", "the link goes over the other cable")
        trial.until_epochs_go_on()
        cables.put_back(SESSIONS)
        until(lambda: path() == "primary", "the link goes back")
        trial.until_epochs_go_on()
    assert standing() == before
    assert set(trial.history(trial.alpha)[began:]) <= set(IN_STEP)
    assert "ARBITRATING" not in trial.history(trial.beta)
    assert "path" in trial.alpha.ctl("status", "g1")
    trial.check_one_speaker()
