"""`make demo`: a guest survives its host, shown live on the simulated Xen; no root, no hypervisor.

Ends with one line `demo: ok …` and exit status 0, or says what went wrong and exits otherwise.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pair import Pair, SimulatedHost, until

WATCH_S = 4.0
EPOCHS_AT_LEAST = 20


@dataclass
class Client:
    """A client outside both hosts that asks the guest again and again.

    Attributes:
        answers: Monotonic time and answer of each reply.
        most_running: The most copies that were ever seen running at the same time.
    """

    pair: Pair
    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    most_running: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Ask until stopped."""
        while not self._stop.is_set():
            answer = self.pair.ask_guest()
            if answer:
                self.answers.append((time.monotonic(), answer))
            time.sleep(0.02)

    def observe(self) -> None:
        """Count running copies until stopped, by the simulated Xen's own view of both hosts."""
        while not self._stop.is_set():
            self.most_running = max(self.most_running, len(self.pair.running_copies()))

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def show_replication(host: SimulatedHost) -> int:
    """Print epochs and lag for a while; return the newest acknowledged epoch."""
    acked = 0
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end or acked < EPOCHS_AT_LEAST:
        status = host.status()
        progress = status["progress"]
        acked = int(progress["acked_epoch"])
        lag_s = status["lag"]["lag_s"]
        lag = "unknown" if lag_s is None else f"{float(lag_s) * 1000:.0f} ms"
        say(
            f"   {status['state']}  epoch {acked} acknowledged  lag {lag}  "
            f"{progress.get('epoch_bytes', 0)} bytes in the last epoch"
        )
        time.sleep(0.5)
    return acked


def run(root: Path) -> str:
    """Play the demo below `root`; return the closing line."""
    pair = Pair(root, hold="automatic")
    client = Client(pair)
    threads = [threading.Thread(target=work) for work in (client.ask, client.observe)]
    try:
        say("1. two daemons, a witness on the file system, two hosts of the simulated Xen")
        pair.start()
        say("2. a simulated guest starts on alpha")
        pair.create_guest()
        say(f"   the guest says: {until(pair.ask_guest, 'the guest answers')}")
        say("3. colodctl protect g1 --to beta --disks none")
        pair.protect()
        for thread in threads:
            thread.start()
        until(lambda: pair.alpha.state() == "PROTECTED", "alpha says PROTECTED")
        show_replication(pair.alpha)
        say(pair.beta.ctl("status").rstrip())
        say("4. the host alpha dies: every process of it is killed at once")
        acked, seen = kill_primary(pair, client)
        died_at = time.monotonic()
        first_at, first = until(lambda: answer_after(client, died_at), "the guest answers again")
        say(f"   the guest says: {first}")
        until(lambda: pair.beta.state() == "ALONE", "beta says ALONE")
        say(pair.beta.ctl("status").rstrip())
        say(pair.beta.ctl("history").rstrip())
        return verdict(client, acked, seen, first, first_at - died_at)
    finally:
        client.stop()
        for thread in threads:
            if thread.ident:
                thread.join()
        pair.close()


def kill_primary(pair: Pair, client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill alpha; return an answer that was certainly acknowledged, and the last one before."""
    until(lambda: client.answers, "the client has an answer")
    acked = client.answers[-1][1]
    epoch = int(pair.beta.status()["progress"]["acked_epoch"])
    # Two whole epochs later, what `acked` shows has been acknowledged.
    until(
        lambda: int(pair.beta.status()["progress"]["acked_epoch"]) >= epoch + 2,
        "two more epochs are acknowledged",
    )
    pair.alpha.die()
    return acked, client.answers[-1][1]


def answer_after(client: Client, instant: float) -> tuple[float, dict[str, Any]] | None:
    """Return the first answer after `instant`."""
    return next(((at, each) for at, each in client.answers if at > instant), None)


def verdict(
    client: Client,
    acked: dict[str, Any],
    seen: dict[str, Any],
    first: dict[str, Any],
    rto_s: float,
) -> str:
    """Check what the client saw; return the closing line.

    Raises:
        AssertionError: If anything but a failover without loss was seen.
    """
    assert first["simulated"], first
    assert first["boot_id"] == acked["boot_id"], (first, acked)
    assert first["intact"], first
    lost = int(first["counter"] < acked["counter"])
    copies = len(client.pair.running_copies())
    say(
        f"   counter: {acked['counter']} was acknowledged, {seen['counter']} was the last seen "
        f"before, {first['counter']} the first after: no answer was taken back"
    )
    assert lost == 0, (first, acked)
    assert first["counter"] >= seen["counter"], (first, seen)
    assert copies == 1, copies
    assert client.most_running == 1, client.most_running
    return f"demo: ok rto_s={rto_s:.2f} lost_committed_epochs={lost} copies_running={copies}"


def play(title: str, run: Callable[[Path], str]) -> int:
    """Play a demo in a directory of its own, and say how it ended.

    Args:
        title: The first line.
        run: Returns the closing line.

    Returns:
        The exit status.
    """
    say(title)
    with tempfile.TemporaryDirectory(prefix="colod-") as directory:
        try:
            closing = run(Path(directory))
        except (AssertionError, OSError, KeyError) as error:
            say(f"demo: FAILED {error}")
            return 1
    say(closing)
    return 0


if __name__ == "__main__":
    sys.exit(play("colod demo on the SIMULATED Xen: no hypervisor takes part in this", run))
