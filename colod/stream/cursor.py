"""A reading position in a byte stream that arrives in chunks of any size."""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""A reader that yields whenever it needs another chunk and returns what it read."""


class Cursor:
    """Hands out the stream's bytes to readers written as if all of it were there.

    Keeps no byte that a reader did not ask for: `skip` only counts.

    Attributes:
        offset: Bytes consumed since the beginning of the stream.
        record_at: Where the record that is being read began.
        skipping: Bytes that are still to be passed over before anything is looked at.
    """

    __slots__ = ("_at", "_chunk", "offset", "record_at", "skipping")

    def __init__(self) -> None:
        """Begin at offset 0 with nothing to read."""
        self.offset = 0
        self.record_at = 0
        self.skipping = 0
        self._chunk = memoryview(b"")
        self._at = 0

    def load(self, chunk: memoryview) -> None:
        """Make `chunk` what is read next; the one before must be used up."""
        assert self._at == len(self._chunk)
        self._chunk = chunk
        self._at = 0

    def unload(self) -> None:
        """Let go of the chunk, so that its owner may change or resize it."""
        self._chunk = memoryview(b"")
        self._at = 0

    def mark_record(self) -> int:
        """Note that a record begins here, and return the offset."""
        self.record_at = self.offset
        return self.offset

    def wait(self) -> Steps[None]:
        """Return as soon as at least one byte can be read."""
        while self._at == len(self._chunk):
            yield

    def take(self, size: int) -> Steps[bytes]:
        """Read exactly `size` bytes, which the caller has bounded."""
        taken = bytearray(self._advance(size))  # a copy: no view of a chunk outlives its feed
        while len(taken) < size:
            yield
            taken += self._advance(size - len(taken))
        return bytes(taken)

    def skip(self, size: int) -> Steps[None]:
        """Pass over exactly `size` bytes without looking at them."""
        size -= len(self._advance(size))
        while size:
            self.skipping = size
            yield
            size -= len(self._advance(size))
        self.skipping = 0

    def _advance(self, most: int) -> memoryview:
        """Consume up to `most` bytes of the chunk and return a view of them."""
        view = self._chunk[self._at : self._at + most]
        self._at += len(view)
        self.offset += len(view)
        return view
