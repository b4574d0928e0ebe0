"""This comparator behind sockets like QEMU's: `python -m tests.bench.compare_server DIR FLOWS`.

Frames come by `primary.sock` and `secondary.sock`, what may leave goes to `out.sock`; requests for
a checkpoint are dropped, and the time limit never comes.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
from pathlib import Path

from colod.output.compare.comparator import Comparator
from colod.output.compare.decisions import Release, Side
from colod.output.compare.limits import Limits

LENGTH = struct.Struct(">I")
NAMES = ("primary", "secondary", "out")
_READ_BYTES = 1 << 18


def main(directory: Path, max_flows: int) -> None:
    """Serve one client until it goes."""
    listeners = {name: _listen(directory / f"{name}.sock") for name in NAMES}
    sockets = {name: listener.accept()[0] for name, listener in listeners.items()}
    comparator = Comparator(Limits(flows=max_flows))
    take = {Side.PRIMARY: comparator.primary, Side.SECONDARY: comparator.secondary}
    selector = selectors.DefaultSelector()
    buffers = {side: bytearray() for side in Side}
    for each in Side:
        selector.register(sockets[each.value], selectors.EVENT_READ, each)
    while True:
        for key, _ in selector.select():
            side: Side = key.data
            more = sockets[side.value].recv(_READ_BYTES)
            if not more:
                return
            buffers[side] += more
            ready = [
                part
                for frame in _frames(buffers[side])
                for decision in take[side](frame, 0.0)
                if isinstance(decision, Release)
                for part in (LENGTH.pack(len(decision.frame)), decision.frame)
            ]
            if ready:
                sockets["out"].sendall(b"".join(ready))


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _frames(buffer: bytearray) -> list[bytes]:
    """Take all whole frames out of a buffer."""
    frames = []
    at = 0
    while len(buffer) >= at + LENGTH.size:
        (size,) = LENGTH.unpack_from(buffer, at)
        if len(buffer) < at + LENGTH.size + size:
            break
        frames.append(bytes(buffer[at + LENGTH.size : at + LENGTH.size + size]))
        at += LENGTH.size + size
    del buffer[:at]
    return frames


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
