"""One guided search in a process of its own: `python -m tests.fuzz.guided NAME FINDINGS ARGUMENTS`.

atheris (libFuzzer) instruments the parsers' modules and keeps inputs that reach something new.
Findings are kept and passed over, one of each kind, so that the first does not hide the second;
what libFuzzer itself finds (memory of the whole process, a run that does not end) ends the search.
ARGUMENTS are libFuzzer's. Extra `fuzz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

from tests.fuzz.engine import fault_of
from tests.fuzz.targets import TARGETS

_MEASURE_EVERY = 8
"""Counting memory takes longer than most runs do."""
_FINDINGS_MAX = 50


def main() -> None:
    """Search; libFuzzer ends the process."""
    name, findings = sys.argv[1], Path(sys.argv[2])
    entry = TARGETS[name]
    with atheris.instrument_imports(include=list(entry.parsers)):
        target = entry.load()
    seen: set[str] = set()
    count = 0

    def run(octets: bytes) -> None:
        nonlocal count
        count += 1
        fault = fault_of(target, octets, measures=count % _MEASURE_EVERY == 0)
        if fault is None:
            return
        where = fault.trace.rpartition('File "')[2].partition("\n")[0]
        if where not in seen and len(seen) < _FINDINGS_MAX:
            seen.add(where)
            fault.save(findings)

    atheris.Setup([sys.argv[0], *sys.argv[3:]], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
