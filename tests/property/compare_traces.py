"""Traces of two copies of a guest, and an independent judge of what may leave.

The judge knows nothing of the comparator's books: it keeps the plain facts, which side has said
what since the last checkpoint, and finds the first released frame that says more than the
secondary has.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from colod.output.compare.comparator import Comparator
from colod.output.compare.decisions import Decisions, Side
from colod.output.compare.packet import parse_ethernet, parse_ip
from colod.output.compare.segment import ACK, FIN, RST, parse_segment
from colod.output.compare.sequence import MODULUS
from tests.unit.compare_samples import released, tcp

Event = tuple[Side, bytes] | None
"""A frame of one side, or a checkpoint."""

_FLAGS = [ACK] * 6 + [ACK | FIN, RST]


@dataclass
class Facts:
    """What one side has said of all connections."""

    octets: set[tuple[bytes, int, int]] = field(default_factory=set)
    fins: set[tuple[bytes, int]] = field(default_factory=set)
    resets: set[tuple[bytes, int]] = field(default_factory=set)
    acks: dict[bytes, int] = field(default_factory=dict)
    edges: dict[bytes, int] = field(default_factory=dict)

    def note(self, frame: bytes) -> None:
        """Add what a frame says."""
        self.note_all(facts_of(frame))

    def note_all(self, said: Facts) -> None:
        """Add what another side, or a frame, says."""
        self.octets |= said.octets
        self.fins |= said.fins
        self.resets |= said.resets
        for ports, ack in said.acks.items():
            self.acks[ports] = max(ack, self.acks.get(ports, 0))
            self.edges[ports] = max(said.edges[ports], self.edges.get(ports, 0))

    def lacks(self, said: Facts) -> list[str]:
        """Return in which respects a frame says more than this side did."""
        return [
            what
            for what, is_more in {
                "octets": not said.octets <= self.octets,
                "fin": not said.fins <= self.fins,
                "reset": not said.resets <= self.resets,
                "ack": any(ack > self.acks.get(p, -1) for p, ack in said.acks.items()),
                "window": any(edge > self.edges.get(p, -1) for p, edge in said.edges.items()),
            }.items()
            if is_more
        ]


def facts_of(frame: bytes) -> Facts:
    """Return what one frame with a TCP segment says."""
    ethernet = parse_ethernet(frame)
    assert ethernet is not None
    packet = parse_ip(frame, ethernet)
    assert packet is not None
    segment = parse_segment(packet.body)
    assert segment is not None
    said = Facts()
    ports, flags = segment.ports, segment.flags
    if flags & RST:
        said.resets.add((ports, segment.seq))
        return said
    for at, octet in enumerate(segment.payload):
        said.octets.add((ports, (segment.seq + at) % MODULUS, octet))
    if flags & FIN:
        said.fins.add((ports, (segment.seq + len(segment.payload)) % MODULUS))
    if flags & ACK:
        # Turned by half a circle, so that none of these traces crosses the wrap.
        said.acks[ports] = (segment.ack + MODULUS // 2) % MODULUS
        said.edges[ports] = said.acks[ports] + segment.window
    return said


def violation(trace: Sequence[Event]) -> list[str]:
    """Play a trace, and return what the first frame that must not leave says too much."""
    comparator = Comparator()
    ours, theirs = Facts(), Facts()
    for event in trace:
        if event is None:
            comparator.checkpoint_committed()
            theirs = Facts()
            theirs.note_all(ours)
            continue
        side, frame = event
        (ours if side is Side.PRIMARY else theirs).note(frame)
        take = comparator.primary if side is Side.PRIMARY else comparator.secondary
        for each in released(take(frame, 0.0)):
            said = facts_of(each)
            lacking = theirs.lacks(said)
            is_reset_alone = {p for p, _ in theirs.resets - ours.resets} & said.acks.keys()
            if lacking or is_reset_alone:
                return lacking or ["reset"]
    return []


_PAYLOADS = [b"", b"", b"a", b"b", b"ab", b"ba", b"abab"]
_PORTS = [1, 1, 1, 2]


def segment_of(payload: bytes, seq: int, ack: int, flags: int, window: int, port: int) -> bytes:
    """Return a segment; the values are small, so that much of a trace collides."""
    return tcp(
        b"" if flags & RST else payload,
        seq=1000 + seq,
        ack=5000 + ack,
        flags=flags,
        window=10 + window,
        ports=(80, port),
    )


_segments = st.builds(
    segment_of,
    st.sampled_from(_PAYLOADS),
    st.integers(0, 8),
    st.integers(0, 3),
    st.sampled_from(_FLAGS),
    st.integers(0, 3),
    st.sampled_from(_PORTS),
)
_event = st.tuples(st.sampled_from(Side), _segments)
hostile_traces: st.SearchStrategy[list[Event]] = st.lists(
    st.one_of(_event, _event, _event, st.none()), max_size=20
)


def random_trace(seed: int) -> list[Event]:
    """Return a trace of the same kind, much faster than hypothesis makes one."""
    chance = random.Random(seed)
    span = chance.choice([1, 3, 8])

    def event() -> Event:
        if chance.random() < 0.15:
            return None
        frame = segment_of(
            chance.choice(_PAYLOADS),
            chance.randint(0, span),
            chance.randint(0, span // 2),
            chance.choice(_FLAGS),
            chance.randint(0, span // 2),
            chance.choice(_PORTS),
        )
        return chance.choice(list(Side)), frame

    return [event() for _ in range(chance.randint(1, 20))]


@dataclass(frozen=True)
class Piece:
    """One segment of a copy's stream, and what it acknowledges."""

    begin: int
    end: int
    ack: int


@st.composite
def pieces(draw: st.DrawFn, size: int, last_ack: int) -> list[Piece]:
    """Return all of a stream of `size` bytes in any cut, order and repetition."""
    cuts = draw(st.lists(st.integers(1, max(1, size - 1)), max_size=6))
    bounds = sorted({0, size, *cuts})
    cut = list(itertools.pairwise(bounds))
    again = draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)), max_size=3))
    spans = draw(st.permutations(cut + [(min(s), max(s)) for s in again]))
    acks = draw(st.lists(st.integers(0, last_ack), min_size=len(spans), max_size=len(spans)))
    return [Piece(a, b, ack) for (a, b), ack in zip(spans, sorted(acks), strict=True)]


def play(comparator: Comparator, trace: Sequence[tuple[Side, bytes]]) -> list[Decisions]:
    """Feed a trace without checkpoints."""
    return [
        (comparator.primary if side is Side.PRIMARY else comparator.secondary)(frame, 0.0)
        for side, frame in trace
    ]
