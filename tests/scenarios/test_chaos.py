"""A few rounds of chaos, and that the observer hears what it is there for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.etcd_server import require_etcd
from tests.pair import until
from tests.scenarios.arena import GUEST, Arena
from tests.scenarios.colo import ColoArena
from tests.scenarios.disk import Disk
from tests.scenarios.rounds import Round

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(600),  # a round may take two minutes to heal
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root"),
]
SEEDS = (1, 2, 3)


@pytest.fixture(autouse=True)
def _needs(tmp_path: Path) -> None:
    """Skip visibly where a needed part is missing; CI never skips."""
    require_etcd()
    try:
        (tmp_path / "there").mkdir()
        Disk(tmp_path / "disk", tmp_path / "there").close()
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no file system of one's own can be mounted here: {error}")


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena()
    try:
        until(made.is_protected, "the guest is protected")
        yield made
    finally:
        print(made.report())
        made.close()


def test_nobody_hears_two_speakers_in_a_few_rounds(arena: Arena) -> None:
    """`python -m tests.scenarios 1 200` runs many."""
    for seed in SEEDS:
        outcome = Round(arena, seed).run()
        assert outcome.is_good, outcome
    assert arena.words.heard > 100


def test_no_client_is_told_two_things_in_a_few_rounds_of_colo() -> None:
    """`python -m tests.scenarios 1 200 colo` runs many."""
    arena = ColoArena()
    try:
        until(arena.is_protected, "the guest is protected")
        for seed in SEEDS:
            outcome = Round(arena, seed).run()
            assert outcome.is_good, outcome
        assert arena.words.heard > 100
    finally:
        print(arena.report())
        arena.close()


def test_a_copy_is_heard_where_it_is_let_speak() -> None:
    arena = ColoArena()

    def is_heard() -> bool:
        # Nobody has failed over: whoever else is heard is the copy.
        arena.words.read()
        return arena.words.takeovers > 0

    try:
        until(arena.is_protected, "the guest is protected")
        assert not is_heard()
        arena.pair.beta.xl("sim", "colo", f"{GUEST}--incoming", "unlock")
        until(is_heard, "the copy speaks")
    finally:
        arena.close()


def test_two_speakers_are_heard_where_nobody_arbitrates() -> None:
    arena = Arena(is_arbitrated=False)
    try:
        until(arena.is_protected, "the guest is protected")
        arena.split_witness()
        arena.net.mute("alpha", "beta")
        arena.net.mute("beta", "alpha")

        def are_heard() -> bool:
            arena.words.read()
            return any("speaks since then" in each for each in arena.words.violations)

        until(are_heard, "both speak")
    finally:
        arena.close()
