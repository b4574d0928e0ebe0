"""Coverage of the parsers by a folder of inputs: `python -m tests.fuzz.measure NAME FOLDER...`.

In a process of its own, that nothing may be imported before it is looked at. Extra `fuzz`.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import coverage

from tests.fuzz.engine import CORPUS, fault_of
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Print one JSON object: lines and branches, reached and all, of each module."""
    name, *folders = sys.argv[1:]
    entry = TARGETS[name]
    files = {module: _file_of(module) for module in entry.parsers}
    watched = coverage.Coverage(branch=True, include=list(files.values()), data_file=None)
    watched.start()
    target = entry.load()
    inputs = [*target.seeds(), b""]
    for folder in (CORPUS / name, *map(Path, folders)):
        inputs += [path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()]
    faults = 0
    for octets in inputs:
        faults += fault_of(target, octets, measures=False) is not None
    watched.stop()
    print(json.dumps({"inputs": len(inputs), "faults": faults, "modules": _report(watched, files)}))


def _file_of(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


def _report(watched: coverage.Coverage, files: dict[str, str]) -> dict[str, dict[str, object]]:
    with tempfile.NamedTemporaryFile(suffix=".json") as made:
        with contextlib.redirect_stdout(io.StringIO()):
            watched.json_report(outfile=made.name)
        report = json.loads(Path(made.name).read_text())["files"]
    found = {}
    for path, told in report.items():
        module = next(name for name, file in files.items() if Path(file) == Path(path).absolute())
        summary = told["summary"]
        found[module] = {
            "lines": [summary["covered_lines"], summary["num_statements"]],
            "branches": [summary["covered_branches"], summary["num_branches"]],
            "missing": told["missing_lines"],
        }
    return found


if __name__ == "__main__":
    main()
