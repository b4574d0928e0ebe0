"""Frames on the stream sockets of QEMU's filters, and colod's marks between them. Pure.

    uint32 length | [uint32 header_bytes] | length bytes: [vnet header] frame

All numbers are big-endian. The second one is there where both ends have `vnet_hdr_support`; the
header that it measures is then the first part of the bytes that the length counts.

QEMU never sends a length of 0, so on a link of which colod is both ends, 0 begins a mark:

    uint32 0 | uint64 checkpoint

What follows a mark was sent by a copy that has the state of that checkpoint, or of a later one.
A guest cannot make one: it has no part in the lengths.

Spec: QEMU net/filter-mirror.c, filter_send(); net/net.c, net_fill_rstate(); net/colo-compare.c,
compare_chr_send() and packet_new(). None of them is specified anywhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from colod.errors import RecordTooLong, StreamError, StreamTruncated

MAX_FRAME_BYTES = 4096 + 65536 - 1
"""The longest that QEMU takes, a vnet header included.

Spec: QEMU include/net/net.h, NET_BUFSIZE; net_fill_rstate() wants less than that.
"""

_U32 = struct.Struct(">I")
_MARK = struct.Struct(">IQ")


class Framed(NamedTuple):
    """One frame as it came.

    Attributes:
        frame: Ethernet, without its check sequence.
        header: A `virtio_net_hdr`, empty where there is none.
    """

    frame: bytes
    header: bytes


class Mark(NamedTuple):
    """A place between two frames.

    Attributes:
        checkpoint: What follows was sent with the state of this one; 0 for none.
    """

    checkpoint: int


class FrameReader:
    """Takes frames out of a stream that comes in pieces of any size.

    It keeps less than one frame. After an error the stream cannot be read on: end the connection.
    """

    def __init__(self, *, has_headers: bool = False, has_marks: bool = False) -> None:
        """Begin at a connection's first byte.

        Args:
            has_headers: Whether the other end has `vnet_hdr_support`.
            has_marks: Whether the other end is colod's and may send marks.
        """
        self._has_headers = has_headers
        self._has_marks = has_marks
        self._buffer = bytearray()
        self._offset = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether no frame has begun that is not whole yet."""
        return not self._buffer

    def feed(self, octets: bytes) -> list[Framed | Mark]:
        """Take bytes, and return what they complete.

        Raises:
            RecordTooLong: If a length is above MAX_FRAME_BYTES.
            StreamError: If a frame is empty, or its vnet header is longer than the whole.
        """
        self._buffer += octets
        items: list[Framed | Mark] = []
        at = 0
        with memoryview(self._buffer) as view:
            while (item := self._next(view, at)) is not None:
                found, at = item
                items.append(found)
        del self._buffer[:at]
        self._offset += at
        return items

    def end(self) -> None:
        """Take note of the end of the stream.

        Raises:
            StreamTruncated: If it lies within a frame, which is lost.
        """
        if self._buffer:
            raise StreamTruncated(
                f"{len(self._buffer)} bytes of a frame that has no end", offset=self._offset
            )

    def _next(self, view: memoryview, at: int) -> tuple[Framed | Mark, int] | None:
        """Return what begins at `at` and where it ends, or None if it is not all there."""
        begin = at + (2 * _U32.size if self._has_headers else _U32.size)
        if len(view) < at + _U32.size:
            return None
        (length,) = _U32.unpack_from(view, at)
        if not 0 < length <= MAX_FRAME_BYTES:
            return self._odd(view, at, length)
        if len(view) < begin:
            return None
        header_bytes = _U32.unpack_from(view, at + _U32.size)[0] if self._has_headers else 0
        if header_bytes > length:
            raise StreamError(
                f"vnet header of {header_bytes} bytes in a frame of {length}",
                offset=self._offset + at,
            )
        end = begin + length
        if len(view) < end:
            return None
        middle = begin + header_bytes
        return Framed(bytes(view[middle:end]), bytes(view[begin:middle])), end

    def _odd(self, view: memoryview, at: int, length: int) -> tuple[Mark, int] | None:
        """Return a mark, if that is what begins here and it is all there."""
        if length:
            raise RecordTooLong(
                f"frame of {length} bytes, at most {MAX_FRAME_BYTES}", offset=self._offset + at
            )
        if not self._has_marks:
            raise StreamError("frame of 0 bytes", offset=self._offset + at)
        if len(view) < at + _MARK.size:
            return None
        _, checkpoint = _MARK.unpack_from(view, at)
        return Mark(checkpoint), at + _MARK.size


def encode_frames(frames: Iterable[bytes], header: bytes | None = None) -> bytes:
    """Return frames as QEMU reads them.

    Args:
        frames: Each of 1 to MAX_FRAME_BYTES bytes, less the header's.
        header: What goes before each where the other end has `vnet_hdr_support`; empty for no
            header there, None where it has not.
    """
    if header is None:
        return b"".join(part for each in frames for part in (_U32.pack(len(each)), each))
    size = _U32.pack(len(header)) + header
    return b"".join(
        part for each in frames for part in (_U32.pack(len(header) + len(each)), size, each)
    )


def encode_mark(checkpoint: int) -> bytes:
    """Return a mark; `checkpoint` is below 2**64."""
    return _MARK.pack(0, checkpoint)
