"""Fixtures of the lab; without root, QEMU or a pair that boots, its tests are skipped.

With COLOD_LAB_REQUIRED=1 they fail instead, for machines that are known to be able to.
"""

import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.xen.lab import Lab
from tests.xen.process import LabUnavailableError

TEST_S = 900
_BEGAN = time.monotonic()
_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of the lab their own time limit; fixtures have theirs inside."""
    for item in items:
        if item.get_closest_marker("lab") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_S, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember that a test failed, for the fixture that saves the logs."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Give the lab, prepared; its hosts are off."""
    try:
        prepared = Lab.start()
    except LabUnavailableError as reason:
        if os.environ.get("COLOD_LAB_REQUIRED"):
            raise
        pytest.skip(f"lab not run: {reason}")
    yield prepared
    prepared.close()


@pytest.fixture
def time_is_left() -> None:
    """Skip one more repetition where COLOD_LAB_MINUTES, which counts from the start, is over."""
    limit = float(os.environ.get("COLOD_LAB_MINUTES", "inf"))
    if (took := (time.monotonic() - _BEGAN) / 60) > limit:
        pytest.skip(f"not run: the lab's {limit:g} minutes are over ({took:.0f} were used)")


@pytest.fixture
def stock(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Give the pair freshly restored, without colod."""
    lab.restore(installed=False)
    yield lab
    _keep_logs_of_failure(lab, request)


@pytest.fixture
def pair(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Give the pair freshly restored, with the working tree's colod installed."""
    lab.restore()
    yield lab
    _keep_logs_of_failure(lab, request)


def _keep_logs_of_failure(lab: Lab, request: pytest.FixtureRequest) -> None:
    if request.node.stash.get(_FAILED, False):
        name = re.sub(r"\W+", "_", request.node.name)
        print("lab: logs in", lab.save_logs(name))
