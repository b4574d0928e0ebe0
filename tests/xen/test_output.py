"""Output commit on real Xen, with the real plug: nothing a client saw is ever taken back."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.xen.colod_hosts import RECEIVER, ColodHosts
from tests.xen.guest import NAME, Kind
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.recorder import CHANNELS, Channel, Heard, Recorder, taken_back
from tests.xen.sniffer import Capture, Provoker, Sniffer
from tests.xen.stock import wait_for

pytestmark = pytest.mark.lab

SEED = int(os.environ.get("COLOD_SOAK_SEED", "1"))
MOMENTS = 20
MOMENTS_IN_CI = 5
WITHOUT_GATE = 5
STOPPED_S = 30.0
"""How long acknowledgements are withheld at most."""
PROTOCOLS = {"ipv4", "ipv6", "arp"}
GRACE_S = 0.5
"""What was in this machine's own queues when the host died has been read by then; a takeover comes
many seconds later."""


@pytest.mark.usefixtures("time_is_left")  # first, so that no pair is restored in vain
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(number, marks=[pytest.mark.lab_ci] if number < MOMENTS_IN_CI else [])
        for number in range(MOMENTS)
    ],
)
def test_no_answer_is_taken_back_whenever_the_host_dies(pair: Lab, moment: int) -> None:
    hosts = ColodHosts(pair)
    hosts.protect()
    hosts.reaches(hosts.alpha, "PROTECTED")
    heard, died_at = answers_around_the_death_of(hosts, at=random.Random(SEED + moment))
    assert taken_back(heard, died_at) == []
    by_tcp = [each for each in heard if each.channel == "tcp"]
    across = {each.connection for each in by_tcp if each.at <= died_at}
    across &= {each.connection for each in by_tcp if each.at > died_at}
    assert across, "no TCP connection lived through the takeover"


@pytest.mark.lab_ci
def test_without_the_gate_the_same_client_catches_lost_output(lab: Lab) -> None:
    """The judge is judged: with output not held, it must find what was taken back."""
    for number in range(1, WITHOUT_GATE + 1):
        lab.restore()
        hosts = ColodHosts(lab, hold="off")
        hosts.protect()
        # A connection whose lost bytes the client has acknowledged never speaks again.
        heard, died_at = answers_around_the_death_of(
            hosts, at=random.Random(SEED + number), until=("udp",)
        )
        if found := taken_back(heard, died_at):
            print(f"output not held, death {number}: taken back: {'; '.join(found)}")
            return
    pytest.fail(f"{WITHOUT_GATE} deaths without the gate, and nothing was seen to be lost")


@pytest.mark.parametrize("kind", ["pv", "pvh", "hvm"])
def test_every_protocol_is_held_until_its_epoch_is_acknowledged(pair: Lab, kind: Kind) -> None:
    if kind != "pv":
        pair.replace_guest(kind)
    hosts = ColodHosts(pair, silence_s=STOPPED_S + 10, suspect_s=STOPPED_S + 15)
    hosts.protect()
    hosts.reaches(hosts.alpha, "PROTECTED", limit_s=300)
    hosts.commits(5, limit_s=300)
    capture = Capture(hosts.alpha, interface_of(hosts.alpha, kind))
    with Sniffer(pair.namespace, hosts.alpha) as outside, Provoker(pair.namespace) as provoker:
        provoker.provoke(3)
        wait_for(lambda: outside.counts().keys() >= PROTOCOLS, 60, f"{PROTOCOLS} outside")
        time.sleep(2)  # the guest speaks only when it is asked: all of that has left now
        made_before = capture.counts()
        with hosts.stopped(hosts.beta, RECEIVER):
            time.sleep(0.5)
            seen, end = outside.counts(), time.monotonic() + STOPPED_S - 5
            made: Counter[str] = Counter()
            while not made.keys() >= PROTOCOLS and time.monotonic() < end:
                provoker.provoke(1)
                made = capture.counts() - made_before
            seen_while_unacknowledged = outside.counts() - seen
        assert made.keys() >= PROTOCOLS, f"the guest said only {dict(made)}"
        assert not seen_while_unacknowledged
        wait_for(lambda: (outside.counts() - seen).keys() >= PROTOCOLS, 60, "what was held")
    print(f"output: {kind}: held {dict(made)} before the gate, nothing behind it")
    assert_lock_step_is_certain(hosts)
    heard, died_at = answers_around_the_death_of(hosts, at=random.Random(SEED))
    assert taken_back(heard, died_at) == []


def interface_of(host: Host, kind: Kind) -> str:
    """Return the name in dom0 of the interface by which the guest speaks."""
    suffix = "-emu" if kind == "hvm" else ""
    return f"vif{host.domains()[NAME].domid}.0{suffix}"


def assert_lock_step_is_certain(hosts: ColodHosts) -> None:
    """Most suspended windows got their barrier, and none was left out for want of the lock-step."""
    gate = hosts.gate(hosts.alpha)
    print(f"output: barriers {gate['barriers']}, skipped {gate.get('skipped', {})}")
    assert int(gate["barriers"]) >= 5
    assert "not_locked" not in gate.get("skipped", {})


def answers_around_the_death_of(
    hosts: ColodHosts, *, at: random.Random, until: Sequence[Channel] = CHANNELS
) -> tuple[list[Heard], float]:
    """Kill the primary host at a random moment of replication, and let the guest go on elsewhere.

    Args:
        hosts: With the guest protected.
        at: Tells the moment.
        until: By which channels answers of the new copy are waited for.

    Returns:
        All that a client heard, and when the host was dead.
    """
    with Recorder(hosts.lab.client) as recorder:
        hosts.commits(5)
        began = time.monotonic()
        for channel in CHANNELS:
            recorder.wait_for(began, channel, 1, 60)
        time.sleep(at.uniform(0, 3))
        hosts.alpha.kill()
        died_at = time.monotonic() + GRACE_S
        hosts.reaches(hosts.beta, "ALONE", limit_s=240)
        for channel in until:
            recorder.wait_for(died_at, channel, 20, 120)
    heard = recorder.heard()
    assert hosts.lab.running_copies() == [f"beta:{NAME}"]
    report(heard, died_at)
    return heard, died_at


def report(heard: list[Heard], died_at: float) -> None:
    """Print what was heard, for the log of a long run."""
    before = [each for each in heard if each.at <= died_at]
    after = [each for each in heard if each.at > died_at]
    print(
        f"output: {len(before)} answers before the death (newest reply "
        f"{max(each.reading.reply for each in before)}), {len(after)} after (oldest reply "
        f"{min(each.reading.reply for each in after)}); "
        f"mute for {min(each.at for each in after) - max(each.at for each in before):.1f} s"
    )
