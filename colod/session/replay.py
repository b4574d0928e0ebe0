"""What was sent and may have to be sent again, sans I/O: a ring of bytes with positions.

A position counts the bytes of one direction since the two sessions agreed to mend their link. The
other side says up to where it has them; what lies before is forgotten, what lies behind can be sent
once more over another connection, from exactly there. So what a link carries arrives once, in order
and without a gap, however often its connection breaks, and whatever a frame was cut in two.
"""

from __future__ import annotations

from collections.abc import Sequence

from colod.errors import StreamError
from colod.stream.frames import Buffer


class Replay:
    """Bytes in order, each kept until the other side has it.

    Attributes:
        written: Position behind the last byte that was put in.
        confirmed: Position up to which the other side has said to have them.
    """

    def __init__(self, octets: int) -> None:
        """Stand at position 0, with room for `octets` bytes."""
        self._memory = memoryview(bytearray(octets))
        self.written = 0
        self.confirmed = 0
        self._next = 0
        self._offered = 0

    @property
    def room_bytes(self) -> int:
        """How much may be put in now."""
        return len(self._memory) - self.kept_bytes

    @property
    def kept_bytes(self) -> int:
        """What the other side may not have yet."""
        return self.written - self.confirmed

    @property
    def unsent_bytes(self) -> int:
        """What waits to be sent over the present connection."""
        return self.written - self._next

    def put(self, parts: Sequence[Buffer]) -> None:
        """Keep a copy of `parts`, for which there must be room."""
        size = len(self._memory)
        for part in parts:
            rest = memoryview(part).cast("B") if len(part) else memoryview(b"")
            assert len(rest) <= self.room_bytes, "more than there is room for"
            while rest:
                at = self.written % size
                count = min(len(rest), size - at)
                self._memory[at : at + count] = rest[:count]
                self.written += count
                rest = rest[count:]

    def next(self, most: int) -> memoryview:
        """Return what is to be sent next, at most `most` bytes, empty if there is nothing.

        It stays as it is at least until the other side has said to have it.
        """
        at = self._next % len(self._memory)
        count = min(most, self.unsent_bytes, len(self._memory) - at)
        # From now on the other side may have it, whatever becomes of the attempt.
        self._offered = max(self._offered, self._next + count)
        return self._memory[at : at + count]

    def sent(self, count: int) -> None:
        """Take note that the first `count` bytes of what `next` returned have been sent."""
        self._next += count
        assert self._next <= self._offered

    def confirm(self, position: int) -> None:
        """Forget what lies before `position`, which the other side says to have reached.

        Its word may be older than what was heard of it when the last connection took over: a word
        is sent again as everything is.

        Raises:
            StreamError: If it cannot have: so much was never sent.
        """
        self.check(max(position, self.confirmed))
        self.confirmed = max(position, self.confirmed)

    def check(self, position: int) -> None:
        """Make sure that the other side can stand at `position` and go on from there.

        Raises:
            StreamError: If it cannot: that was never sent, or is not kept any more.
        """
        if not self.confirmed <= position <= self._offered:
            message = (
                f"the other side has {position} bytes, with {self.confirmed} confirmed and "
                f"{self._offered} sent"
            )
            raise StreamError(message, offset=position)

    def rewind(self, position: int) -> None:
        """Send from `position` on over a new connection: so much the other side has.

        Raises:
            StreamError: If it cannot have just that.
        """
        self.check(position)
        self.confirmed = self._next = position
