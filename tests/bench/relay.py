"""Throughput of the relay, unpaced and on a paced link, beside socat and ssh."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.bed import MIB, Relay, epoch, paced, timed
from tests.bench.rivals import CIPHER, Rival, send, socat, ssh, ssh_server
from tests.bench.table import Figure, Row, Section

EPOCH_BYTES = 64 * MIB
EPOCHS = 6
GBIT = 1e9
MTU_SHARE = 0.98


def measure(rounds: int) -> Section:
    """Run all rounds, each of them all ways in turn."""
    data = epoch(EPOCH_BYTES)
    speeds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with ssh_server() as client:
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            "colod": lambda: _ours(data, EPOCHS),
            "socat": lambda: _theirs(socat(), data),
            "ssh": lambda: _theirs(ssh(client), data),
        }
        for number in range(rounds):
            for name in _turned(list(ways), number):
                speed, cost = ways[name]()
                speeds.setdefault(name, []).append(speed)
                cpu.setdefault(name, []).append(cost)
    links: dict[float, tuple[list[float], list[float]]] = {1.0: ([], []), 10.0: ([], [])}
    for _ in range(rounds):
        for rate, (shares, their_shares) in links.items():
            with paced(rate * GBIT):
                shares.append(_ours(data, EPOCHS)[0] * 8 / 1000 / rate)
                their_shares.append(_theirs(socat(), data)[0] * 8 / 1000 / rate)
    ours, theirs = Figure(speeds["colod"], "MB/s"), Figure(speeds["socat"], "MB/s")
    return Section(
        "Throughput",
        f"{EPOCHS} epochs of {EPOCH_BYTES // MIB} MiB from libxl's pipe to xl's, until the last is "
        "acknowledged; XXH3-128 of the raw stream on both sides, checked at every seal. socat and "
        f"ssh ({CIPHER}) carry the same bytes and check nothing (ssh: its own MAC). Processor time "
        "of ssh is its client's only. The link is loopback, paced by the kernel's token bucket "
        "where it is said.",
        [
            Row("unpaced", ours, Figure(speeds["ssh"], "MB/s"), "ssh", least=2),
            Row("unpaced", ours, theirs, "socat"),
            Row(
                "processor seconds per GB, both sides",
                Figure(cpu["colod"], "s"),
                Figure(cpu["socat"], "s"),
                "socat",
            ),
            Row(
                "processor seconds per GB",
                Figure(cpu["colod"], "s"),
                Figure(cpu["ssh"], "s"),
                "ssh, client",
            ),
            *(
                Row(
                    f"share of a link of {rate:g} Gbit/s",
                    Figure(shares),
                    Figure(their_shares),
                    "socat",
                    least=MTU_SHARE,
                    by_ratio=False,
                )
                for rate, (shares, their_shares) in links.items()
            ),
        ],
    )


def _ours(data: bytes, epochs: int) -> tuple[float, float]:
    """Return megabytes per second, and processor seconds per gigabyte."""
    with Relay() as relay:
        before, began = relay.cpu_s(), timed()
        for _ in range(epochs):
            relay.write(data)
        relay.await_ack()
        took = timed() - began
        spent = relay.cpu_s() - before
    sent = len(data) * epochs
    return sent / took / 1e6, spent / (sent / 1e9)


def _theirs(rival: Rival, data: bytes) -> tuple[float, float]:
    began = timed()
    spent = send(rival, [data] * EPOCHS)
    sent = len(data) * EPOCHS
    return sent / (timed() - began) / 1e6, spent / (sent / 1e9)


def _turned(names: list[str], by: int) -> list[str]:
    """Return the names beginning elsewhere in each round: nobody is always first."""
    by %= len(names)
    return names[by:] + names[:by]
