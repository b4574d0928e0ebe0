"""Which process a sender takes for xl."""

from __future__ import annotations

import os

import pytest

from colod.session.sender import watched_parent


def test_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", os.getpid)  # the real one may be init in a container
    xl = watched_parent()
    assert (xl.pid, xl.has_ended) == (os.getpid(), False)
    xl.close()


def test_init_is_not_xl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who believes that it is tries to end it when the session is released."""
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(ProcessLookupError):
        watched_parent()
