"""A client that never stops asking the guest and keeps every answer: judge of output commit."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import Literal, Self

from tests.xen.guest import PORT, GuestClient, Reading, parse_answer
from tests.xen.process import CommandFailed

ASK_EVERY_S = 0.02
PATIENCE_S = 1.0
"""How long one look at a socket takes at most; a mute guest is asked again, by the same socket."""

Channel = Literal["udp", "tcp"]
CHANNELS: tuple[Channel, ...] = ("udp", "tcp")


@dataclass(frozen=True)
class Heard:
    """An answer that left the guest's host and reached the client.

    Attributes:
        at: When, in seconds of this machine's monotonic clock.
        channel: How it came.
        connection: Which connection of that kind it came by, from 1.
        reading: What it said.
    """

    at: float
    channel: Channel
    connection: int
    reading: Reading


class Recorder:
    """Asks over UDP and over one TCP connection at once, until it is closed."""

    def __init__(self, client: GuestClient) -> None:
        """Begin to ask."""
        self._client = client
        self._heard: list[Heard] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=ask) for ask in (self._ask_udp, self._ask_tcp)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def heard(self) -> list[Heard]:
        """Return all answers until now, in the order in which they came."""
        return list(self._heard)

    def wait_for(self, after: float, channel: Channel, count: int, limit_s: float) -> None:
        """Wait for `count` answers later than `after`; CommandFailed after `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        while sum(h.at > after and h.channel == channel for h in self.heard()) < count:
            if time.monotonic() > deadline:
                raise CommandFailed(f"fewer than {count} answers by {channel} in {limit_s:.0f} s")
            time.sleep(0.1)

    # -- on their own threads

    def _ask_udp(self) -> None:
        with self._client.namespace.udp(PATIENCE_S) as channel:
            channel.settimeout(ASK_EVERY_S)
            while not self._ended.is_set():
                with contextlib.suppress(OSError):
                    channel.sendto(b"get\n", (self._client.address, PORT))
                deadline = time.monotonic() + ASK_EVERY_S
                while time.monotonic() < deadline:
                    try:
                        answer = channel.recv(256)
                    except OSError:
                        continue
                    self._keep("udp", 1, answer)

    def _ask_tcp(self) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            with (
                contextlib.suppress(OSError),
                self._client.namespace.tcp(self._client.address, PORT) as connection,
            ):
                self._converse(number, connection)

    def _converse(self, number: int, connection: socket.socket) -> None:
        """Ask by one connection for as long as it lives: a takeover must not end it."""
        connection.settimeout(PATIENCE_S)
        kept = b""
        while not self._ended.is_set():
            try:
                piece = connection.recv(4096)
            except TimeoutError:
                continue
            if not piece:
                return
            *lines, kept = (kept + piece).split(b"\n")
            for line in lines:
                self._keep("tcp", number, line)
            time.sleep(ASK_EVERY_S)
            connection.sendall(b"get\n")

    def _keep(self, channel: Channel, number: int, answer: bytes) -> None:
        self._heard.append(Heard(time.monotonic(), channel, number, parse_answer(answer)))


def taken_back(heard: list[Heard], died_at: float) -> list[str]:
    """Say which answers the takeover took back: those that the new copy knows nothing of.

    The guest numbers its answers. A copy that goes on from a state which holds all that was heard
    begins above the highest number heard, and with a counter that is not lower.

    Args:
        heard: All answers.
        died_at: When the old host had died, same clock; what came later is from the new one.
    """
    before = [each.reading for each in heard if each.at <= died_at]
    after = [each.reading for each in heard if each.at > died_at]
    if not before or not after:
        raise ValueError(f"{len(before)} answers before, {len(after)} after: nothing to judge")
    highest = max(before, key=lambda reading: reading.reply)
    lowest = min(after, key=lambda reading: reading.reply)
    found = []
    if lowest.reply <= highest.reply:
        found.append(f"reply {lowest.reply} after reply {highest.reply} had been seen")
    if lowest.counter < (seen := max(reading.counter for reading in before)):
        found.append(f"counter {lowest.counter} after {seen} had been seen")
    if {each.boot_id for each in after} != {highest.boot_id}:
        found.append("the guest booted anew")
    return found


def said_twice(heard: list[Heard]) -> list[str]:
    """Say which answers two copies of the guest gave: it numbers them, and each once only."""
    seen: dict[tuple[str, int], Heard] = {}
    found = []
    for each in heard:
        key = (each.reading.boot_id, each.reading.reply)
        if key in seen:
            found.append(f"reply {key[1]} came {each.at - seen[key].at:.1f} s later once more")
        seen.setdefault(key, each)
    return found
