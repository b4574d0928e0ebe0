"""Fixtures of integration tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.pair_trial import MakeTrial, Trial, trials


@pytest.fixture
def make_trial() -> Iterator[MakeTrial]:
    """Make pairs of simulated hosts; after the test each is checked and ended."""
    # Not tmp_path: the paths of unix sockets end at 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="colod-"))
    try:
        yield from trials(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def trial(make_trial: MakeTrial) -> Trial:
    """Return a pair whose limits no busy machine reaches by itself."""
    return make_trial(suspect_s=8.0, silence_s=6.0)
