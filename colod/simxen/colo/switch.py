"""The network of guests on wires: a switch that belongs to no host, and the clients behind it.

A client connects by ordinary TCP to an address of this machine. What it says reaches the guest as
segments in Ethernet frames, and what the guest says goes back; so the client's connection lives for
as long as the guest's does, whichever copy of it speaks. Frames for the guest go to where frames
with its address came from last, as with any switch.

    python -m colod.simxen.colo.switch SOCKET HOST:PORT LOG

LOG gets a line of JSON whenever the guest's frames come from another place than before, and for
each answer in them.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from colod.simxen.colo import segments
from colod.simxen.colo.framing import Unwrapper, wrap
from colod.simxen.colo.segments import ACK, FIN, MODULUS, MSS, PSH, RST, SYN, Segment, is_before

RETRANSMIT_S: Final = 0.1
TICK_S: Final = 0.02
_FIRST_PORT: Final = 20000

Send = Callable[[Segment], None]


class Client:
    """One client's connection, at both of its ends: the real one, and the guest's."""

    def __init__(self, connection: socket.socket, address: bytes, send: Send) -> None:
        """Begin with a SYN to the guest.

        Args:
            connection: The real one.
            address: What the guest sees of the client, 6 bytes.
            send: Sends a segment to the guest.
        """
        connection.setblocking(False)
        self.socket = connection
        self.address = address
        self.is_over = False
        self._send = send
        self._una = int.from_bytes(os.urandom(4), "big")
        self._expected = 0
        self._unacked = b""
        self._is_open = False
        self.is_closing = False
        self._sent_at = 0.0
        self.resend(time.monotonic())

    def resend(self, now: float) -> None:
        """Send what the guest has not acknowledged, if that is due."""
        if now - self._sent_at < RETRANSMIT_S:
            return
        self._sent_at = now
        if not self._is_open:
            self._send(Segment(self.address, False, self._una, 0, SYN))
            return
        for at in range(0, len(self._unacked), MSS):
            self._say((self._una + at) % MODULUS, ACK | PSH, self._unacked[at : at + MSS])
        if self.is_closing:
            self._say((self._una + len(self._unacked)) % MODULUS, ACK | FIN)

    def read(self) -> None:
        """Take what the client says."""
        try:
            got = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if got and not self.is_closing:
            begin = (self._una + len(self._unacked)) % MODULUS
            self._unacked += got
            if self._is_open:
                for at in range(0, len(got), MSS):
                    self._say((begin + at) % MODULUS, ACK | PSH, got[at : at + MSS])
                self._sent_at = time.monotonic()
        elif not got:
            self._close()

    def take(self, segment: Segment) -> None:
        """Take a segment of the guest."""
        if segment.flags & RST:
            self.is_over = True
            return
        if segment.flags & SYN:
            if not self._is_open and segment.ack == (self._una + 1) % MODULUS:
                self._is_open, self._una = True, segment.ack
                self._expected = (segment.seq + 1) % MODULUS
                self._sent_at = float("-inf")
            self._acknowledge()
            self.resend(time.monotonic())
            return
        if not self._is_open:
            return
        self._acknowledged(segment.ack)
        if segment.length:
            if segment.seq == self._expected:
                self._expected = (self._expected + segment.length) % MODULUS
                self._deliver(segment)
            self._acknowledge()

    def _acknowledged(self, ack: int) -> None:
        end = (self._una + len(self._unacked) + self.is_closing) % MODULUS
        if is_before(self._una, ack) and not is_before(end, ack):
            count = (ack - self._una) % MODULUS
            self._unacked, self._una = self._unacked[count:], ack

    def _deliver(self, segment: Segment) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(segment.payload)
        if segment.flags & FIN:
            self.is_over = True

    def _acknowledge(self) -> None:
        self._say((self._una + len(self._unacked) + self.is_closing) % MODULUS, ACK)

    def _say(self, seq: int, flags: int, payload: bytes = b"") -> None:
        self._send(Segment(self.address, False, seq, self._expected, flags, payload))

    def _close(self) -> None:
        if self.is_closing:
            return
        self.is_closing = True
        if not self._is_open:
            self.is_over = True
            return
        self._say((self._una + len(self._unacked)) % MODULUS, ACK | FIN)
        self._sent_at = time.monotonic()


class Place:
    """One interface that is plugged in."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over an accepted connection; its first frame says whose it is."""
        connection.setblocking(False)
        self.socket = connection
        self.who: dict[str, object] | None = None
        self.frames = Unwrapper()


