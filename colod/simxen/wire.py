"""Exact reads and whole writes on the stream's descriptors."""

import os

from colod.stream.record import (
    REC_HEADER_BYTES,
    REC_LENGTH_MAX,
    ByteOrder,
    padded_length,
    record_header,
)


class EndOfStream(Exception):
    """The other end closed, at a boundary or in the middle."""


class StreamBroken(Exception):
    """The stream cannot be used any further."""


def write_all(fd: int, content: bytes) -> None:
    """Write everything, however often the descriptor takes only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def read_exactly(fd: int, size: int) -> bytearray:
    """Read `size` bytes.

    Raises:
        EndOfStream: Fewer came.
    """
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        got = os.readv(fd, [view])
        if not got:
            raise EndOfStream(f"stream ended with {len(view)} of {size} bytes to come")
        view = view[got:]
    return buffer


def read_record(fd: int) -> tuple[int, bytearray]:
    """Read one record, of libxl's or of libxc's level.

    Returns:
        Its type and its body without the padding.

    Raises:
        EndOfStream: The stream ended.
        StreamBroken: It claims a length that libxc does not accept.
    """
    try:
        header = read_exactly(fd, REC_HEADER_BYTES)
    except EndOfStream as error:
        text = "Failed to read Record Header from stream (0 = Success)"
        raise EndOfStream(text) from error
    kind, length = record_header(ByteOrder.LITTLE).unpack(header)
    if length > REC_LENGTH_MAX:
        text = f"Record ({kind:#010x}) length {length:#x} exceeds max ({REC_LENGTH_MAX:#x})"
        raise StreamBroken(text)
    try:
        body = read_exactly(fd, padded_length(length))
    except EndOfStream as error:
        text = f"Failed to read {length} bytes of data for record ({kind:#010x}) (0 = Success)"
        raise EndOfStream(text) from error
    del body[length:]
    return kind, body
