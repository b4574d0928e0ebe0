"""The TCP of the simulated guest's kernel: all of its state lies in the guest's memory.

So a copy of the memory is a copy of the connections, too, but for one thing: the initial sequence
number of a connection is drawn when it is accepted, and two running copies draw different ones.
"""

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from colod.simxen.colo import segments
from colod.simxen.colo.segments import ACK, FIN, MODULUS, MSS, PSH, RST, SYN, Segment, is_before
from colod.simxen.guest import KERNEL_PAGES, PAGE_BYTES, Machine

RETRANSMIT_S: Final = 0.15
MAX_LINE_BYTES: Final = 4096

Answer = Callable[[str], bytes]


@dataclass(slots=True)
class Connection:
    """One accepted connection.

    Attributes:
        una: The first number that the client has not acknowledged.
        expected: The next number from the client.
        unacked: What was sent from `una` on, the SYN and the FIN apart.
        line: What came of a request that has no end yet.
        is_new: Whether the SYN-ACK was not acknowledged yet; it is then at `una`.
        is_closing: Whether a FIN was sent behind `unacked`.
    """

    una: int
    expected: int
    unacked: bytes = b""
    line: bytes = b""
    is_new: bool = True
    is_closing: bool = False

    @property
    def sent(self) -> int:
        """The next number that this side sends."""
        return (self.una + self.is_new + len(self.unacked) + self.is_closing) % MODULUS


class Kernel:
    """Answers requests, one line each, on any number of connections."""

    def __init__(self, machine: Machine, answer: Answer) -> None:
        """Stand without connections; `load` takes over those in memory.

        Args:
            machine: Whose last KERNEL_PAGES pages are the kernel's.
            answer: Returns the reply to one request line, whole.
        """
        self._machine = machine
        self._answer = answer
        self._begin = (machine.pages - KERNEL_PAGES) * PAGE_BYTES
        self._connections: dict[bytes, Connection] = {}
        self._sent_at: dict[bytes, float] = {}

    def load(self) -> None:
        """Take over the connections that the memory holds."""
        size = int.from_bytes(self._machine.memory[self._begin : self._begin + 4], "big")
        text = bytes(self._machine.memory[self._begin + 4 : self._begin + 4 + size])
        stored: dict[str, dict[str, Any]] = json.loads(text) if text else {}
        self._connections = {
            bytes.fromhex(client): Connection(
                **{
                    **fields,
                    "unacked": base64.b64decode(fields["unacked"]),
                    "line": base64.b64decode(fields["line"]),
                }
            )
            for client, fields in stored.items()
        }
        # Whatever was on its way may be lost: it is sent again soon.
        self._sent_at = {}

    def take(self, frame: bytes) -> list[Segment]:
        """Take a frame from the network; return what is said to it."""
        segment = segments.decode(frame)
        if segment is None or segment.is_of_guest:
            return []
        replies = list(self._segment(segment))
        self._store()
        return replies

    def due(self, now: float) -> list[Segment]:
        """Return what has to be sent again."""
        again: list[Segment] = []
        for client, each in self._connections.items():
            if not (each.unacked or each.is_new or each.is_closing):
                continue
            if now - self._sent_at.get(client, now - RETRANSMIT_S) >= RETRANSMIT_S:
                again += self._outstanding(client, each)
        return again

    def _segment(self, segment: Segment) -> Iterator[Segment]:
        client, known = segment.client, self._connections.get(segment.client)
        if segment.flags & RST:
            self._connections.pop(client, None)
            return
        if segment.flags & SYN:
            expected = (segment.seq + 1) % MODULUS
            if known is None or known.expected != expected or not known.is_new:
                isn = int.from_bytes(os.urandom(4), "big")
                known = self._connections[client] = Connection(isn, expected)
            yield from self._outstanding(client, known)
            return
        if known is None:
            yield Segment(client, True, segment.ack, 0, RST)
            return
        self._acknowledged(client, known, segment.ack)
        if client not in self._connections or not segment.length:
            return
        if segment.seq == known.expected:
            known.expected = (known.expected + segment.length) % MODULUS
            yield from self._received(client, known, segment)
        else:
            yield self._pure_ack(client, known)

    def _acknowledged(self, client: bytes, known: Connection, ack: int) -> None:
        if not is_before(known.una, ack) or is_before(known.sent, ack):
            return
        if known.is_new:
            known.is_new, known.una = False, (known.una + 1) % MODULUS
        count = (ack - known.una) % MODULUS
        if known.is_closing and count > len(known.unacked):
            del self._connections[client]
            return
        known.unacked, known.una = known.unacked[count:], ack

    def _received(self, client: bytes, known: Connection, segment: Segment) -> Iterator[Segment]:
        known.line += segment.payload
        begin, reply = known.sent, b""
        while b"\n" in known.line:
            line, _, known.line = known.line.partition(b"\n")
            reply += self._answer(line.decode("utf-8", "replace").strip())
        known.line = known.line[-MAX_LINE_BYTES:]
        known.unacked += reply
        flags = ACK
        if segment.flags & FIN:
            known.is_closing, flags = True, ACK | FIN
        if not reply:
            yield Segment(client, True, begin, known.expected, flags)
        for at in range(0, len(reply), MSS):
            part = reply[at : at + MSS]
            is_last = at + MSS >= len(reply)
            yield Segment(
                client,
                True,
                (begin + at) % MODULUS,
                known.expected,
                (flags if is_last else ACK) | PSH,
                part,
            )
        self._sent_at[client] = time.monotonic()

    def _outstanding(self, client: bytes, known: Connection) -> Iterator[Segment]:
        self._sent_at[client] = time.monotonic()
        if known.is_new:
            yield Segment(client, True, known.una, known.expected, SYN | ACK)
            return
        for at in range(0, len(known.unacked), MSS):
            part = known.unacked[at : at + MSS]
            seq = (known.una + at) % MODULUS
            yield Segment(client, True, seq, known.expected, ACK | PSH, part)
        if known.is_closing:
            seq = (known.una + len(known.unacked)) % MODULUS
            yield Segment(client, True, seq, known.expected, ACK | FIN)

    @staticmethod
    def _pure_ack(client: bytes, known: Connection) -> Segment:
        return Segment(client, True, known.sent, known.expected, ACK)

    def _store(self) -> None:
        table = {}
        for client, each in self._connections.items():
            fields = asdict(each)
            fields["unacked"] = base64.b64encode(each.unacked).decode()
            fields["line"] = base64.b64encode(each.line).decode()
            table[client.hex()] = fields
        text = json.dumps(table).encode()
        room = KERNEL_PAGES * PAGE_BYTES - 4
        if len(text) > room:
            # A kernel without memory forgets its oldest connections; their clients get a RST.
            for client in list(self._connections)[: len(self._connections) // 2 + 1]:
                del self._connections[client]
            self._store()
            return
        whole = len(text).to_bytes(4, "big") + text
        self._machine.memory[self._begin : self._begin + len(whole)] = whole
        first = self._begin // PAGE_BYTES
        for pfn in range(first, first + -(-len(whole) // PAGE_BYTES)):
            self._machine.dirty[pfn] = 1
