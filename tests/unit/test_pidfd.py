"""A process that is gone, whatever the kernel calls it."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

import pytest

from colod.pidfd import open_pidfd
from colod.session.process import Watched
from colod.simxen.host import HostProcess, signal_process
from colod.toolstack import process
from colod.toolstack.port import ProcessRef

OURS = os.getpid()


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer as the kernel does while a number is being given back."""

    def refuse(pid: int, flags: int = 0) -> NoReturn:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("given_back")
async def test_a_number_that_is_being_given_back_is_nobodys() -> None:
    with pytest.raises(ProcessLookupError):
        open_pidfd(OURS)
    with pytest.raises(ProcessLookupError):
        Watched(OURS)
    assert not process.kill(ProcessRef(pid=OURS, start_ticks=1))
    assert await process.wait_gone(ProcessRef(pid=OURS, start_ticks=1), 0)
    signal_process(HostProcess(pid=OURS, start_ticks=1, role="xl"), 9)


def test_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, flags: int = 0) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        open_pidfd(OURS)


def test_a_living_process_is_held() -> None:
    os.close(open_pidfd(OURS))
