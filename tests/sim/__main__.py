"""`python -m tests.sim [FIRST] [COUNT]`: run seeds and say what became of them."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.sim.run import run_seed


def main(first: int, count: int) -> int:
    """Run the seeds; return 0 if all of them ended well."""
    began, ends, faults, bad = time.monotonic(), Counter[str](), Counter[str](), 0
    for seed in range(first, first + count):
        outcome = run_seed(seed)
        ends[outcome.end] += 1
        faults.update(outcome.faults)
        if not outcome.is_good:
            bad += 1
            print(f"seed {seed}: {outcome.end}: {outcome.violations[:3]} {outcome.states}")
            if count == 1:
                print("\n".join(outcome.log))
    took_s = time.monotonic() - began
    print(f"{count} seeds from {first} in {took_s:.0f} s: {bad} bad; ends: {dict(ends)}")
    print(f"faults: {dict(faults)}")
    return 1 if bad else 0


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:]]
    sys.exit(main(*(numbers + [0, 100][len(numbers) :])))
