"""Two daemons in COLO on the simulated Xen: what clients see, and what is refused."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from colod.cli.exits import Exit
from tests.demo_colo import Talk, comparison, create_guest, make_pair, protect
from tests.pair import SimulatedHost, kill, until
from tests.wires import Caller

pytestmark = pytest.mark.timeout(300)  # a pairing anew takes its time on a busy machine

COLO = ("--mode", "colo")
RESYNC = {"resync": "automatic"}


class Stage:
    """A pair, a switch, and a guest on alpha that nothing protects yet."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.pair, self.wire = make_pair(root, **settings)
        self._talks: list[tuple[Talk, threading.Thread]] = []

    @property
    def alpha(self) -> SimulatedHost:
        return self.pair.alpha

    @property
    def beta(self) -> SimulatedHost:
        return self.pair.beta

    def begin(self) -> None:
        """Have the guest replicated in COLO."""
        self.pair.start()
        create_guest(self.pair, self.wire)
        protect(self.pair)

    def talk(self) -> Talk:
        """Return a client that has had an answer, and asks on."""
        talk = Talk(self.pair.guest_port)
        thread = threading.Thread(target=talk.run)
        thread.start()
        self._talks.append((talk, thread))
        until(lambda: talk.answers or talk.trouble, "an answer")
        return talk

    def goes_on(self, talk: Talk) -> None:
        """Wait for a few more answers, and check that none was taken back or came twice."""
        said = len(talk.answers)
        until(lambda: len(talk.answers) > said + 5 or talk.trouble, "further answers")
        assert not talk.trouble
        assert talk.count_lost() == 0

    def goes_on_paired_anew(self, talk: Talk, pairing: str) -> None:
        """Wait until alpha has another replica than that pairing's; nobody else has spoken."""
        until(
            lambda: (
                self.alpha.state() == "PROTECTED" and self.alpha.protection().pairing != pairing
            ),
            "alpha has another replica",
        )
        self.goes_on(talk)
        assert self.speakers() == ["alpha"]

    def speakers(self) -> list[str]:
        """Return the names of the hosts that were heard, in order."""
        return [Path(root).parent.name for root in self.wire.speakers()]

    def filters(self, host: SimulatedHost, name: str) -> dict[str, Any]:
        """Return how a domain's filters stand."""
        return dict(json.loads(host.xl("sim", "colo", name, "show")))

    def log(self, host: SimulatedHost) -> str:
        """Return the ends of a host's session logs."""
        logs = (host.root / "run" / "sessions").glob("*/log")
        return "\n".join(each.read_text()[-3000:] for each in logs)

    def close(self) -> None:
        for talk, _ in self._talks:
            talk.stop()
        self.pair.close()
        self.wire.close()
        for _, thread in self._talks:
            thread.join()


@pytest.fixture
def root() -> Iterator[Path]:
    # Not pytest's own: the paths of unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="colod-") as directory:
        yield Path(directory)


@pytest.fixture
def stage(root: Path) -> Iterator[Stage]:
    made = Stage(root, **RESYNC)
    try:
        yield made
    finally:
        made.close()


def test_a_client_goes_on_with_the_survivor_on_the_connection_that_it_has(stage: Stage) -> None:
    stage.begin()
    # Made while both copies run, so each has drawn a sequence number of its own, which the next
    # checkpoint makes the same again.
    talk = stage.talk()
    until(lambda: stage.filters(stage.beta, "g1--incoming")["shifted"] == 1, "it is shifted")
    stage.alpha.die()
    stage.goes_on(talk)
    assert stage.speakers() == ["alpha", "beta"]
    until(lambda: stage.beta.state() == "ALONE", "beta is the owner")
    assert list(stage.pair.running_copies()) == ["beta"]
    shown = stage.filters(stage.beta, "g1")
    assert (shown["filters"], shown["shifted"]) == ("plain", 1)


def test_the_primary_goes_on_serving_without_its_secondary_and_is_protected_again(
    stage: Stage,
) -> None:
    stage.begin()
    talk = stage.talk()
    stage.beta.die()
    until(lambda: stage.alpha.state() not in ("PROTECTED", "DEGRADED"), "alpha is alone")
    stage.goes_on(talk)
    assert stage.filters(stage.alpha, "g1")["filters"] == "plain"
    stage.beta.start_daemon()
    until(lambda: stage.alpha.state() == "PROTECTED", "alpha is PROTECTED again")
    stage.goes_on(talk)
    assert stage.speakers() == ["alpha"]


def until_made(stage: Stage, count: int) -> None:
    """Wait until so many checkpoints were made for a reason."""
    until(lambda: sum(comparison(stage.alpha)["made"].values()) >= count, "a checkpoint is made")


def test_copies_that_differ_are_made_equal_and_no_client_hears_of_it(stage: Stage) -> None:
    stage.begin()
    talk = stage.talk()
    for host, name in ((stage.beta, "g1--incoming"), (stage.alpha, "g1")):
        made = sum(comparison(stage.alpha)["made"].values())
        if host is stage.beta:
            host.xl("sim", "colo", name, "diverge")
        else:
            stage.alpha.xl("sim", "slow-suspend", name, "50")
        until_made(stage, made + 1)
        stage.goes_on(talk)
    told = comparison(stage.alpha)
    assert told["made"].get("payload", 0) >= 1
    assert (told["lost_frames"], told["uncut"]) == (0, 0)
    text = stage.alpha.metrics()
    assert 'colod_colo_checkpoints_total{guest="g1",reason="payload"}' in text
    assert "colod_epoch_compare_seconds_bucket" in text


