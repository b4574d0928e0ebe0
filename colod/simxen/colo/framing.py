"""Frames on the stream sockets of QEMU's filters: uint32 big-endian length, then the frame.

Source: QEMU net/filter-mirror.c, filter_send().
"""

MAX_FRAME_BYTES = 1 << 17


def wrap(frame: bytes) -> bytes:
    """Return a frame as it goes through a socket."""
    return len(frame).to_bytes(4, "big") + frame


class Unwrapper:
    """Takes frames out of a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        """Begin at a connection's first byte."""
        self._buffer = bytearray()

    def feed(self, octets: bytes) -> list[bytes]:
        """Return the frames that these bytes complete.

        Raises:
            ValueError: A length makes no sense.
        """
        self._buffer += octets
        frames = []
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if not 0 < length <= MAX_FRAME_BYTES:
                raise ValueError(f"frame of {length} bytes")
            if len(self._buffer) < 4 + length:
                break
            frames.append(bytes(self._buffer[4 : 4 + length]))
            del self._buffer[: 4 + length]
        return frames
