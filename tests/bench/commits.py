"""Empty epochs: how many are committed in a second, beside a bare ping-pong over TCP."""

from __future__ import annotations

import socket
import threading

from tests.bench.bed import Relay, epoch, timed
from tests.bench.table import Figure, Row, Section

EPOCHS = 16000
AT_ONCE = 64
"""So many are written before the last of them must be acknowledged."""
PINGS = 4000


def measure(rounds: int) -> Section:
    """Run all rounds, both ways in turn."""
    empty = epoch(0)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_commits(empty))
        theirs.append(_ping_pong(len(empty)))
    return Section(
        "Empty epochs",
        f"{EPOCHS} checkpoints of {len(empty)} bytes without a page, {AT_ONCE} written before the "
        "last of them must be acknowledged; beside as many bytes and one byte back over TCP.",
        [
            Row(
                "commits in a second",
                Figure(ours, "/s"),
                Figure(theirs, "/s"),
                "ping-pong",
                least=0.2,
            )
        ],
    )


def _commits(data: bytes) -> float:
    with Relay() as relay:
        began = timed()
        for _ in range(EPOCHS):
            relay.write(data)
            relay.await_ack(AT_ONCE)
        relay.await_ack()
        return EPOCHS / (timed() - began)


def _ping_pong(size: int) -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while connection.recv(size, socket.MSG_WAITALL):
                    connection.sendall(b"\0")

        thread = threading.Thread(target=answer)
        thread.start()
        with socket.create_connection(listener.getsockname()) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = bytes(size)
            began = timed()
            for _ in range(PINGS):
                link.sendall(data)
                link.recv(1)
            took = timed() - began
        thread.join()
    return PINGS / took
