"""`python -m tests.scenarios [FIRST] [COUNT] [colo]`: run rounds of chaos, say how they ended."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.pair import until
from tests.scenarios.arena import Arena
from tests.scenarios.colo import ColoArena
from tests.scenarios.rounds import PROTECTED, Round


def main(first: int, count: int, make: type[Arena] = Arena) -> int:
    """Run the rounds; return 0 if all of them ended well."""
    began, ends, bad = time.monotonic(), Counter[str](), 0
    heard = takeovers = late = 0
    arena: Arena | None = None
    try:
        for seed in range(first, first + count):
            if arena is None:
                arena = make()
                until(arena.is_protected, "the guest is protected")
            outcome = Round(arena, seed).run()
            ends[outcome.end] += 1
            print(
                f"round {seed}: {outcome.end} {outcome.healed_s:.1f} s after mending: "
                f"{'; '.join(outcome.faults)}",
                flush=True,
            )
            if not outcome.is_good:
                bad += 1
                print(f"round {seed} is bad: {outcome.violations[:3]} {outcome.states}", flush=True)
                if count == 1:
                    print(arena.report())
            if outcome.end != PROTECTED or outcome.violations or seed == first + count - 1:
                words = arena.words
                heard, takeovers = heard + words.heard, takeovers + words.takeovers
                late += words.late
                arena.close()
                arena = None
    finally:
        if arena is not None:
            arena.close()
    lasted_s = time.monotonic() - began
    print(
        f"simulated Xen, {make.mode}: {count} rounds from {first} in {lasted_s:.0f} s: "
        f"{bad} bad; ends: {dict(ends)}; {heard} words heard, {takeovers} takeovers, {late} late"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:] if each != "colo"]
    first, count = numbers + [1, 20][len(numbers) :]
    sys.exit(main(first, count, ColoArena if "colo" in sys.argv[1:] else Arena))
