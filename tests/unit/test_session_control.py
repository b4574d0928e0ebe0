"""How often the session's control socket says how it stands."""

from __future__ import annotations

import asyncio
from pathlib import Path

from colod.session.control import ControlServer
from colod.session.protocol import MessageDecoder
from colod.v1 import session_pb2


async def test_what_comes_with_every_epoch_is_said_in_few_statuses_and_the_newest_last(
    tmp_path: Path,
) -> None:
    now = session_pb2.SessionStatus()

    def status() -> session_pb2.SessionStatus:
        made = session_pb2.SessionStatus()
        made.CopyFrom(now)
        return made

    async def refuse(_: session_pb2.SessionCommand) -> str:
        return "no"

    server = ControlServer(tmp_path / "control", status, refuse)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "control")
    decoder = MessageDecoder(session_pb2.SessionStatus)
    heard: list[int] = []
    while not heard:
        heard += [each.progress.acked_epoch for each in decoder.feed(await reader.read(1 << 16))]
    for _ in range(1000):
        now.progress.acked_epoch += 1
        server.publish_soon()
    while heard[-1] < 1000:
        heard += [each.progress.acked_epoch for each in decoder.feed(await reader.read(1 << 16))]
    assert len(heard) < 10
    assert heard == sorted(heard)
    writer.close()
    await server.close()
