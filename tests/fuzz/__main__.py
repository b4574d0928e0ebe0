"""Long runs: `python -m tests.fuzz NAME|all --seconds N`; see docs/fuzzing.md.

Each target is searched in a process of its own: guided by coverage where atheris is installed
(extra `fuzz`), else by chance. The inputs that brought something new stay under `build/fuzz/NAME`
for the next run; a finding is kept below `tests/fuzz/corpus/NAME`, where `make test` tries it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.fuzz.engine import CORPUS, fault_of, regressions, search
from tests.fuzz.targets import TARGETS

_ROOT = Path(__file__).parents[2]
_WORK = _ROOT / "build" / "fuzz"
_UNITS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_RSS_MIB = 2048


@dataclass
class Told:
    """What became of one target."""

    executions: int = 0
    kept: int = 0
    findings: list[Path] = field(default_factory=list)
    how: str = ""
    output: str = ""


def main(argv: list[str] | None = None) -> int:
    """Search, and print what came of it; 1 if anything was found."""
    options = _parser().parse_args(argv)
    if options.replay:
        return _replay(options.names[0], options.replay)
    names = list(TARGETS) if options.names == ["all"] else options.names
    is_guided = find_spec("atheris") is not None and not options.by_chance
    is_found = False
    for name in names:
        told = (_guided if is_guided else _by_chance)(name, options.seconds, options.seed)
        is_found |= bool(told.findings)
        print(
            f"{name}: {told.executions} executions {told.how}, {told.kept} inputs kept, "
            f"{len(told.findings)} findings",
            flush=True,
        )
        if find_spec("coverage") is not None:
            _print_coverage(name)
        for path in told.findings:
            print(f"  {path.relative_to(_ROOT)}: {_what(name, path)}")
        if told.output:
            print(told.output)
    return 1 if is_found else 0


def _parser() -> argparse.ArgumentParser:
    listed = ", ".join(TARGETS)
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=f"Targets: {listed}.")
    parser.add_argument("names", nargs="+", choices=["all", *TARGETS], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="decides all inputs, if by chance")
    parser.add_argument("--by-chance", action="store_true", help="even where atheris is installed")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this one input instead")
    return parser


def _replay(name: str, path: Path) -> int:
    fault = fault_of(TARGETS[name].load(), path.read_bytes())
    print(fault.trace if fault else "no finding")
    return 1 if fault else 0


def _what(name: str, path: Path) -> str:
    fault = fault_of(TARGETS[name].load(), path.read_bytes())
    return fault.what[:300] if fault else "not when run alone: a hang, or memory of the process"


def _by_chance(name: str, seconds: float, seed: int) -> Told:
    kept = [path.read_bytes() for path in regressions(name)]
    outcome = search(TARGETS[name].load(), seed=seed, seconds=seconds, kept=kept)
    folder = _WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, octets in enumerate(outcome.pool):
        (folder / f"chance-{seed}-{number}").write_bytes(octets)
    told = Told(outcome.executions, len(outcome.pool), how=f"by chance, seed {seed}")
    if outcome.fault is not None:
        told.findings.append(outcome.fault.save(CORPUS / name))
    return told


def _guided(name: str, seconds: float, seed: int) -> Told:
    target = TARGETS[name].load()
    folder, crashes = _WORK / name, CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for number, octets in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(octets)
    known = set(regressions(name))
    argv = [sys.executable, "-m", "tests.fuzz.guided", name, str(crashes), str(folder)]
    argv += [str(crashes)] if known else []
    argv += [f"-max_total_time={seconds:.0f}", f"-seed={seed}", f"-max_len={target.max_bytes}"]
    argv += ["-print_final_stats=1", "-timeout=600", f"-rss_limit_mb={_RSS_MIB}", "-verbosity=0"]
    argv += [f"-artifact_prefix={crashes}/"]
    # The parsers' modules must be those that are instrumented.
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    ran = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    found = _UNITS.search(ran.stderr)
    findings = [path for path in regressions(name) if path not in known]
    if not regressions(name):
        crashes.rmdir()
    return Told(
        int(found[1]) if found else 0,
        sum(1 for _ in folder.iterdir()),
        findings,
        "guided by coverage",
        "" if found else ran.stderr[-2000:],
    )


def _print_coverage(name: str) -> None:
    argv = [sys.executable, "-m", "tests.fuzz.measure", name, str(_WORK / name)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    ran = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    try:
        told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        print(f"  no coverage: {ran.stderr[-500:]}")
        return
    for module, counts in told["modules"].items():
        lines, branches = counts["lines"], counts["branches"]
        print(
            f"  {module}: {_share(lines)} of lines, {_share(branches)} of branches; "
            f"not reached: {_ranges(counts['missing'])}"
        )


def _share(counts: list[int]) -> str:
    reached, whole = counts
    return f"{100 * reached / whole:.0f} % ({reached}/{whole})" if whole else "all"


def _ranges(lines: list[int]) -> str:
    """Return line numbers with neighbours as ranges."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts) or "none"


if __name__ == "__main__":
    sys.exit(main())
