"""The session's control socket: status out, commands in, for any number of daemons at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from colod.errors import SessionError
from colod.session.protocol import MessageDecoder, encode_message
from colod.v1 import session_pb2

STATUS_INTERVAL_S = 0.5
_SPACING_S = 0.002
"""Least time between two statuses for what comes with every epoch; making one costs as much as an
empty epoch does."""
MAX_CLIENTS = 16
_READ_BYTES = 16 << 10
# A daemon that does not read is cut off; it may connect anew and gets the newest status then.
_UNREAD_BYTES = 256 << 10
_FLUSH_S = 1.0

_log = logging.getLogger(__name__)

MakeStatus = Callable[[], session_pb2.SessionStatus]
OnCommand = Callable[[session_pb2.SessionCommand], Awaitable[str]]


class _Client:
    """One connection: what it was sent last, and what came of its last command."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.command_id = 0
        self.command_error = ""

    def send(self, status: session_pb2.SessionStatus) -> None:
        status.command_id = self.command_id
        status.command_error = self.command_error
        if self.writer.transport.get_write_buffer_size() > _UNREAD_BYTES:
            self.writer.transport.abort()
        elif not self.writer.is_closing():
            self.writer.write(encode_message(status))


class ControlServer:
    """Serves the control socket."""

    def __init__(self, path: Path, make_status: MakeStatus, on_command: OnCommand) -> None:
        """Prepare to serve.

        Args:
            path: Of the socket, at most 107 bytes long.
            make_status: Returns the session's present status.
            on_command: Carries a command out; returns why not, or nothing.
        """
        self._path = path
        self._make_status = make_status
        self._on_command = on_command
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._published_at = 0.0
        self._due: asyncio.TimerHandle | None = None

    @property
    def has_clients(self) -> bool:
        """Whether a daemon is connected."""
        return bool(self._clients)

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            SessionError: If the socket cannot be made.
        """
        self._path.unlink(missing_ok=True)  # the session's lock is held: it is a dead one's
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
            self._path.chmod(0o600)
        except OSError as error:
            raise SessionError(f"control socket {self._path}: {error}") from error
        self._ticker = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """Say the last status and stop."""
        self.publish()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._server is not None:
            self._server.close()
        for client in tuple(self._clients):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await client.writer.drain()
            client.writer.close()
        self._path.unlink(missing_ok=True)

    def publish_soon(self) -> None:
        """Send the status as soon as one is due, for this and whatever else has changed by then."""
        if self._due is None:
            loop = asyncio.get_running_loop()
            due = max(self._published_at + _SPACING_S, loop.time())
            self._due = loop.call_at(due, self.publish)

    def publish(self) -> None:
        """Send the present status to everybody who is connected."""
        self._published_at = asyncio.get_running_loop().time()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        for client in tuple(self._clients):
            client.send(self._make_status())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            self.publish()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            _log.warning("control.refused clients=%d", len(self._clients))
            writer.close()
            return
        client = _Client(writer)
        self._clients.add(client)
        try:
            client.send(self._make_status())
            await self._read(client, reader)
        except SessionError as error:
            _log.warning("control.refused reason=%r", str(error))
        except OSError:
            pass  # the daemon died: another one will come
        except asyncio.CancelledError:
            pass  # the session ends; asyncio's streams of Python 3.11 log a traceback of it
        finally:
            self._clients.discard(client)
            writer.close()

    async def _read(self, client: _Client, reader: asyncio.StreamReader) -> None:
        decoder = MessageDecoder(session_pb2.SessionCommand)
        while data := await reader.read(_READ_BYTES):
            for command in decoder.feed(data):
                client.command_error = await self._on_command(command)
                client.command_id = command.id
                client.send(self._make_status())
