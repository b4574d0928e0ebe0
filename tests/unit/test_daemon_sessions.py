"""What the daemon knows of a session and of its xl."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.daemon.sessions import HANGS_S, SessionHandle
from colod.errors import SessionError
from colod.model import Role
from colod.session.process import start_ticks
from colod.session.protocol import (
    CONTROL_SOCKET,
    PID_FILE,
    TOOLSTACK_FILE,
    MessageDecoder,
    encode_message,
)
from colod.v1 import session_pb2


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="colod"))  # short, for the socket in it
    yield path
    shutil.rmtree(path)


async def test_an_xl_that_could_not_be_written_down_still_counts_as_alive(directory: Path) -> None:
    """Taken for dead, its sound replica would be thrown away at the promotion."""
    (directory / TOOLSTACK_FILE).mkdir()  # so that writing fails, as on a full disk
    status = session_pb2.SessionStatus(toolstack_pid=os.getpid())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_message(status))
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, directory / CONTROL_SOCKET)
    handle = SessionHandle(directory, Role.SECONDARY, lambda: None)
    handle.watch()
    assert await handle.until(lambda: handle.status is not None, timeout_s=30)
    assert handle.toolstack is not None
    assert handle.toolstack.pid == os.getpid()
    await handle.close()
    server.close()


async def test_each_of_two_commands_at_once_gets_its_own_answer(directory: Path) -> None:
    """Both answers come together, and the second one's status is all that stays to be seen."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_message(session_pb2.SessionStatus()))
        decoder = MessageDecoder(session_pb2.SessionCommand)
        commands: list[session_pb2.SessionCommand] = []
        while len(commands) < 2:
            commands += decoder.feed(await reader.read(1 << 16))
        errors = ("no room", "")
        answers = [
            session_pb2.SessionStatus(command_id=each.id, command_error=error)
            for each, error in zip(commands, errors, strict=True)
        ]
        writer.write(b"".join(map(encode_message, answers)))
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, directory / CONTROL_SOCKET)
    handle = SessionHandle(directory, Role.SECONDARY, lambda: None)
    handle.watch()
    first, second = await asyncio.gather(
        *(handle.command(session_pb2.SessionCommand(), timeout_s=30) for _ in range(2)),
        return_exceptions=True,
    )
    assert isinstance(first, SessionError)
    assert "no room" in str(first)
    assert isinstance(second, session_pb2.SessionStatus)
    await handle.close()
    server.close()


async def test_a_wait_ends_when_it_is_cancelled_though_the_session_speaks_just_then(
    directory: Path,
) -> None:
    handle = SessionHandle(directory, Role.SECONDARY, lambda: None)
    waiting = asyncio.create_task(handle.until(lambda: False, timeout_s=3600))
    for _ in range(5):
        await asyncio.sleep(0)
    handle._said.set()
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=30)
    assert done
    assert waiting.cancelled()


def test_a_session_speaks_for_its_xl_until_it_tells_ends_or_hangs(directory: Path) -> None:
    handle = SessionHandle(directory, Role.SECONDARY, lambda: None)

    def speaks(toolstack_pid: int, silent_s: float) -> bool:
        handle.status = session_pb2.SessionStatus(toolstack_pid=toolstack_pid)
        handle.status_at = time.monotonic() - silent_s
        return handle.speaks_for_toolstack

    assert not speaks(1, 0), "there is no process"
    handle.status = None
    (directory / PID_FILE).write_text(f"{os.getpid()} {start_ticks(os.getpid())}\n")
    assert handle.speaks_for_toolstack, "it has said nothing yet"
    assert speaks(1, 0)
    assert not speaks(1, HANGS_S)
    assert not speaks(0, 0)
