"""What all tests share: no speed is asserted, and no event loop is left behind."""

from __future__ import annotations

import asyncio
import signal

from hypothesis import settings

# A busy machine makes any example slow; hypothesis would call that a failure.
settings.register_profile("colod", deadline=None)
settings.load_profile("colod")


def pytest_configure() -> None:
    """Take an interrupt as on a terminal, and say that there is no current event loop.

    A run that was started in the background may ignore SIGINT, and so would all that it starts:
    what is tested with it would wait for ever.

    Python 3.11 else makes one when pytest-asyncio asks for the loop to put back, and nobody closes
    it: a ResourceWarning at the end, which fails the run.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.set_event_loop(None)
