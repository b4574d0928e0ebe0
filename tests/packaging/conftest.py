"""The package, built once from the working tree, and containers that have it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging import build
from tests.packaging.container import Container, base_tree
from tests.xen.process import LabUnavailableError


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests a time limit of their own; building and booting takes minutes."""
    for item in items:
        if "/tests/packaging/" in str(item.path):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the package of the working tree."""
    if os.geteuid() != 0:
        pytest.skip("needs root: containers")
    return build.package()


@pytest.fixture(scope="session")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same package as a newer version."""
    return build.newer(package, tmp_path_factory.mktemp("newer"))


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Callable[[], Container]]:
    """Return a function that boots a new container."""
    opened: list[Container] = []

    def booted() -> Container:
        try:
            base = base_tree()
        except LabUnavailableError as error:
            pytest.skip(str(error))
        scratch = tmp_path / f"box{len(opened)}"
        scratch.mkdir()
        opened.append(Container(base, scratch))
        opened[-1].boot()
        return opened[-1]

    yield booted
    for each in opened:
        each.close()


@pytest.fixture
def box(package: Path, boot: Callable[[], Container]) -> Container:
    """Return a container in which the package is installed, and nothing else done."""
    container = boot()
    container.run(f"dpkg --install {container.copy_in(package)}", timeout_s=900)
    return container
