"""Benchmarks, each beside its rival in the same rounds: `python -m tests.bench [NAME...]`.

A benchmark is a module of this package with a function `measure(rounds) -> Section`; add its name
to BENCHMARKS. Absolute figures are this machine's; only ratios mean anything elsewhere.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from tests.bench.bed import enter_own_network
from tests.bench.table import Measure, Section

BENCHMARKS = {
    "relay": "throughput beside socat and ssh",
    "transports": "each transport beside plain tcp, socat and ssh, over links of all kinds",
    "blocking": "pause and acknowledgement on a paced link",
    "commits": "empty epochs beside a ping-pong",
    "comparator": "comparing frames beside QEMU's colo-compare",
    "delta": "page deltas beside zstd alone",
    "guests": "many guests at once",
    "detection": "a silent host's replacement beside keepalived",
}
_ROUNDS = 7
BEGIN = "<!-- generated: make bench -->"
END = "<!-- end of what is generated -->"


def main(argv: list[str] | None = None) -> int:
    """Run the chosen benchmarks and print their tables; 1 if a bar was missed."""
    options = _parser().parse_args(argv)
    enter_own_network()
    sections = []
    for name in options.names or BENCHMARKS:
        measure: Measure = importlib.import_module(f"tests.bench.{name}").measure
        section = measure(options.rounds)
        sections.append(section)
        if not options.json:
            print(section.to_markdown(), end="\n\n", flush=True)
    if options.json:
        document = {"machine": machine(), "sections": [each.to_json() for each in sections]}
        print(json.dumps(document, indent=1))
    else:
        print(f"{options.rounds} rounds, median (min–max). {machine()}")
    if options.write:
        _write(options.write, sections, options.rounds)
    return 1 if _missed(sections) else 0


def _write(document: Path, sections: list[Section], rounds: int) -> None:
    """Replace the part of a document between the marks by the tables."""
    head, _, rest = document.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    tables = "\n\n".join(section.to_markdown() for section in sections)
    about = f"{rounds} rounds, median (min–max). {machine()}"
    document.write_text(f"{head}{BEGIN}\n\n{about}\n\n{tables}\n\n{END}{tail}")


def machine() -> str:
    """Return what the figures were measured on, and how busy that was."""
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"Python {platform.python_version()}, Linux {platform.release()}, {_cpu()}, "
        f"{os.cpu_count()} CPUs, load {load}."
    )


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _missed(sections: list[Section]) -> bool:
    return any(row.is_met is False for section in sections for row in section.rows)


def _parser() -> argparse.ArgumentParser:
    listed = ", ".join(f"{name} ({what})" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=f"Runs {listed}.")
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="at least 5 to be published")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables there, too")
    parser.add_argument("--json", action="store_true", help="all rounds, for programs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
