"""colod.session.link."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.session import link as module
from colod.session.link import Link
from colod.session.living import live
from colod.stream.frames import Frame, FrameType
from colod.transport.base import Buffer


class DeadConnection:
    """One on which nothing comes, and of which nobody takes anything."""

    peer_address = "host-b:1"

    def __init__(self) -> None:
        self.is_writing = asyncio.Event()

    async def read_into(self, buffer: memoryview) -> int:
        await asyncio.Event().wait()
        return len(buffer)

    async def write(self, *parts: Buffer) -> None:
        self.is_writing.set()
        await asyncio.Event().wait()


async def ignored(frame: Frame) -> None:
    """Take no notice of a frame."""


async def test_a_write_that_stands_still_does_not_keep_the_loss_of_the_peer_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_GOODBYE_S", 3600.0)
    connection = DeadConnection()
    link = Link(cast("Any", connection), generation=1)
    spec = cast("Any", SimpleNamespace(silence_s=0.1, ping_interval_s=3600.0))
    async with asyncio.timeout(60):
        ending = await live(
            link,
            spec,
            cast("Any", None),
            on_frame=ignored,
            is_daemon_up=lambda: True,
            others=[link.send(FrameType.DATA, b"x" * 100, epoch=1)],
        )
    assert ending.code == "peer.silent"
    assert connection.is_writing.is_set()
