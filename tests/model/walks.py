"""The walks that show the promises: a few for every change, the rest by `make model-long`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from colod.failover.explorer import Walk, explore
from colod.failover.world import KINDS, Bounds, Model

MAX_STATES = 60_000_000


@dataclass(frozen=True)
class Case:
    """A walk.

    Attributes:
        what: What it shows.
        bounds: What may happen in it.
        at_least: How many worlds it must see: fewer would mean that the model has lost something.
    """

    what: str
    bounds: Bounds
    at_least: int

    def __str__(self) -> str:
        """Name the test."""
        return self.what

    def walk(self) -> tuple[Walk, Model, float]:
        """Return what the walk found, the model, and how long it took in seconds."""
        model, began = Model(self.bounds), time.monotonic()
        return explore(model, max_states=MAX_STATES), model, time.monotonic() - began


def _of(*kinds: str, faults: int = 2, **more: bool) -> Bounds:
    return Bounds(faults=faults, kinds=frozenset(kinds), **more)


_ANY = KINDS - {"fence", "restore", "force", "unprotect"}
# Without a gate, and time kept: whatever does not take the primary's daemon away.
_UNGATED = ("failover", "net", "suspicion", "witness", "write", "guest")

SHORT = (
    Case("any one accident", Bounds(faults=1, kinds=KINDS), 200_000),
    Case("any two deaths of processes", _of("daemon", "session", "xl"), 500_000),
    Case("any two of a dead host and a wrong suspicion", _of("host", "suspicion"), 200_000),
    Case("any two of a lost, late or unanswered write", _of("witness", "write"), 2_000),
    Case("any two of a cut network and an operator", _of("net", "failover"), 300_000),
    Case("a protection that ends while something dies", _of("unprotect", "daemon"), 150_000),
    Case("a host that is drained while something dies", _of("drain", "daemon"), 150_000),
    Case("a switchover while something dies", _of("switchover", "daemon", "session"), 200_000),
    Case("a switchover while cut off", _of("switchover", "net"), 200_000),
    Case("a guest that reboots while its daemon is away", _of("guest", "daemon"), 150_000),
    Case("a guest that ends while it is taken over", _of("guest", "xl", "failover"), 150_000),
    Case("a half-done effect before another accident", _of("effect", "failover", "xl"), 80_000),
    Case("a witness restored from a backup", _of("restore", "failover"), 150_000),
    Case("an operator's force", _of("force", "host"), 80_000),
    Case("shared disks, given away", _of("switchover", "session", fencing=True), 50_000),
    Case("shared disks", _of("fence", "host", "suspicion", fencing=True), 150_000),
    Case("quarantine", _of("failover", "session", keep_quarantined=True), 40_000),
    Case(
        "no gate, and time kept: two copies never run while the primary's daemon lives",
        _of(*_UNGATED[:3], gated=False, prompt=True),
        50_000,
    ),
)

LONG = (
    Case("any two accidents", Bounds(faults=2, kinds=_ANY), 5_000_000),
    Case("any one accident, two pairings", Bounds(faults=1, kinds=KINDS, pairings=2), 500_000),
    Case("any three deaths of processes", _of("daemon", "session", "xl", faults=3), 2_000_000),
    Case(
        "any two of a cut network, a dead host and a wrong suspicion, two pairings",
        Bounds(faults=2, kinds=frozenset(["net", "host", "suspicion"]), pairings=2),
        2_000_000,
    ),
    Case("a switchover while all is cut", _of("switchover", "net", "witness"), 500_000),
    Case("a witness restored while cut off", _of("restore", "net"), 2_000_000),
    Case("a witness restored while a host dies", _of("restore", "host"), 500_000),
    Case("a protection that ends while cut off", _of("unprotect", "net", "host"), 1_000_000),
    Case("shared disks, cut off", _of("host", "session", "net", fencing=True), 1_000_000),
    Case("shared disks, all dies", _of("all", "xl", "net", fencing=True), 1_000_000),
    Case(
        "no gate, and time kept: any two accidents but the death of a daemon",
        _of(*_UNGATED, "session", "xl", "host", "drain", gated=False, prompt=True),
        1_000_000,
    ),
)


def report(case: Case) -> str:
    """Walk, and return a row of docs/failover.md's table.

    Raises:
        AssertionError: If a promise is broken.
    """
    walk, model, took_s = case.walk()
    assert not walk.violations, f"{case.what}: {walk.violations[0]}"
    kinds = " ".join(sorted(model.bounds.kinds)) if model.bounds.kinds != KINDS else "all kinds"
    return (
        f"| {case.what} | {model.bounds.faults} of {kinds} | {walk.states:,} "
        f"| {walk.steps:,} | {took_s:.0f} s |"
    )


def main() -> None:
    """Walk everything and print the table."""
    print("| walk | accidents | worlds | steps | took |\n|---|---|---|---|---|")
    for case in (*SHORT, *LONG):
        print(report(case), flush=True)


if __name__ == "__main__":
    main()
