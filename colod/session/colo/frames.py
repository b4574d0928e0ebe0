"""Frames on their way to or from a filter's socket, bounded: what has no room is lost.

A filter stands still, and the guest with it, while its socket is full: so each is always read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from pathlib import Path
from typing import Final

from colod.errors import StreamError
from colod.output.colo.framing import Framed, FrameReader, encode_frames
from colod.stream.frames import MAX_CONTROL_BYTES, Buffer

ROOM_BYTES: Final = 8 << 20
"""Most that waits; the other side's copy lacks what is lost, and a checkpoint makes up for it."""

_READ_BYTES: Final = 64 << 10
_DIAL_S: Final = 0.2

_log = logging.getLogger(__name__)


class FrameQueue:
    """What was read from a filter and waits for the link.

    Attributes:
        lost_frames: For which there was no room.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.lost_frames = 0
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._filled = asyncio.Event()

    async def fill(self, path: Path) -> None:
        """Read frames from the socket at `path`, again and again; never returns."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(path)
            except OSError:
                await asyncio.sleep(_DIAL_S)
                continue
            try:
                await self._read(reader)
            except (OSError, StreamError) as error:
                _log.warning("colo.input_broken error=%r", str(error))
            finally:
                writer.close()

    async def batch(self) -> bytes:
        """Return what comes next, as it is framed, short enough for one frame of ours."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        first = self._waiting.popleft()
        if len(first) > MAX_CONTROL_BYTES:
            self._waiting.appendleft(first[MAX_CONTROL_BYTES:])
            first = first[:MAX_CONTROL_BYTES]
        parts, size = [first], len(first)
        while self._waiting and size + len(self._waiting[0]) <= MAX_CONTROL_BYTES:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        self._octets -= size
        return b"".join(parts)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        frames = FrameReader()
        while octets := await reader.read(_READ_BYTES):
            for item in frames.feed(octets):
                assert isinstance(item, Framed)  # there are no marks on this side
                self._put(encode_frames([item.frame]))

    def _put(self, wire: bytes) -> None:
        if self._octets + len(wire) > ROOM_BYTES:
            self.lost_frames += 1
            return
        self._waiting.append(wire)
        self._octets += len(wire)
        self._filled.set()


def _has_room(writer: asyncio.StreamWriter, wire: bytes) -> bool:
    return writer.transport.get_write_buffer_size() + len(wire) <= ROOM_BYTES


class FrameSink:
    """A filter's socket that is written to.

    Attributes:
        lost_frames: For which there was no room, or nobody to take them.
    """

    def __init__(self) -> None:
        """Lose everything until `connect`."""
        self.lost_frames = 0
        self._frames = FrameReader()
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, path: Path) -> None:
        """Connect to the socket at `path`.

        Raises:
            OSError: If nobody is there.
        """
        _, self._writer = await asyncio.open_unix_connection(path)

    def take(self, octets: Buffer) -> None:
        """Pass whole frames on.

        Raises:
            StreamError: If they are none.
        """
        for item in self._frames.feed(bytes(octets)):
            assert isinstance(item, Framed)
            wire, writer = encode_frames([item.frame]), self._writer
            if writer is not None and not writer.is_closing() and _has_room(writer, wire):
                writer.write(wire)
            else:
                self.lost_frames += 1

    def close(self) -> None:
        """End the connection; what waits is lost."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.transport.abort()
