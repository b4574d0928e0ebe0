"""One, four and sixteen guests at once: throughput, pause, memory, and what an idle one costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread

from tests.bench.bed import MIB, Relay, epoch, timed
from tests.bench.table import Figure, Row, Section

COUNTS = (1, 4, 16)
EPOCH_BYTES = 4 * MIB
EPOCHS = 4
STAGING_BYTES = 32 * MIB
IDLE_S = 3.0


def measure(rounds: int) -> Section:
    """Run all rounds, each with all numbers of guests."""
    data = epoch(EPOCH_BYTES)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
    for _ in range(rounds):
        for count in COUNTS:
            found[count].append(_at_once(count, data))
    return Section(
        "Many guests",
        f"A sender and a receiver each; all write {EPOCHS} checkpoints of {EPOCH_BYTES // MIB} MiB "
        f"at the same time, with {STAGING_BYTES // MIB} MiB of staging memory each. *Blocked* is "
        "the median time that a checkpoint takes out of libxl's hands. The rival is one guest of "
        "the same round. *Idle*: after the first copy, for a while, nothing but signs of life.",
        list(_rows(found)),
    )


def _rows(found: dict[int, list[dict[str, float]]]) -> Iterator[Row]:
    def figure(count: int, name: str, unit: str) -> Figure:
        return Figure([each[name] for each in found[count]], unit)

    for count in COUNTS:
        for name, unit, what in (
            ("speed", "MB/s", "all together"),
            ("blocked", "ms", "blocked"),
            ("memory", "MiB", "memory of each"),
            ("idle", "ms/s", "processor time of each when idle"),
        ):
            is_flat = name in ("memory", "idle") and count > 1
            yield Row(
                f"{what}, {count} guest{'s' if count > 1 else ''}",
                figure(count, name, unit),
                figure(1, name, unit) if count > 1 else None,
                "one guest",
                most=1.15 if is_flat else None,
            )


def _at_once(count: int, data: bytes) -> dict[str, float]:
    with ExitStack() as stack:
        relays = [stack.enter_context(Relay(STAGING_BYTES)) for _ in range(count)]
        before = sum(relay.cpu_s() for relay in relays)
        time.sleep(IDLE_S)
        idle = (sum(relay.cpu_s() for relay in relays) - before) / IDLE_S / count
        blocked: list[float] = []
        threads = [Thread(target=_replicate, args=(each, data, blocked)) for each in relays]
        began = timed()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = timed() - began
        memory = sum(relay.memory_bytes() for relay in relays) / count
    return {
        "speed": count * EPOCHS * len(data) / took / 1e6,
        "blocked": statistics.median(blocked) * 1000,
        "memory": memory / MIB,
        "idle": idle * 1000,
    }


def _replicate(relay: Relay, data: bytes, blocked: list[float]) -> None:
    for _ in range(EPOCHS):
        began = timed()
        relay.write(data)
        blocked.append(timed() - began)
        relay.await_ack()
