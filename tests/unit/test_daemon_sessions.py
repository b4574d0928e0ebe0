"""What the daemon knows of a session and of its xl."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.daemon.sessions import SessionHandle
from colod.model import Role
from colod.session.protocol import CONTROL_SOCKET, TOOLSTACK_FILE, encode_message
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
