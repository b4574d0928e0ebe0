"""How long the producer is blocked on a paced link, and how long an acknowledgement takes."""

from __future__ import annotations

import os
import socket
import threading

from tests.bench.bed import MIB, Relay, epoch, paced, timed, write_all
from tests.bench.rivals import splice
from tests.bench.table import Figure, Row, Section

LINK = 1e9
SIZES = (4, 16, 64)
ACKED_SIZES = (16, 64)


def measure(rounds: int) -> Section:
    """Run all rounds, each of them with all sizes and both ways in turn."""
    epochs = {size: epoch(size * MIB) for size in SIZES}
    ours: dict[int, list[float]] = {size: [] for size in SIZES}
    theirs: dict[int, list[float]] = {size: [] for size in SIZES}
    acked: dict[int, list[float]] = {size: [] for size in ACKED_SIZES}
    plain: dict[int, list[float]] = {size: [] for size in ACKED_SIZES}
    with paced(LINK):
        for _ in range(rounds):
            for size, data in epochs.items():
                blocked, answered = _ours(data)
                ours[size].append(blocked)
                theirs[size].append(_spliced(data))
                if size in acked:
                    acked[size].append(answered)
                    plain[size].append(_round_trip(len(data)))
    return Section(
        "The guest's pause and the acknowledgement",
        "On a link of 1 Gbit/s (loopback and the kernel's token bucket). *Blocked*: how long libxl "
        "needs to get a whole checkpoint out of its hands, while its guest is suspended; beside a "
        "process that splices the same pipe straight into a socket. *Acknowledged*: from the "
        "checkpoint's first byte to its acknowledgement; beside the same number of bytes over a "
        "plain TCP connection and one byte back, which is wire bytes / link + round trip.",
        [
            *(
                Row(
                    f"blocked, {size} MiB",
                    Figure(_ms(ours[size]), "ms"),
                    Figure(_ms(theirs[size]), "ms"),
                    "splice",
                    most=1 / 8,
                )
                for size in SIZES
            ),
            *(
                Row(
                    f"acknowledged, {size} MiB",
                    Figure(_ms(acked[size]), "ms"),
                    Figure(_ms(plain[size]), "ms"),
                    "plain TCP",
                    most=1.15,
                )
                for size in ACKED_SIZES
            ),
        ],
    )


def _ms(values: list[float]) -> list[float]:
    return [value * 1000 for value in values]


def _ours(data: bytes) -> tuple[float, float]:
    """Return for how long the writer was blocked, and after how long it was acknowledged."""
    with Relay() as relay:
        relay.write(data)  # memory is touched, and TCP's window is open
        relay.await_ack()
        began = timed()
        relay.write(data)
        blocked = timed() - began
        relay.await_ack()
        return blocked, timed() - began


def _spliced(data: bytes) -> float:
    rival = splice()
    write_all(rival.input, data)
    began = timed()
    write_all(rival.input, data)
    took = timed() - began
    rival.finish()
    return took


def _round_trip(size: int) -> float:
    """Send `size` bytes over TCP twice, each time until the other side says that it has them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            connection, _ = listener.accept()
            buffer = bytearray(MIB)
            with connection:
                for _ in range(2):
                    left = size
                    while left:
                        left -= connection.recv_into(buffer, min(left, MIB))
                    connection.sendall(b"\0")

        taker = threading.Thread(target=take)
        taker.start()
        data = os.urandom(MIB)
        with socket.create_connection(listener.getsockname()) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            took = 0.0
            for _ in range(2):
                began, left = timed(), size
                while left:
                    left -= link.send(data[: min(left, MIB)])
                link.recv(1)
                took = timed() - began
        taker.join()
    return took
