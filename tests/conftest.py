"""What all tests share: no speed is asserted, and no event loop is left behind."""

from __future__ import annotations

import asyncio

from hypothesis import settings

# A busy machine makes any example slow; hypothesis would call that a failure.
settings.register_profile("colod", deadline=None)
settings.load_profile("colod")


def pytest_configure() -> None:
    """Say that there is no current event loop.

    Python 3.11 else makes one when pytest-asyncio asks for the loop to put back, and nobody closes
    it: a ResourceWarning at the end, which fails the run.
    """
    asyncio.set_event_loop(None)
