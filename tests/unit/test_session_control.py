"""What a session tells the daemon of its progress, and how often."""

from __future__ import annotations

import asyncio
from pathlib import Path

from colod.session.control import ControlServer
from colod.session.protocol import MessageDecoder
from colod.v1 import session_pb2

EPOCHS = 1000


async def test_a_burst_of_epochs_costs_few_statuses_and_ends_with_the_newest(
    tmp_path: Path,
) -> None:
    newest = session_pb2.SessionStatus()

    async def obey(_: session_pb2.SessionCommand) -> str:
        return ""

    def status() -> session_pb2.SessionStatus:
        copy = session_pb2.SessionStatus()
        copy.CopyFrom(newest)
        return copy

    server = ControlServer(tmp_path / "control", status, obey)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "control")
    decoder = MessageDecoder(session_pb2.SessionStatus)
    seen: list[int] = []
    try:
        async with asyncio.timeout(30):
            assert list(decoder.feed(await reader.read(1 << 16)))  # it is connected
            for epoch in range(1, EPOCHS + 1):
                newest.progress.acked_epoch = epoch
                server.publish_progress()
            while EPOCHS not in seen:
                for each in decoder.feed(await reader.read(1 << 16)):
                    seen.append(each.progress.acked_epoch)
    finally:
        writer.close()
        await server.close()
    assert len(seen) < 10
    assert seen == sorted(seen)
