"""Runs a target: judges one input, or makes inputs by chance that a seed decides.

What a run says of itself is the guide: an input about which it says something new is changed
further. A coverage-guided search is `tests.fuzz.guided`; this one needs nothing but Python, and the
same seed gives the same inputs.
"""

from __future__ import annotations

import hashlib
import signal
import time
import traceback
import tracemalloc
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

from tests.fuzz.mutate import mutate
from tests.fuzz.target import Finding, Target

CORPUS: Final = Path(__file__).parent / "corpus"
"""Below it, by target: inputs that once were findings, and are tried first ever after."""

_MEASURE_EVERY: Final = 8
"""Counting memory takes longer than most runs do; the first inputs are all measured."""
_POOL_MAX: Final = 2000
_SEEN_MAX: Final = 50_000


@dataclass(frozen=True, slots=True)
class Fault:
    """A finding.

    Attributes:
        octets: The input.
        what: The exception, in a line.
        trace: Where it came from.
    """

    octets: bytes
    what: str
    trace: str

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"crash-{hashlib.sha1(self.octets, usedforsecurity=False).hexdigest()}"

    def save(self, directory: Path) -> Path:
        """Keep the input; return where."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.name
        path.write_bytes(self.octets)
        return path


@dataclass(slots=True)
class Outcome:
    """What a campaign has come to.

    Attributes:
        executions: How many inputs were tried.
        kinds: How many different things runs said of themselves.
        pool: Inputs that brought something new, the seeds included.
        fault: The first finding; it ends the campaign.
    """

    executions: int = 0
    kinds: int = 0
    pool: list[bytes] = field(default_factory=list)
    fault: Fault | None = None


def regressions(name: str) -> Sequence[Path]:
    """Return the inputs that are kept for a target."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())


def judge(target: Target, octets: bytes, *, measures: bool = True) -> Hashable:
    """Run one input; return what the target says of it.

    Raises:
        Finding: If it took too much memory, or too long.
        Exception: Whatever the parser raised that it should not have.
    """
    with _limited(target.cpu_s):
        if not measures or target.held_bytes is None:
            return target.run(octets)
        return _measured(target, octets, target.held_bytes(len(octets)))


def fault_of(target: Target, octets: bytes, *, measures: bool = True) -> Fault | None:
    """Run one input; return the finding, if it is one."""
    try:
        judge(target, octets, measures=measures)
    except Exception as error:
        return Fault(octets, f"{type(error).__name__}: {error}", traceback.format_exc())
    return None


def search(
    target: Target,
    *,
    seed: int,
    seconds: float,
    executions: int | None = None,
    kept: Sequence[bytes] = (),
) -> Outcome:
    """Try the seeds, what is kept, and then changes of both, until a finding or the time is over.

    Args:
        target: What to run.
        seed: Decides all inputs and their order.
        seconds: Processor time to spend; how far it comes is all that depends on it.
        executions: How many inputs to try at most.
        kept: Further inputs to begin with.
    """
    outcome = Outcome(pool=[])
    seen: set[Hashable] = set()
    deadline_s = time.process_time() + seconds
    begin = [*kept, *target.seeds(), b""]
    first = len(begin)
    for octets in _inputs(target, outcome.pool, Random(seed), begin):
        if outcome.executions >= (executions or 1 << 62) or time.process_time() > deadline_s:
            break
        outcome.executions += 1
        is_first = outcome.executions <= first
        try:
            said = judge(
                target, octets, measures=is_first or not outcome.executions % _MEASURE_EVERY
            )
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            outcome.fault = Fault(octets, what, traceback.format_exc())
            break
        if said not in seen and len(seen) < _SEEN_MAX:
            seen.add(said)
            if len(outcome.pool) < _POOL_MAX:
                outcome.pool.append(octets)
    outcome.kinds = len(seen)
    return outcome


def _inputs(
    target: Target, pool: list[bytes], chance: Random, first: Sequence[bytes]
) -> Iterator[bytes]:
    yield from first
    while True:
        others = pool or first
        yield mutate(chance, chance.choice(others), others, max_bytes=target.max_bytes)


def _measured(target: Target, octets: bytes, bound: int) -> Hashable:
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        said = target.run(octets)
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_on:
            tracemalloc.stop()
    if taken > bound:
        raise Finding(f"{taken} bytes of memory for {len(octets)} bytes, the bound is {bound}")
    return said


@contextmanager
def _limited(cpu_s: float) -> Iterator[None]:
    """Interrupt what takes more processor time than that: other processes do not count."""

    def late(_: int, __: FrameType | None) -> None:
        raise Finding(f"a hang: more than {cpu_s:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
