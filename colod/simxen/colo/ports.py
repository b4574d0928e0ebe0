"""One filter's socket: at most one connection at a time, served by the domain's own loop."""

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path

from colod.simxen.colo.framing import Unwrapper, wrap
from colod.simxen.control import short_path

OnFrame = Callable[[bytes], None]

_SEND_S = 1.0
"""Longest that the device model stands still for a socket that is full; then the frame is lost."""


class Port:
    """A socket on which frames come and go; it listens at a path, or connects to one."""

    def __init__(self, selector: selectors.BaseSelector, path: Path, on_frame: OnFrame) -> None:
        """Do nothing before `listen` or `connect`."""
        self._selector = selector
        self._path = path
        self._on_frame = on_frame
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._frames = Unwrapper()
        self._is_read = True
        self.lost_frames = 0

    @property
    def is_connected(self) -> bool:
        """Whether somebody is at the other end."""
        return self._connection is not None

    def listen(self) -> None:
        """Take the next connection that comes; one after the other."""
        if self._listener is not None:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._path.unlink(missing_ok=True)
            listener.bind(short_path(self._path, directory))
            listener.listen(4)
        finally:
            os.close(directory)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def connect(self, hello: bytes = b"") -> bool:
        """Connect to the path, and say `hello` first; return whether somebody is there."""
        if self._connection is not None:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
            if hello:
                connection.sendall(wrap(hello))
        except OSError:
            connection.close()
            return False
        self._begin(connection)
        return True

    def read(self, wanted: bool) -> None:
        """Begin or cease to take frames: the guest runs, or it does not."""
        if wanted == self._is_read:
            return
        self._is_read = wanted
        if self._connection is not None:
            self._watch()

    def send(self, frame: bytes) -> bool:
        """Send a frame; False if it was lost, as nobody takes it."""
        if self._connection is None:
            self.lost_frames += 1
            return False
        try:
            self._connection.settimeout(_SEND_S)
            self._connection.sendall(wrap(frame))
        except OSError:
            # Half a frame may have gone: the connection is of no use any more.
            self.lost_frames += 1
            self.disconnect()
            return False
        self._connection.setblocking(False)
        return True

    def disconnect(self) -> None:
        """End the connection, if there is one."""
        if self._connection is None:
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._connection)
        self._connection.close()
        self._connection = None

    def close(self) -> None:
        """End connection and listener."""
        self.disconnect()
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            self.disconnect()
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection, self._frames = connection, Unwrapper()
        self._watch()

    def _watch(self) -> None:
        assert self._connection is not None
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._connection)
        if self._is_read:
            self._selector.register(self._connection, selectors.EVENT_READ, self._receive)

    def _receive(self) -> None:
        assert self._connection is not None
        try:
            octets = self._connection.recv(1 << 16)
            frames = self._frames.feed(octets)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            octets, frames = b"", []
        for frame in frames:
            self._on_frame(frame)
        if not octets:
            self.disconnect()
