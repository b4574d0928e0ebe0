"""What all tests share: no speed is asserted, and no event loop is left behind."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# A busy machine makes any example slow; hypothesis would call that a failure.
settings.register_profile("colod", deadline=None)
settings.load_profile("colod")


_REASONING = ("tests/model/", "tests/sim/")
"""What only thinks, for a third of the time of all tests: it may go on beside the others."""


class _TwoParts(LoadScopeScheduling):  # type: ignore[misc]
    """Has what only thinks done by one process, and what runs hosts and clocks by another."""

    def _split_scope(self, nodeid: str) -> str:
        return "reasoning" if nodeid.startswith(_REASONING) else "running"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Make the two parts, where there are two processes; its own groups need an older pytest."""
    return _TwoParts(config, log)


def pytest_configure() -> None:
    """Take an interrupt as on a terminal, and say that there is no current event loop.

    A run that was started in the background may ignore SIGINT, and so would all that it starts:
    what is tested with it would wait for ever.

    Python 3.11 else makes one when pytest-asyncio asks for the loop to put back, and nobody closes
    it: a ResourceWarning at the end, which fails the run.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.set_event_loop(None)
