"""A cable between two sessions that a test can cut, pull out and fill up: TCP through a thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import Final

_CHUNK_BYTES: Final = 64 << 10
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset


class Cable:
    """Passes on what comes to `address`, until it is told otherwise.

    Attributes:
        address: What the sender is told.
        made: How many connections came through.
    """

    def __init__(self, target: str) -> None:
        """Lead to the receiver's address `target`."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.made = 0
        self._is_out = False
        self._is_stalled = False
        self._is_over = False
        self._lock = threading.Lock()
        self._other: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset every connection; a new one gets through."""
        with self._lock:
            for sock in tuple(self._other):
                self._drop(sock)

    def pull(self) -> None:
        """Reset every connection, and each that comes."""
        self._is_out = True
        self.cut()

    def stall(self) -> None:
        """Pass nothing on any more, and tell nobody; who comes waits."""
        self._is_stalled = True

    def put_back(self) -> None:
        """Let through what comes from now on; what stalled is lost."""
        self.cut()
        self._is_out = self._is_stalled = False

    def close(self) -> None:
        """End everything."""
        self._is_over = True
        self._thread.join()
        self.cut()
        self._listening.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.05):
                with self._lock, contextlib.suppress(OSError, ValueError, KeyError):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._listening:
                        self._take()
                    else:
                        self._pass_on(sock)
            if self._is_stalled:
                threading.Event().wait(0.05)

    def _take(self) -> None:
        near, _ = self._listening.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        if self._is_out:
            near.close()
            return
        far = socket.create_connection(self._target)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.made += 1
        for sock, other in ((near, far), (far, near)):
            self._other[sock] = other
            self._selector.register(sock, selectors.EVENT_READ)

    def _pass_on(self, sock: socket.socket) -> None:
        if self._is_stalled:
            return
        try:
            data = sock.recv(_CHUNK_BYTES)
            if not data:
                raise ConnectionError
            self._other[sock].sendall(data)
        except OSError:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        other = self._other.pop(sock, None)
        if other is None:
            return
        self._other.pop(other, None)
        for each in (sock, other):
            self._selector.unregister(each)
            each.close()
