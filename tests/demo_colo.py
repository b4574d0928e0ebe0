"""`make demo MODE=colo`: both copies of a guest run, and one host dies under an open connection.

On the simulated Xen; no root, no hypervisor. Ends with one line `demo: ok …` and exit status 0, or
says what went wrong and exits otherwise.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.demo import play, say
from tests.pair import Pair, SimulatedHost, until
from tests.wires import Caller, Wire

WATCH_S = 4.0
ANSWERS_AT_LEAST = 100


@dataclass
class Talk:
    """A client that asks again and again on one connection, which it never makes anew.

    Attributes:
        port: Where the guest is.
        answers: Monotonic time and answer of each reply.
        trouble: What ended the connection, "" for nothing.
    """

    port: int
    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    trouble: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until stopped."""
        caller = Caller(self.port)
        try:
            while not self._stop.is_set():
                answer = caller.ask()
                self.answers.append((time.monotonic(), answer))
                time.sleep(0.005)
        except (AssertionError, OSError) as error:
            self.trouble = repr(error)
        finally:
            caller.close()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def count_lost(self) -> int:
        """Return how many answers came twice, or were taken back: each counts on by one."""
        counters = [answer["counter"] for _, answer in self.answers]
        return sum(b != a + 1 for a, b in itertools.pairwise(counters))

    def longest_gap_s(self, since: float) -> float:
        """Return the longest time without an answer from `since` on, in seconds."""
        times = [since, *(at for at, _ in self.answers if at > since)]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def make_pair(root: Path, **settings: Any) -> tuple[Pair, Wire]:
    """Return two hosts with a guest on a wire; nothing runs yet but the switch."""
    pair = Pair(root, hold="automatic", **settings)
    return pair, Wire(root, pair.guest_port)


def create_guest(pair: Pair, wire: Wire) -> None:
    """Start the guest on alpha."""
    pair.create_guest(type="hvm", sim_wire=str(wire.socket))


def protect(pair: Pair, *options: str) -> None:
    """Protect the guest in COLO, and wait until it is PROTECTED."""
    argv = ("protect", "g1", "--to", "beta", "--disks", "none", "--mode", "colo")
    pair.alpha.ctl(*argv, *options)
    until(lambda: pair.alpha.state() == "PROTECTED", "alpha says PROTECTED")


def comparison(host: SimulatedHost) -> dict[str, Any]:
    """Return what `colodctl status` says of the comparison."""
    return dict(host.status().get("comparison") or {})


def show_traffic(pair: Pair, talk: Talk) -> None:
    """Print how the comparison goes for a while."""
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end or len(talk.answers) < ANSWERS_AT_LEAST:
        assert not talk.trouble, talk.trouble
        told = comparison(pair.alpha)
        say(
            f"   {pair.alpha.state()}  {told['released_frames']} frames left, "
            f"{told['matched_frames']} of the copy matched, {told['held_frames']} held  "
            f"{told['checkpoints']} checkpoints  {len(talk.answers)} answers"
        )
        time.sleep(0.5)


def diverge(pair: Pair, talk: Talk) -> None:
    """Have the copy do what the primary does not, and see a checkpoint make up for it."""

    def diverged() -> int:
        made = comparison(pair.alpha)["made"]
        return sum(made.get(reason, 0) for reason in ("payload", "timeout", "ack_window"))

    before, said = diverged(), len(talk.answers)
    pair.beta.xl("sim", "colo", "g1--incoming", "diverge")
    until(lambda: diverged() > before, "a checkpoint for the divergence")
    until(lambda: len(talk.answers) > said + 10, "the client gets answers")
    say(f"   checkpoints by reason: {comparison(pair.alpha)['made']}")


def run(root: Path) -> str:
    """Play the demo below `root`; return the closing line."""
    pair, wire = make_pair(root)
    talk = Talk(pair.guest_port)
    thread = threading.Thread(target=talk.run)
    try:
        say(
            "1. two daemons, a witness on the file system, two hosts of the simulated Xen, a switch"
        )
        pair.start()
        say("2. a simulated HVM guest starts on alpha; a client connects, and keeps its connection")
        create_guest(pair, wire)
        thread.start()
        until(lambda: talk.answers, "the guest answers")
        say("3. colodctl protect g1 --to beta --disks none --mode colo: both copies run")
        protect(pair)
        running = until(lambda: len(pair.running_copies()) == 2, "both copies run")
        assert running
        show_traffic(pair, talk)
        say(pair.alpha.ctl("status", "g1").rstrip())
        say("4. chance goes another way in beta's copy: its answers differ from alpha's")
        diverge(pair, talk)
        assert wire.speakers() == [str(pair.alpha.root / "xen")], wire.speakers()
        say("5. the host alpha dies: every process of it is killed at once")
        said = len(talk.answers)
        died_at = time.monotonic()
        pair.alpha.die()
        until(lambda: len(talk.answers) > said + 20, "the client gets answers again")
        until(lambda: pair.beta.state() == "ALONE", "beta says ALONE")
        say(pair.beta.ctl("status").rstrip())
        say(pair.beta.ctl("history").rstrip())
        return verdict(pair, wire, talk, died_at)
    finally:
        talk.stop()
        if thread.ident:
            thread.join()
        pair.close()
        wire.close()


def verdict(pair: Pair, wire: Wire, talk: Talk, died_at: float) -> str:
    """Check what the client saw; return the closing line.

    Raises:
        AssertionError: If anything but a failover without loss was seen.
    """
    assert not talk.trouble, talk.trouble
    lost, gap_s = talk.count_lost(), talk.longest_gap_s(died_at)
    answers = tuple(talk.answers)
    first, last = answers[0][1], answers[-1][1]
    copies = len(pair.running_copies())
    say(
        f"   {len(answers)} answers on one connection, numbered {first['counter']} to "
        f"{last['counter']} without a gap; the longest wait for one was {gap_s:.2f} s"
    )
    assert last["boot_id"] == first["boot_id"], (first, last)
    assert last["intact"], last
    assert lost == 0, lost
    assert copies == 1, copies
    roots = [str(host.root / "xen") for host in pair.hosts]
    assert wire.speakers() == roots, wire.speakers()
    return f"demo: ok rto_s={gap_s:.2f} lost_committed_epochs={lost} copies_running={copies}"


if __name__ == "__main__":
    title = "colod demo of COLO on the SIMULATED Xen: no hypervisor takes part in this"
    sys.exit(play(title, run))