class Switch:
    """One guest's network."""

    def __init__(self, wire: Path, service: str, log: Path) -> None:
        """Listen on both sides.

        Args:
            wire: Where interfaces come.
            service: HOST:PORT where clients come.
            log: See the module.
        """
        self._selector = selectors.DefaultSelector()
        self._log = log
        self._mac = bytes(6)
        self._location: Place | None = None
        self._clients: dict[bytes, Client] = {}
        self._next_port = _FIRST_PORT
        wire.unlink(missing_ok=True)
        plugged = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plugged.bind(str(wire))
        host, _, port = service.rpartition(":")
        served = socket.socket()
        served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        served.bind((host, int(port)))
        for listener, action in ((plugged, self._plug_in), (served, self._admit)):
            listener.listen(64)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, (action, listener))

    def run(self) -> None:
        """Serve until killed, or until the directory of the log is gone."""
        while self._log.parent.is_dir():
            for key, _ in self._selector.select(TICK_S):
                action, subject = key.data
                action(subject)
            now = time.monotonic()
            for client in tuple(self._clients.values()):
                if not client.is_over:
                    client.resend(now)
                if client.is_over:
                    self._part(client)

    def _plug_in(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            place = Place(listener.accept()[0])
            self._selector.register(place.socket, selectors.EVENT_READ, (self._hear, place))

    def _admit(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            self._next_port = _FIRST_PORT + (self._next_port + 1 - _FIRST_PORT) % 40000
            address = bytes((10, 0, 1, 1)) + self._next_port.to_bytes(2, "big")
            client = Client(connection, address, self._to_guest)
            self._clients[address] = client
            self._selector.register(connection, selectors.EVENT_READ, (self._listen, client))

    def _listen(self, client: Client) -> None:
        client.read()
        if client.is_over:
            self._part(client)
        elif client.is_closing:
            self._forget(client.socket)

    def _part(self, client: Client) -> None:
        self._clients.pop(client.address, None)
        self._forget(client.socket)
        client.socket.close()

    def _forget(self, connection: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)

    def _hear(self, place: Place) -> None:
        try:
            octets = place.socket.recv(1 << 16)
            frames = place.frames.feed(octets)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            octets, frames = b"", []
        for frame in frames:
            if place.who is None:
                place.who = json.loads(frame)
                continue
            self._heard(place, frame)
        if not octets:
            self._forget(place.socket)
            place.socket.close()
            if self._location is place:
                self._location = None

    def _heard(self, place: Place, frame: bytes) -> None:
        self._mac = segments.source_mac(frame)
        segment = segments.decode(frame)
        answer = {} if segment is None else _answer_in(segment.payload)
        if place is not self._location or answer:
            self._location = place
            self._write({"at": time.monotonic(), **(place.who or {}), **answer})
        if segment is None or not segment.is_of_guest:
            return
        client = self._clients.get(segment.client)
        if client is not None:
            client.take(segment)
        elif not segment.flags & RST:
            self._to_guest(Segment(segment.client, False, segment.ack, 0, RST))

    def _write(self, word: dict[str, object]) -> None:
        with contextlib.suppress(OSError), self._log.open("ab", buffering=0) as log:
            log.write(json.dumps(word).encode() + b"\n")

    def _to_guest(self, segment: Segment) -> None:
        if self._location is None:
            return
        with contextlib.suppress(OSError):
            self._location.socket.setblocking(True)
            self._location.socket.settimeout(0.2)
            self._location.socket.sendall(wrap(segments.encode(segment, self._mac)))
            self._location.socket.setblocking(False)


def _answer_in(payload: bytes) -> dict[str, object]:
    """Return what tells one answer from another, of the last one in a payload; {} without one."""
    try:
        told = json.loads(payload.splitlines()[-1])
        return {"boot_id": told["boot_id"], "counter": told["counter"]}
    except (IndexError, ValueError, KeyError, TypeError):
        return {}


def main(arguments: list[str]) -> None:
    """Run a switch."""
    wire, service, log = arguments
    Switch(Path(wire), service, Path(log)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
