"""How messages lie on a session's control socket; shared by sessions and the daemon, sans I/O.

Each message is preceded by its length, uint32 big-endian, at most MAX_MESSAGE_BYTES.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from colod.errors import SessionError

CONTROL_VERSION: Final = 1
"""Version of the protocol on the control socket that this package speaks."""

MAX_MESSAGE_BYTES: Final = 64 << 10
LENGTH_BYTES: Final = 4

CONTROL_SOCKET: Final = "control.sock"
SPEC_FILE: Final = "spec.json"
PID_FILE: Final = "pid"
"""The session's process: number and start time (field 22 of /proc/PID/stat) in decimal digits."""
TOOLSTACK_FILE: Final = "toolstack"
"""The xl that belongs to the session, in the same form; it may outlive the session."""
LOG_FILE: Final = "log"

M = TypeVar("M", bound=Message)


def encode_message(message: Message) -> bytes:
    """Return `message` with its length before it."""
    body = message.SerializeToString()
    assert len(body) <= MAX_MESSAGE_BYTES, len(body)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class MessageDecoder(Generic[M]):
    """Cuts received bytes into messages of one type, whatever pieces they come in."""

    def __init__(self, kind: type[M]) -> None:
        """Expect messages of `kind`."""
        self._kind = kind
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Yield each message that `data` completes; exhaust it before the next call.

        Raises:
            SessionError: If the bytes are no messages of that kind; the connection is of no use
                any more.
        """
        self._pending += data
        while len(self._pending) >= LENGTH_BYTES:
            length = int.from_bytes(self._pending[:LENGTH_BYTES], "big")
            if length > MAX_MESSAGE_BYTES:
                message = f"control message of {length} bytes, limit {MAX_MESSAGE_BYTES}"
                raise SessionError(message)
            end = LENGTH_BYTES + length
            if len(self._pending) < end:
                return
            body = bytes(self._pending[LENGTH_BYTES:end])
            del self._pending[:end]
            yield self._parse(body)

    def _parse(self, body: bytes) -> M:
        try:
            return self._kind.FromString(body)
        except DecodeError as error:
            raise SessionError(f"control message is no {self._kind.__name__}") from error
