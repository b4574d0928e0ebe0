"""Cut what is written into groups of bounded size, for transports that send whole pieces."""

from __future__ import annotations

from collections.abc import Iterator

from colod.transport.base import Buffer


def groups(parts: tuple[Buffer, ...], most_bytes: int) -> Iterator[list[memoryview]]:
    """Give `parts`, uncopied, in groups of at most `most_bytes`, none of them empty."""
    group: list[memoryview] = []
    room = most_bytes
    for part in parts:
        rest = memoryview(part).cast("B") if len(part) else memoryview(b"")
        while rest:
            group.append(rest[:room])
            rest, room = rest[room:], room - len(group[-1])
            if not room:
                yield group
                group, room = [], most_bytes
    if group:
        yield group
