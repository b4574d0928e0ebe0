"""What protection costs the lab's guest, beside stock Remus: python -m tests.xen.figures [ROUNDS]

In every round the same guest is measured unprotected, under stock `xl remus -n` through ssh, and
under colod, one after the other on the same two hosts. Prints a table in Markdown. Emulated
processors are slow: only the ratios between the columns mean anything.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.xen.colod_hosts import ColodHosts
from tests.xen.guest import NAME, REPLICA
from tests.xen.lab import Lab
from tests.xen.stock import hold_replica, signal_process, wait_for

INTERVAL_MS = 200
MEASURED_S = 30.0
CHECKPOINTS = 5
ROUNDS = 3
STOCK = f"xl remus -F -n -d -i {INTERVAL_MS} {NAME} beta >/run/remus.log 2>&1"


@dataclass(frozen=True)
class Cost:
    """What a client saw in one stretch of time.

    Attributes:
        answers_s: How long each answer took, in seconds.
        progress: Ticks of the guest's counter in each second.
    """

    answers_s: list[float]
    progress: float


def measure(lab: Lab, for_s: float = MEASURED_S) -> Cost:
    """Ask the guest over UDP, one question at a time."""
    first, began = lab.client.wait_for_answer(), time.monotonic()
    answers_s: list[float] = []
    while time.monotonic() < began + for_s:
        asked = time.monotonic()
        last = lab.client.read_datagram(20)
        answers_s.append(time.monotonic() - asked)
        time.sleep(0.05)
    return Cost(answers_s, (last.counter - first.counter) / (time.monotonic() - began))


@contextmanager
def unprotected(_: ColodHosts) -> Iterator[None]:
    """Leave the guest alone."""
    yield


@contextmanager
def stock_remus(hosts: ColodHosts) -> Iterator[None]:
    """Replicate by stock Xen, which holds no output; at the end the replica is destroyed."""
    hosts.alpha.start(STOCK)
    wait_for(lambda: _checkpoints(hosts) >= CHECKPOINTS, 180, "checkpoints of stock Remus")
    yield
    hold_replica(hosts.beta)
    signal_process(hosts.alpha, "migrate-receive -r")
    wait_for(lambda: not hosts.pids(hosts.alpha, "bin/xl remus"), 60, "the end of xl remus")
    for name in {NAME, REPLICA} & hosts.beta.domains().keys():
        hosts.beta.run(f"xl destroy {name}")


def _checkpoints(hosts: ColodHosts) -> int:
    """Return how many checkpoints the receiver has told of, by ssh's standard error."""
    done = hosts.alpha.run("grep -c 'records processed' /run/remus.log", check=False)
    return int(done.stdout or 0)


@contextmanager
def colod(hosts: ColodHosts) -> Iterator[None]:
    """Protect by colod, with output held; at the end the guest is unprotected."""
    hosts.protect(interval_ms=INTERVAL_MS)
    hosts.reaches(hosts.alpha, "PROTECTED")
    yield
    hosts.unprotect(hosts.alpha)
    wait_for(lambda: not hosts.status(hosts.alpha), 60, "the end of the protection")


WAYS: dict[str, Callable[[ColodHosts], AbstractContextManager[None]]] = {
    "unprotected": unprotected,
    "stock `xl remus -n`, ssh": stock_remus,
    "colod, output held": colod,
}


def table(costs: dict[str, list[Cost]]) -> Iterator[str]:
    """Give the table's lines: medians over the rounds, and the lowest and highest round."""
    yield "| | median answer | longest answer | progress of the guest |"
    yield "|---|---|---|---|"
    base = statistics.median(cost.progress for cost in costs["unprotected"])
    for name, rounds in costs.items():
        cells = [
            _spread([statistics.median(cost.answers_s) * 1000 for cost in rounds], "{:.0f} ms"),
            _spread([max(cost.answers_s) * 1000 for cost in rounds], "{:.0f} ms"),
            _spread([cost.progress / base for cost in rounds], "{:.2f}"),
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def _spread(values: list[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


def main(words: list[str]) -> int:
    """Measure, and print the table."""
    rounds = int(words[0]) if words else ROUNDS
    lab = Lab.start(lambda text: print(text, file=sys.stderr))
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    try:
        for number in range(1, rounds + 1):
            lab.restore()
            hosts = ColodHosts(lab)
            for name, way in WAYS.items():
                with way(hosts):
                    costs[name].append(measure(lab))
                print(f"figures: round {number}, {name}: done", file=sys.stderr)
    finally:
        lab.close()
    print(f"{rounds} rounds of {MEASURED_S:.0f} s each, a checkpoint every {INTERVAL_MS} ms:\n")
    print("\n".join(table(costs)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
