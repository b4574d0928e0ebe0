"""Each parser for a while, every input that once was a finding, and that faults are found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.broken import BROKEN
from tests.fuzz.engine import CORPUS, fault_of, regressions, search
from tests.fuzz.targets import TARGETS

SECONDS = float(os.environ.get("COLOD_FUZZ_SECONDS", "2"))
"""Of processor time for each target."""
SEED = 1
REGRESSIONS = [(name, path) for name in TARGETS for path in regressions(name)]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Keep gRPC's own lines, of refused handshakes, out of the output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRPC_VERBOSITY", "NONE")
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_a_while_of_fuzzing_finds_nothing(name: str) -> None:
    outcome = search(TARGETS[name].load(), seed=SEED, seconds=SECONDS)
    assert outcome.fault is None, f"{outcome.fault.save(CORPUS / name)}\n{outcome.fault.trace}"
    assert outcome.kinds > 1, "the target says the same of all inputs: it reaches nothing"


@pytest.mark.parametrize(
    ("name", "path"), REGRESSIONS, ids=[f"{name}-{path.name}" for name, path in REGRESSIONS]
)
def test_what_once_was_found_is_mended(name: str, path: Path) -> None:
    fault = fault_of(TARGETS[name].load(), path.read_bytes())
    assert fault is None, fault.trace


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_are_no_findings_and_are_taken(name: str) -> None:
    target = TARGETS[name].load()
    seeds = list(target.seeds())
    assert seeds
    assert all(fault_of(target, octets) is None for octets in seeds)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_planted_fault_is_found_and_its_input_shows_it_again(fault: str, tmp_path: Path) -> None:
    target, words = BROKEN[fault]
    outcome = search(target, seed=SEED, seconds=60, executions=20_000)
    assert outcome.fault is not None, f"not in {outcome.executions} executions"
    assert words in outcome.fault.what
    again = fault_of(target, outcome.fault.save(tmp_path).read_bytes())
    assert again is not None
    assert words in again.what


def test_a_seed_decides_all_inputs() -> None:
    target = TARGETS["frames"].load()
    first, again = (search(target, seed=7, seconds=60, executions=300) for _ in "ab")
    other = search(target, seed=8, seconds=60, executions=300)
    assert first.pool == again.pool
    assert first.pool != other.pool


def test_no_input_is_kept_for_a_target_that_there_is_not() -> None:
    assert {path.parent.name for path in CORPUS.glob("*/*")} <= TARGETS.keys()
