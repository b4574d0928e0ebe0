"""libxl's side of a userspace COLO proxy: the few words on its notify socket. Pure.

    uint32 length (big-endian) | ASCII, without an end

| who says it | word | when |
|---|---|---|
| libxl | `COLO_USERSPACE_PROXY_INIT` | once, when `xl remus -c -p` begins |
| proxy | `COLO_COMPARE_GET_XEN_INIT` | as the answer; libxl gives up after 0.5 s |
| proxy | `DO_CHECKPOINT` | a checkpoint is needed |
| libxl | `COLO_CHECKPOINT` | one was made: both copies are suspended and equal |

libxl reads each message by two calls of recv() without a loop, and takes the second one's bytes for
a string that has an end. So each message of ours goes out whole, and none is longer than the first
answer. It reads only while it waits for the next checkpoint; what is said meanwhile lies there, and
a second `DO_CHECKPOINT` would make a checkpoint for nothing. It takes 5 s without a word, and any
word that it does not know, for `DO_CHECKPOINT`.

Spec: Xen tools/libs/light/libxl_colo_proxy.c, colo_proxy_setup(), colo_proxy_preresume(),
colo_proxy_checkpoint(), colo_userspace_proxy_recv(); libxl_colo.h, COLO_PROXY_CHECKPOINT_TIMEOUT;
QEMU net/colo-compare.c, compare_notify_rs_finalize().
"""

from __future__ import annotations

import struct
from enum import Enum

from colod.errors import PeerRefused, RecordTooLong, StreamTruncated

INIT = b"COLO_USERSPACE_PROXY_INIT"
INIT_ANSWER = b"COLO_COMPARE_GET_XEN_INIT"
REQUEST = b"DO_CHECKPOINT"
CHECKPOINT = b"COLO_CHECKPOINT"

MAX_WORD_BYTES = 1024
"""The longest word that is passed over as unknown: what libxl's own buffers hold."""

_LENGTH = struct.Struct(">I")


class Word(Enum):
    """What libxl has said."""

    INIT = "init"
    """It begins; send `encode_word(INIT_ANSWER)` at once."""
    CHECKPOINT = "checkpoint"
    """Both copies are suspended, and equal; they run on from here."""


class NotifyReader:
    """One connection of libxl, as it comes in pieces of any size.

    Attributes:
        unknown: How many words were passed over.
    """

    def __init__(self) -> None:
        """Begin at the connection's first byte."""
        self.unknown = 0
        self._buffer = bytearray()
        self._offset = 0
        self._has_begun = False

    def feed(self, octets: bytes) -> list[Word]:
        """Take bytes, and return the words that they complete.

        Raises:
            RecordTooLong: If a length is above MAX_WORD_BYTES. End the connection.
            PeerRefused: If the words come in an order that libxl does not have: this is not libxl,
                and its word must not release anything. End the connection. Words before it are
                lost with it.
        """
        self._buffer += octets
        words = []
        while (text := self._next()) is not None:
            word = self._known(text)
            if word is not None:
                words.append(word)
        return words

    def end(self) -> None:
        """Take note of the end of the connection.

        Raises:
            StreamTruncated: If it lies within a word.
        """
        if self._buffer:
            raise StreamTruncated(
                f"{len(self._buffer)} bytes of a word that has no end", offset=self._offset
            )

    def _next(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_WORD_BYTES:
            raise RecordTooLong(
                f"word of {length} bytes, at most {MAX_WORD_BYTES}", offset=self._offset
            )
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        text = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        self._offset += end
        return text

    def _known(self, text: bytes) -> Word | None:
        """Return what a word means, None if it is passed over, as QEMU does."""
        if text == INIT:
            if self._has_begun:
                raise PeerRefused(f"{INIT.decode()} twice on one connection")
            self._has_begun = True
            return Word.INIT
        if text == CHECKPOINT:
            if not self._has_begun:
                raise PeerRefused(f"{CHECKPOINT.decode()} before {INIT.decode()}")
            return Word.CHECKPOINT
        self.unknown += 1
        return None


def encode_word(text: bytes) -> bytes:
    """Return a message; send it by one call, or libxl may read half of it."""
    return _LENGTH.pack(len(text)) + text