@pytest.mark.parametrize("fixed", ["", "filters", "filters, incoming"])
def test_a_copy_whose_session_died_is_heard_by_nobody_and_replaced(
    stage: Stage, fixed: str
) -> None:
    # A mended xl takes the filters away at the end of its input: then only the plug is left.
    (stage.beta.root / "xen" / "xl.conf").write_text(f'sim_colo_fixed="{fixed}"\n')
    stage.begin()
    talk = stage.talk()
    pairing = stage.alpha.protection().pairing
    for pid in stage.beta.session_pids():
        kill(pid)
    stage.goes_on_paired_anew(talk, pairing)


def test_a_primary_whose_session_stood_still_is_not_heard_after_the_takeover(stage: Stage) -> None:
    stage.begin()
    talk = stage.talk()
    assert stage.alpha.daemon is not None
    still = [stage.alpha.daemon.pid, *stage.alpha.session_pids()]
    for pid in still:
        kill(pid, signal.SIGSTOP)
    until(lambda: stage.beta.state() == "ALONE", "beta has taken over")
    stage.goes_on(talk)
    for pid in still:
        kill(pid, signal.SIGCONT)
    until(lambda: stage.beta.state() == "PROTECTED", "alpha has the replica")
    stage.goes_on(talk)
    assert stage.speakers() == ["alpha", "beta"]


def test_an_operators_failover_takes_the_guest_from_a_primary_that_lives(stage: Stage) -> None:
    stage.begin()
    talk = stage.talk()
    # xl is gone long before the session has done what it left undone: the copy can run all the same
    stage.beta.xl("sim", "delay", "rename", "2")
    stage.beta.ctl("failover", "g1", "--yes")
    stage.goes_on(talk)
    assert stage.speakers() == ["alpha", "beta"]
    until(lambda: stage.beta.state() == "PROTECTED", "it is replicated back")
    stage.goes_on(talk)
    assert stage.speakers() == ["alpha", "beta"]


def test_an_operator_is_told_of_a_takeover_that_could_not_be(stage: Stage) -> None:
    stage.begin()
    talk = stage.talk()
    pairing = stage.alpha.protection().pairing
    stage.beta.xl("sim", "fail", "rename")
    done = stage.beta.try_ctl("failover", "g1", "--yes")
    assert done.returncode == Exit.REFUSED
    assert "handed back" in done.stderr
    assert "colodctl history g1" in done.stderr
    stage.goes_on_paired_anew(talk, pairing)


def test_a_copy_whose_xl_dies_before_it_lets_go_never_runs(stage: Stage) -> None:
    stage.begin()
    talk = stage.talk()
    pairing = stage.alpha.protection().pairing
    stage.beta.xl("sim", "delay", "pause", "3")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stage.beta.try_ctl, "failover", "g1", "--yes")
        until(lambda: stage.beta.state() == "PROMOTING", "the copy is being handed over")
        for pid in stage.beta.xl_pids():
            kill(pid)
        done = asked.result()
    assert done.returncode == Exit.REFUSED, done.stderr
    stage.goes_on_paired_anew(talk, pairing)


def refused(stage: Stage, *options: str) -> str:
    """Return why `protect` in COLO does not begin; nothing may have begun."""
    argv = ("protect", "g1", "--to", "beta", *COLO, *options)
    done = stage.alpha.try_ctl(*argv)
    assert done.returncode != 0
    assert not stage.alpha.status()
    return done.stderr + done.stdout


def test_what_colo_cannot_do_is_refused_with_what_to_do_instead(root: Path) -> None:
    stage = Stage(root)
    try:
        stage.pair.start()
        stage.pair.create_guest(vif=["bridge=br0", "bridge=br0"], disk=["phy:/dev/null,xvda,w"])
        said = " ".join(refused(stage, "--disks", "external").split())
        for reason in ("for HVM guests", "has 2", "would write to the guest's disks", "sim_wire"):
            assert reason in said
        assert said.count("--mode remus") >= 3
        (stage.beta.root / "xen" / "xl.conf").write_text('sim_colo="off"\n')
        assert "beta: its libxl was built without COLO" in " ".join(
            refused(stage, "--disks", "none").split()
        )
        assert "100 to 4500" in refused(stage, "--disks", "none", "--interval-ms", "9000")
    finally:
        stage.close()


def test_an_operator_has_a_checkpoint_made_on_the_primary_only(stage: Stage) -> None:
    stage.begin()
    before = comparison(stage.alpha)["checkpoints"]
    made = json.loads(stage.alpha.ctl("checkpoint", "now", "g1", "--json"))["checkpoints"]
    assert made > before
    assert comparison(stage.alpha)["checkpoints"] >= made
    done = stage.beta.try_ctl("checkpoint", "now", "g1")
    assert done.returncode != 0
    assert "run it on alpha" in " ".join((done.stdout + done.stderr).split())


def test_a_switchover_is_refused_in_colo_and_says_how_it_goes(stage: Stage) -> None:
    stage.begin()
    done = stage.alpha.try_ctl("switchover", "g1", "--yes")
    assert done.returncode != 0
    assert "protect --mode remus" in " ".join((done.stdout + done.stderr).split())
    again = stage.alpha.try_ctl(
        "protect", "g1", "--to", "beta", "--disks", "none", "--mode", "remus"
    )
    assert "--mode colo" in " ".join((again.stdout + again.stderr).split())
    assert stage.alpha.state() == "PROTECTED"
    stage.alpha.ctl("unprotect", "g1")
    until(lambda: stage.filters(stage.alpha, "g1")["filters"] == "plain", "no filters are left")
    caller = Caller(stage.pair.guest_port)
    assert caller.ask()["intact"]
    caller.close()
