"""libxl's end of the COLO proxy's notify socket.

Source: Xen tools/libs/light/libxl_colo_proxy.c (words, their order, and both time-outs).
"""

import select
import socket
from typing import Final, Protocol

INIT: Final = b"COLO_USERSPACE_PROXY_INIT"
INIT_ANSWER: Final = b"COLO_COMPARE_GET_XEN_INIT"
CHECKPOINT: Final = b"COLO_CHECKPOINT"
ANSWER_S: Final = 0.5
CHECKPOINT_S: Final = 5.0
"""Without a word for so long, libxl makes a checkpoint by itself."""


class Descriptor(Protocol):
    """Something that `select` takes."""

    def fileno(self) -> int:
        """Return its descriptor."""


class ProxyFailed(Exception):
    """The proxy is not there, or does not answer."""


class Proxy:
    """A connection to the proxy."""

    def __init__(self, path: str) -> None:
        """Connect, and wait for the proxy's answer.

        Raises:
            ProxyFailed: There is none.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
            self._say(INIT)
            self._socket.settimeout(ANSWER_S)
            answer = self._socket.recv(1024)
        except OSError as error:
            raise ProxyFailed(f"{path}: {error}") from error
        if answer != len(INIT_ANSWER).to_bytes(4, "big") + INIT_ANSWER:
            raise ProxyFailed(f"{path}: unexpected answer {answer[:40]!r}")

    def checkpointed(self) -> None:
        """Say that a checkpoint was made.

        Raises:
            ProxyFailed: The proxy is gone.
        """
        try:
            self._say(CHECKPOINT)
        except OSError as error:
            raise ProxyFailed(str(error)) from error

    def wait(self, *, besides: list[Descriptor]) -> None:
        """Wait until a checkpoint is due: by the proxy's word, whatever it is, or by time.

        Args:
            besides: What else, once readable, ends the wait.

        Raises:
            ProxyFailed: The proxy is gone.
        """
        ready, _, _ = select.select([self._socket, *besides], [], [], CHECKPOINT_S)
        if self._socket in ready:
            try:
                word = self._socket.recv(1024)
            except OSError as error:
                raise ProxyFailed(str(error)) from error
            if not word:
                raise ProxyFailed("the proxy has closed")

    def _say(self, word: bytes) -> None:
        self._socket.sendall(len(word).to_bytes(4, "big") + word)
